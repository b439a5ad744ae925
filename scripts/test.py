#!/usr/bin/env python3
"""Runs every test of the repository: `make test`.

    python3 scripts/test.py               everything
    python3 scripts/test.py engine web    the suites whose names begin so
    python3 scripts/test.py --list        the table of suites

`SUITES` says what there is: a name, what it needs, the command, and how to read its counts. What a
suite needs is installed where that is allowed (Rust targets, npm and Python packages, cargo tools
into target/tools; Debian packages for root); where it is not, the suite is skipped and the reason
is said. A suite that prints no count has failed. The last line is

    N passed, N failed[, N skipped]

and the exit status is 1 if anything failed. Each suite's whole output is in target/test-logs.

Real models, of tens to hundreds of megabytes, are tested when they lie in target/models. With
LETHE_MODELS=1 they are put there first, by the scripts of ../shared/models.
"""

import argparse
import dataclasses
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable

import python_environment

ROOT = pathlib.Path(__file__).resolve().parent.parent
LOGS = ROOT / "target" / "test-logs"
TOOLS = ROOT / "target" / "tools"
MODELS = ROOT / "target" / "models"
CLIENTS = ROOT / "target" / "clients"
SHARED = ROOT.parent / "shared" / "models"
CARGO_JOBS = os.environ.get("CARGO_BUILD_JOBS", str(os.cpu_count()))


class Unavailable(Exception):
    """What a suite needs is missing and cannot be installed here; the text says why."""


class Broken(Exception):
    """What a suite needs is made from this repository, and making it failed."""


# ---- What suites need -------------------------------------------------------------------------


def finished(*command, cwd=ROOT):
    """Runs a command without input; returns whether it succeeded, and its output."""
    done = subprocess.run(
        command, cwd=cwd, stdin=subprocess.DEVNULL, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )
    return done.returncode == 0, done.stdout


def install(*command, cwd=ROOT):
    """Runs an installing command; `Unavailable` with its last line when it fails."""
    print(f"    installing: {' '.join(map(str, command))}", flush=True)
    good, output = finished(*command, cwd=cwd)
    if not good:
        lines = output.strip().splitlines() or ["no output"]
        raise Unavailable(f"`{' '.join(map(str, command))}` failed: {lines[-1]}")


def make(target):
    """`make TARGET`, once; `Broken` with the end of its output when it fails."""

    def need():
        if target not in made:
            print(f"    building: make {target}", flush=True)
            made[target] = finished("make", "--no-print-directory", target)
        good, output = made[target]
        if not good:
            raise Broken(f"`make {target}` failed:\n" + "\n".join(output.splitlines()[-40:]))

    return need


made = {}


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


def debian(package, present):
    """A Debian package, unless `present` (an executable's name or a path's pattern) is there."""

    def need():
        there = shutil.which(present) or ("*" in present and list(pathlib.Path("/").glob(present)))
        if there:
            return
        if not shutil.which("apt-get") or os.geteuid() != 0:
            raise Unavailable(f"{package} is not installed, and only root may install it with apt-get")
        if not debian_lists_fresh:
            install("apt-get", "update", "-qq")
            debian_lists_fresh.append(True)
        install("apt-get", "install", "-y", "-qq", "--no-install-recommends", package)

    return need


debian_lists_fresh = []


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


def locked_version(crate):
    """The version of `crate` in Cargo.lock."""
    packages = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    return next(p["version"] for p in packages if p["name"] == crate)


def wasm_bindgen():
    """The wasm-bindgen command line; its version must be that of the crate in Cargo.lock."""
    version = locked_version("wasm-bindgen")
    binary = TOOLS / "bin" / "wasm-bindgen"
    if binary.exists():
        said = subprocess.run([binary, "--version"], text=True, capture_output=True).stdout
        if said.split()[-1:] == [version]:
            return
    install("cargo", "install", "--root", TOOLS, "--version", version, "wasm-bindgen-cli")


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


def lethe():
    """The program, as the suite of native tests or `make build` left it."""
    if not any((ROOT / "target" / profile / "lethe").exists() for profile in ("debug", "release")):
        make("build")()


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


# ---- How counts are read ----------------------------------------------------------------------


@dataclasses.dataclass
class Counts:
    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other):
        return Counts(
            self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped
        )

    def __str__(self):
        text = f"{self.passed} passed, {self.failed} failed"
        return text + (f", {self.skipped} skipped" if self.skipped else "")


def rust_counts(output):
    """Sums `test result: ok. 3 passed; 0 failed; 1 ignored; …`, one line for each test binary.

    A test that could not run here says so in a line that begins with `skipped:`. The harness takes
    it for passed; here it counts as skipped.
    """
    found = re.findall(r"test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored", output)
    if not found:
        return None
    passed, failed, ignored = (sum(map(int, column)) for column in zip(*found))
    sections = re.split(r"^---- (\S+) stdout ----$", output, flags=re.M)[2::2]
    skipped = sum(bool(re.search(r"^skipped: ", section, re.M)) for section in sections)
    return Counts(passed - skipped, failed, ignored + skipped)


def last_line_counts(output):
    """The last line `3 passed, 0 failed[, 1 skipped]`, as this repository's own tools print it."""
    found = re.findall(r"^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$", output, re.M)
    return Counts(*(int(number or 0) for number in found[-1])) if found else None


def node_counts(output):
    """The summary of `node --test`: `# pass 3`, `# fail 0`, `# skipped 0`."""
    found = {name: int(number) for name, number in
             re.findall(r"^(?:#|ℹ) (pass|fail|skipped) (\d+)$", output, re.M)}
    if "pass" not in found:
        return None
    return Counts(found["pass"], found.get("fail", 0), found.get("skipped", 0))


# ---- The table --------------------------------------------------------------------------------


@dataclasses.dataclass
class Suite:
    name: str
    about: str
    needs: list[Callable[[], None]]
    command: list[str]
    counts: Callable[[str], Counts | None]
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    folder: str = "."
    limit_minutes: int = 20


def cargo_test(*arguments):
    # --show-output lets a test that passed say what it skipped.
    return ["cargo", "test", "-j", CARGO_JOBS, "--no-fail-fast", *arguments, "--", "--show-output"]


def optimised(level):
    """Where tests of kernels run once and are built for that alone, optimising takes longer."""
    return ["--config", f"profile.dev.package.lethe-engine.opt-level={level}"]



def engine_in_wasm(name, about, features):
    """The engine's own tests compiled to wasm, run by Node's WASI."""
    return Suite(
        f"engine-{name}", about,
        [rust_target("wasm32-wasip1"), command_line_tool("node")],
        cargo_test("-p", "lethe-engine", "--no-default-features", "--target", "wasm32-wasip1", "--lib",
                   *optimised(0)),
        rust_counts,
        {
            "CARGO_TARGET_WASM32_WASIP1_RUNNER": f"node {ROOT}/scripts/wasi_runner.mjs",
            "CARGO_TARGET_WASM32_WASIP1_RUSTFLAGS": f"-C target-feature={features}",
        },
    )


NEON = Suite(
    "engine-neon", "engine with NEON, under emulation",
    [rust_target("aarch64-unknown-linux-gnu"),
     debian("gcc-aarch64-linux-gnu", "aarch64-linux-gnu-gcc"),
     debian("libc6-dev-arm64-cross", "usr/aarch64-linux-gnu/include/stdio.*"),
     debian("qemu-user", "qemu-aarch64")],
    cargo_test("-p", "lethe-engine", "--target", "aarch64-unknown-linux-gnu", "--lib", *optimised(1)),
    rust_counts,
    {
        "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER": "aarch64-linux-gnu-gcc",
        "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER": "qemu-aarch64 -L /usr/aarch64-linux-gnu",
    },
)

# Some of jco's optional packages for other platforms are not in every registry, and `npm ci` refuses
# a lock file without them.
JCO = optional(npm_packages("tests/edge", ("npm", "install", "--no-save")))

OPEN_MODELS = ["squeezenet1_1", "mobilenet_v2", "resnet18", "bert_base", "gpt2_small"]
LAVAPIPE = debian("mesa-vulkan-drivers", "usr/share/vulkan/icd.d/lvp_icd*.json")
CHROMIUM = debian("chromium", "chromium")
# The recipe for nginx in front of a bundle is run.
EDGE = [debian("nginx", "/usr/sbin/nginx"), debian("curl", "curl"), debian("openssl", "openssl")]

EMBEDDED = "models/digits models/vibration"
REAL = ("target/models/real/* "
        + " ".join(f"target/models/open/{name}" for name in OPEN_MODELS))
VERIFY = [
    ("verify", "lethe verify", ""),
    ("verify-sandbox", "lethe verify in a sandbox", "--isolation sandbox"),
    ("verify-pure", "lethe verify in a sandbox without native kernels", "--isolation sandbox --pure-wasm"),
]


# As a command of bash.
NEWEST_LETHE = '"$(ls -t target/*/lethe | head -1)"'


def verify(name, about, options, models, needs):
    """Folders in the layout of the ONNX backend tests, as a user would verify them."""
    command = f"{NEWEST_LETHE} verify {options} {models}"
    return Suite(name, about, [*needs, lethe], ["bash", "-c", command], last_line_counts)


def demo_counts(output):
    """One test: the demo came to its end and found the memory wiped."""
    return Counts(passed=1) if "afterwards it is in the process 0 times" in output else Counts(failed=1)


# In one call, so that what they share is built once. The site's page is one of the doors tested.
NATIVE = Suite(
    "native", "engine at every kernel level of this machine and on WebGPU in software; command line, "
    "sandbox host, server, bundles; hostile input, expected answers, reproducible bits, allocations",
    [LAVAPIPE, optional(rust_target("wasm32-wasip2")), JCO,
     optional(npm_packages("tests/browser")), optional(CHROMIUM),
     optional(npm_packages("web")), optional(npm_packages("www")), optional(wasm_bindgen),
     optional(make("site")), *map(optional, EDGE)],
    cargo_test("-p", "lethe-engine", "-p", "lethe-host", "-p", "lethe-server", "-p", "lethe-tests",
               "--features", "lethe-engine/webgpu,lethe-host/webgpu,lethe-host/wasmtime-serve"),
    rust_counts, limit_minutes=40,
)

SUITES = [
    Suite("models", "embedded models: accuracy and size", [python_packages],
          ["bash", "scripts/check_models.sh"], last_line_counts),
    NATIVE,
    engine_in_wasm("wasm", "engine in wasm without SIMD", "-simd128"),
    engine_in_wasm("simd128", "engine in wasm with SIMD128", "+simd128"),
    engine_in_wasm("relaxed", "engine in wasm with relaxed SIMD", "+simd128,+relaxed-simd"),
    NEON,
    Suite("web-bindings", "wasm-bindgen bindings in headless Chromium",
          [wasm_bindgen, CHROMIUM, debian("chromium-driver", "chromedriver")],
          # Its runner does not know --show-output.
          cargo_test("-p", "lethe-web", "--target", "wasm32-unknown-unknown", *optimised(0))[:-2],
          rust_counts,
          {
              "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER": str(TOOLS / "bin/wasm-bindgen-test-runner"),
              "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS": "-C target-feature=+simd128",
              "CHROMEDRIVER": shutil.which("chromedriver") or "/usr/bin/chromedriver",
              "WASM_BINDGEN_USE_BROWSER": "1",
          }),
    Suite("web-package", "npm package in Node",
          [npm_packages("web"), npm_packages("www"), wasm_bindgen, make("site")], ["npm", "test"], node_counts, folder="web"),
    Suite("clients", "tritonclient, kserve, schemathesis, websockets and curl against `lethe serve`",
          [client_packages, optional(debian("curl", "curl")), lethe],
          ["bash", "-c", f"{CLIENTS}/bin/python tests/clients/check.py {NEWEST_LETHE}"],
          last_line_counts),
    Suite("browser", "the site, the models (wasm and WebGPU) and the server's pages in headless Chromium",
          [npm_packages("web"), npm_packages("www"), npm_packages("tests/browser"), wasm_bindgen,
           CHROMIUM, make("site")],
          ["node", "tests/browser/run.mjs"], last_line_counts),
    Suite("demo", "the demo comes to its end", [],
          ["bash", "-c", "demo=$(ls -t target/*/examples/demo | head -1); ${demo:-make demo}"],
          demo_counts),
    *[verify(*row, models=EMBEDDED, needs=[]) for row in VERIFY],
    *[verify(f"{name}-real", f"{about}, real models", options, models=REAL,
             needs=[real_models]) for name, about, options in VERIFY],
    # Its program, with what the native tests have built. The last, since it takes their place.
    Suite("image", "the steps of deploy/Dockerfile, and the image with the rights that it asks for",
          [rust_target("wasm32-unknown-unknown"), static_programs],
          ["python3", "tests/image/check.py", "PROFILE=dev", "FEATURES=webgpu,wasmtime-serve"],
          last_line_counts),
]


# ---- Running ----------------------------------------------------------------------------------


def run(suite):
    """Runs one suite; returns its counts and prints what happened."""
    print(f"{suite.name}: {suite.about}", flush=True)
    try:
        for need in suite.needs:
            need()
    except Unavailable as reason:
        print(f"    SKIPPED: {reason}", flush=True)
        return Counts(skipped=1)
    except Broken as reason:
        print(f"    FAILED: {reason}", flush=True)
        return Counts(failed=1)

    started, log = time.monotonic(), LOGS / f"{suite.name}.log"
    timed_out = False
    with open(log, "w") as file:
        process = subprocess.Popen(
            suite.command, cwd=ROOT / suite.folder, env=os.environ | suite.environment,
            stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
        )
        try:
            status = process.wait(suite.limit_minutes * 60)
        except subprocess.TimeoutExpired:
            timed_out = True
        finally:
            # Also whatever the suite left running, such as a server or a browser.
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        status = process.wait()

    output = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text(errors="replace"))
    counts, problem = suite.counts(output), None
    if timed_out:
        problem = f"not done after {suite.limit_minutes} minutes"
    elif counts is None:
        problem = f"printed no count (exit status {status})"
    elif status and not counts.failed:
        problem = f"ended with exit status {status}, though no test failed"
    if problem:
        counts = (counts or Counts()) + Counts(failed=1)
    for line in dict.fromkeys(re.findall(r"^skipped: .*$", output, re.M)):
        print(f"    {line}")
    if counts.failed:
        print("    | " + "\n    | ".join(output.rstrip().splitlines()[-80:]))
        print(f"    FAILED: {problem or f'{counts.failed} tests'}; all output in {log.relative_to(ROOT)}")
    print(f"    {counts} in {time.monotonic() - started:.0f} s", flush=True)
    return counts


def main():
    parser = argparse.ArgumentParser(description="Runs every test of the repository.")
    parser.add_argument("prefixes", nargs="*", help="only suites whose names begin so")
    parser.add_argument("--list", action="store_true", help="print the table of suites")
    options = parser.parse_args()
    chosen = [suite for suite in SUITES
              if not options.prefixes or suite.name.startswith(tuple(options.prefixes))]
    if not chosen:
        parser.error(f"no suite begins with {' or '.join(options.prefixes)}")
    if options.list:
        for suite in chosen:
            print(f"{suite.name:20} {suite.about}")
        return
    LOGS.mkdir(parents=True, exist_ok=True)
    results = {suite.name: run(suite) for suite in chosen}
    print()
    for name, counts in results.items():
        print(f"{name:20} {counts}")
    total = sum(results.values(), Counts())
    print(total)
    sys.exit(bool(total.failed))


if __name__ == "__main__":
    main()
