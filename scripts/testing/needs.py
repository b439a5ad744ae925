"""What suites need: each need is a function that installs or builds it, once.

It raises `Unavailable` where that cannot be had here, which skips the suite, and `Broken` where it
is made from this repository and making it failed.
"""

import dataclasses
import functools
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

import python_environment

ROOT = pathlib.Path(__file__).resolve().parents[2]
CARGO_JOBS = os.environ.get("CARGO_BUILD_JOBS", str(os.cpu_count()))
# Of the program as tests have it. Lints have the same, so that macros and build scripts are compiled once.
HOST_FEATURES = ["webgpu", "wasmtime-serve", "test-clocks"]
IN_WORKSPACE = ",".join(f"lethe-host/{name}" for name in HOST_FEATURES)
MODELS = ROOT / "target" / "models"
CLIENTS = ROOT / "target" / "clients"
SHARED = ROOT.parent / "shared" / "models"
OPEN_MODELS = ["squeezenet1_1", "mobilenet_v2", "resnet18", "bert_base", "gpt2_small"]


class Unavailable(Exception):
    """What a suite needs is missing and cannot be installed here; the text says why."""


class Broken(Exception):
    """What a suite needs is made from this repository, and making it failed."""


@dataclasses.dataclass
class Time:
    """Seconds on the clock, and of all cores together."""

    wall: float = 0.0
    cpu: float = 0.0

    def __add__(self, other):
        return Time(self.wall + other.wall, self.cpu + other.cpu)

    def __str__(self):
        return f"{self.wall:.0f} s ({self.cpu:.0f} s of cores)"


# What needs have taken so far.
spent = Time()


def finished(*command, cwd=ROOT):
    """Runs a command without input; returns whether it succeeded, and its output."""
    global spent
    start = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, cwd=cwd, stdin=subprocess.DEVNULL, text=True,
                                   stdout=output, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        spent += Time(time.monotonic() - start, used.ru_utime + used.ru_stime)
        output.seek(0)
        return process.returncode == 0, output.read()


def install(*command, cwd=ROOT):
    """Runs an installing command; `Unavailable` with its last line when it fails."""
    print(f"    installing: {' '.join(map(str, command))}", flush=True)
    good, output = finished(*command, cwd=cwd)
    if not good:
        lines = output.strip().splitlines() or ["no output"]
        raise Unavailable(f"`{' '.join(map(str, command))}` failed: {lines[-1]}")


@functools.cache
def made(*command):
    print(f"    building: {' '.join(command)}", flush=True)
    return finished(*command)


def built(*command):
    """Runs a command that makes something of this repository, once; `Broken` with the end of its
    output when it fails."""

    def need():
        good, output = made(*command)
        if not good:
            raise Broken(f"`{' '.join(command)}` failed:\n" + "\n".join(output.splitlines()[-40:]))

    return need


def make(*words):
    """`make WORDS…`, once."""
    return built("make", "--no-print-directory", *words)


def absent(path, *command):
    """A program of this repository, made by the command where an earlier suite did not leave it."""

    def need():
        if not (ROOT / path).exists():
            built(*command)()

    return need


def rust_target(triple):
    def need():
        if not shutil.which("rustup"):
            raise Unavailable(f"no rustup to install the target {triple} with")
        listed = subprocess.run(
            ["rustup", "target", "list", "--installed"], cwd=ROOT, text=True, capture_output=True
        )
        if triple not in listed.stdout.split():
            install("rustup", "target", "add", triple)

    return need


@functools.cache
def fresh_debian_lists():
    install("apt-get", "update", "-qq")


def debian(package, present):
    """A Debian package, unless `present` (an executable's name or a path's pattern) is there."""

    def need():
        there = shutil.which(present) or ("*" in present and list(pathlib.Path("/").glob(present)))
        if there:
            return
        if not shutil.which("apt-get") or os.geteuid() != 0:
            raise Unavailable(f"{package} is not installed, and only root may install it with apt-get")
        fresh_debian_lists()
        install("apt-get", "install", "-y", "-qq", "--no-install-recommends", package)

    return need


def command_line_tool(name):
    def need():
        if not shutil.which(name):
            raise Unavailable(f"{name} is not installed")

    return need


def static_programs():
    """A C library that programs can be linked with for good."""
    command = ["cc", "-static", "-x", "c", "-o", os.devnull, "-"]
    tried = subprocess.run(command, input="int main(void) { return 0; }", text=True, capture_output=True)
    if tried.returncode != 0:
        raise Unavailable("the C library here is not there for static programs")


def npm_packages(folder, command=("npm", "ci")):
    """What the folder's package-lock.json says."""

    def need():
        command_line_tool("npm")()
        lock = ROOT / folder / "package-lock.json"
        stamp = ROOT / folder / "node_modules" / ".package-lock.json"
        if not stamp.exists() or stamp.stat().st_mtime < lock.stat().st_mtime:
            install(*command, "--no-audit", "--no-fund", cwd=ROOT / folder)
            stamp.touch()

    return need


def optional(need):
    """What only some of a suite's tests need: without it they say that they are skipped."""

    def try_need():
        try:
            need()
        except (Unavailable, Broken) as reason:
            print(f"    {reason}", flush=True)

    return try_need


def python_packages():
    try:
        python_environment.prepare()
    except subprocess.CalledProcessError as failure:
        raise Unavailable(f"cannot prepare target/venv: {failure}") from failure


def client_packages():
    """Other people's clients of servers, in an environment of their own."""
    try:
        python_environment.prepare(ROOT / "tests/clients/requirements.txt", CLIENTS)
    except subprocess.CalledProcessError as failure:
        raise Unavailable(f"cannot prepare {CLIENTS.relative_to(ROOT)}: {failure}") from failure


def real_models():
    if MODELS.exists():
        return
    if os.environ.get("LETHE_MODELS") != "1":
        raise Unavailable("no target/models; LETHE_MODELS=1 makes it from ../shared/models")
    if not SHARED.exists():
        raise Unavailable("LETHE_MODELS=1, but there is no ../shared/models")
    python_packages()
    python = python_environment.INTERPRETER
    install(python, SHARED / "fetch_real.py", "--out", MODELS)
    install(python, SHARED / "materialize.py", "--out", MODELS, "--with-reference", *OPEN_MODELS)
