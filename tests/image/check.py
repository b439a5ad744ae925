#!/usr/bin/env python3
"""Runs the steps of deploy/Dockerfile without Docker: those of the build in this checkout, and the
image as a read-only root with the rights that its first lines ask for.

    python3 check.py [NAME=VALUE…]      the build's arguments, as for `docker build --build-arg`

The last line is `N passed, N failed[, N skipped]`.
"""

import fnmatch
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
IMAGE = ROOT / "target" / "image" / "root"
DIGITS = ROOT / "models" / "digits"
# A release takes half of it; what has symbols or debug information takes more.
LARGEST_MB = 100


def instructions(path):
    """What a Dockerfile says, as pairs of an instruction and its text."""
    text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.M)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [tuple(line.split(maxsplit=1)) for line in lines if line.strip()]


def expanded(text, variables):
    return re.sub(r"\$\{?(\w+)\}?", lambda match: variables[match[1]], text)


class Stage:
    """One `FROM`, and what has been said since."""

    def __init__(self, base):
        self.base = base
        self.folder, self.variables, self.settings = "/", {}, {}

    def local(self, path):
        """A path of the stage, on this machine. The folder of the build is this checkout."""
        if self.base == "scratch":
            return IMAGE / path.lstrip("/")
        inside = pathlib.PurePosixPath(path).relative_to(self.folder)
        return ROOT / inside


def ignored(path, patterns):
    """Whether a file stays out of the context, as .dockerignore has it."""
    parts = pathlib.PurePosixPath(path).parts
    starts = ["/".join(parts[: i + 1]) for i in range(len(parts))]
    return any(fnmatch.fnmatch(start, pattern.replace("**/", "*"))
               for start in starts for pattern in patterns)


def built(dockerfile, arguments):
    """Follows the steps; the last stage."""
    stages = {}
    stage = None
    for what, text in instructions(dockerfile):
        match what:
            case "FROM":
                words = text.split()
                name = words[2] if len(words) > 1 else "image"
                stage = stages[name] = Stage(words[0])
            case "ARG":
                name, _, default = text.partition("=")
                stage.variables[name] = arguments.get(name, default)
            case "WORKDIR":
                stage.folder = text
            case "COPY" if text == ". .":
                patterns = dockerfile.with_name(dockerfile.name + ".dockerignore").read_text().split()
                tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, text=True, check=True,
                                         capture_output=True).stdout.split()
                left_out = [path for path in tracked if ignored(path, patterns)]
                assert not left_out, f"not in the context: {left_out[:5]}"
            case "COPY":
                options, (source, target) = {}, text.split()[-2:]
                for option in text.split()[:-2]:
                    name, _, value = option.lstrip("-").partition("=")
                    options[name] = value
                copied(stages[options.pop("from")].local(source), stage.local(target),
                       options.pop("chown", "0:0"))
                assert not options, f"not understood: {options}"
            case "RUN":
                environment = os.environ | stage.variables
                subprocess.run(["sh", "-ec", text], cwd=ROOT, env=environment, check=True)
            case "ENV":
                pairs = (pair.split("=", 1) for pair in shlex.split(text))
                stage.variables |= {name: expanded(value, stage.variables) for name, value in pairs}
            case "ENTRYPOINT" | "CMD":
                stage.settings[what] = json.loads(text)
            case "USER" | "EXPOSE" | "STOPSIGNAL":
                stage.settings[what] = text
            case _:
                raise AssertionError(f"not understood: {what} {text}")
    return stage


def copied(source, target, owner):
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy2(source, target)
    if os.geteuid() == 0:
        os.chown(target, *map(int, owner.split(":")))


def the_image_holds_one_static_program(image):
    program = IMAGE / "usr/bin/lethe"
    headers = subprocess.run(["readelf", "--program-headers", "--wide", program], text=True,
                             check=True, capture_output=True).stdout
    assert "INTERP" not in headers and "LOAD" in headers, headers
    files = [path for path in IMAGE.rglob("*") if path.is_file()]
    assert files == [program], files
    megabytes = program.stat().st_size / 1e6
    print(f"    {megabytes:.1f} MB")
    assert megabytes < LARGEST_MB
    assert image.settings["USER"] == "65532:65532"


def isolated(image, *arguments):
    """A command that starts the image as `docker run` would, by the options in the Dockerfile."""
    program, *rest = map(shlex.quote, [*image.settings["ENTRYPOINT"], *arguments])
    root = shlex.quote(str(IMAGE))
    # What Docker puts into a container, then the options of `docker run`.
    steps = [
        f"mount --bind {root} {root}", f"cd {root}",
        "mount -t proc proc proc", "mount --bind /dev dev", "mount --bind /etc/hosts etc/hosts",
        f"mount --bind -o ro {shlex.quote(str(DIGITS))} models/digits",
        "mount -t tmpfs -o mode=700,uid=65532 tmpfs cache",
        f"mount -o remount,ro,bind {root}",
        # Another account than root has no capabilities.
        f"exec setpriv --no-new-privs"
        f" chroot --userspec={image.settings['USER']} . {program} {' '.join(rest)}",
    ]
    return ["unshare", "--mount", "sh", "-ec", "\n".join(steps)]


def the_image_serves_without_rights(image):
    for folder in ("proc", "dev", "models/digits"):
        (IMAGE / folder).mkdir(parents=True, exist_ok=True)
    (IMAGE / "etc").mkdir(exist_ok=True)
    (IMAGE / "etc/hosts").touch()
    # Traces go to a host that has to be looked up, which a static program must do by itself.
    collector = socket.create_server(("127.0.0.1", 0))
    collector.settimeout(60)
    # As `docker run -e`: tests listen here alone.
    environment = image.variables | {
        "LETHE_HOST": "127.0.0.1", "LETHE_PORT": "0",
        "LETHE_OTLP_ENDPOINT": f"http://localhost:{collector.getsockname()[1]}",
    }
    server = subprocess.Popen(isolated(image, *image.settings["CMD"]), env=environment | PATH,
                              stdout=subprocess.PIPE, text=True)
    try:
        first = server.stdout.readline()
        assert "http://" in first, f"not an address: {first!r}"
        url = first.split()[-1]
        status = pathlib.Path(f"/proc/{server.pid}/status").read_text()
        for line in ("Uid:\t65532\t65532\t65532\t65532", "CapEff:\t" + 16 * "0", "NoNewPrivs:\t1"):
            assert line in status, status
        with urllib.request.urlopen(url + "/v2/health/ready", timeout=60) as answer:
            assert answer.status == 200
        tensor = {"name": "input", "shape": [1, 1, 28, 28], "datatype": "FP32", "data": [0.5] * 784}
        body = json.dumps({"model": "digits", "inputs": [tensor]}).encode()
        request = urllib.request.Request(url + "/api/v1/infer", body,
                                         {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert json.load(answer)["outputs"][0]["shape"] == [1, 10]
        collector.accept()[0].close()
    finally:
        server.send_signal(getattr(signal, image.settings["STOPSIGNAL"]))
        collector.close()
        ended = server.wait(timeout=60)
    assert ended == 0, f"it ended with {ended}"


PATH = {"PATH": os.environ["PATH"]}


def why_not_run():
    """Why an image cannot be run here, if it cannot."""
    if os.geteuid() != 0:
        return "only root mounts what Docker would"
    probe = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    if subprocess.run(probe, capture_output=True).returncode != 0:
        return "nothing can be mounted here"
    return None


def main():
    shutil.rmtree(IMAGE.parent, ignore_errors=True)
    arguments = dict(argument.split("=", 1) for argument in sys.argv[1:])
    image = built(ROOT / "deploy" / "Dockerfile", arguments)
    checks = [the_image_holds_one_static_program, the_image_serves_without_rights]
    skipped = why_not_run()
    if skipped:
        print(f"skipped: {checks.pop().__name__}: {skipped}")
    failed = 0
    for check in checks:
        try:
            check(image)
            print("ok", check.__name__, flush=True)
        except (AssertionError, OSError, subprocess.CalledProcessError) as error:
            failed += 1
            print("FAILED", check.__name__, repr(error), flush=True)
    print(f"{len(checks) - failed} passed, {failed} failed" + (", 1 skipped" if skipped else ""))
    return 1 if failed else 0


sys.exit(main())
