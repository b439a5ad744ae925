#!/usr/bin/env python3
"""Runs every test of the repository: `make test`.

    python3 scripts/test.py               everything
    python3 scripts/test.py engine web    the suites whose names begin so
    python3 scripts/test.py --list        the table of suites

`SUITES` says what there is: a name, what it needs, what is run, and how to read its counts. What a
suite needs is installed where that is allowed (Rust targets, npm and Python packages, Debian packages
for root); where it is not, the suite is skipped and the reason is said. A program that prints no count
has failed, and so has one that is not done after its limit. At the end stands a table of what was
tested and how long building and running took; the last line is

    N passed, N failed[, N skipped]

and the exit status is 1 if anything failed. Each suite's whole output is in target/test-logs.

Real models, of tens to hundreds of megabytes, are tested when they lie in target/models. With
LETHE_MODELS=1 they are put there first, by the scripts of ../shared/models.
"""

import argparse
import shutil
import sys

from testing import counts
from testing.counts import Counts
from testing.needs import (
    CLIENTS, OPEN_MODELS, ROOT, Time, client_packages, command_line_tool, debian, make, npm_packages,
    optional, python_packages, real_models, rust_target, static_programs,
)
from testing.suites import CargoTests, Suite, run_all


def optimised(level):
    """Where tests of kernels run once and are built for that alone, optimising takes longer."""
    return ["--config", f"profile.dev.package.lethe-engine.opt-level={level}"]


def engine_in_wasm(name, about, features):
    """The engine's own tests compiled to wasm, run by Node's WASI."""
    return Suite(
        name, about,
        [rust_target("wasm32-wasip1"), command_line_tool("node")],
        CargoTests(["-p", "lethe-engine", "--no-default-features", "--target", "wasm32-wasip1", "--lib",
                    *optimised(0)],
                   {"CARGO_TARGET_WASM32_WASIP1_RUSTFLAGS": f"-C target-feature={features}"},
                   ["node", str(ROOT / "scripts" / "wasi_runner.mjs")]),
        counts.rust,
    )


NEON = Suite(
    "neon", "engine with NEON, under emulation",
    [rust_target("aarch64-unknown-linux-gnu"),
     debian("gcc-aarch64-linux-gnu", "aarch64-linux-gnu-gcc"),
     debian("libc6-dev-arm64-cross", "usr/aarch64-linux-gnu/include/stdio.*"),
     debian("qemu-user", "qemu-aarch64")],
    CargoTests(["-p", "lethe-engine", "--target", "aarch64-unknown-linux-gnu", "--lib", *optimised(1)],
               {"CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER": "aarch64-linux-gnu-gcc"},
               ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"]),
    counts.rust,
)

# Some of jco's optional packages for other platforms are not in every registry, and `npm ci` refuses
# a lock file without them.
JCO = optional(npm_packages("tests/edge", ("npm", "install", "--no-save")))

LAVAPIPE = debian("mesa-vulkan-drivers", "usr/share/vulkan/icd.d/lvp_icd*.json")
CHROMIUM = debian("chromium", "chromium")
# The recipe for nginx in front of a bundle is run.
EDGE = [debian("nginx", "/usr/sbin/nginx"), debian("curl", "curl"), debian("openssl", "openssl")]
SITE = [npm_packages("web"), npm_packages("www"), make("site PROFILE=wasm-dev")]

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


def lethe():
    """The program, as the suite of native tests or `make build` left it."""
    if not any((ROOT / "target" / profile / "lethe").exists() for profile in ("debug", "release")):
        make("build")()


def with_lethe(command):
    return ["bash", "-c", command.replace("LETHE", NEWEST_LETHE)]


def verify(name, about, options, models, needs):
    """Folders in the layout of the ONNX backend tests, as a user would verify them."""
    return Suite(name, about, [*needs, lethe], with_lethe(f"LETHE verify {options} {models}"),
                 counts.last_line)


def demo_counts(output):
    """One test: the demo came to its end and found the memory wiped."""
    return Counts(passed=1) if "afterwards it is in the process 0 times" in output else Counts(failed=1)


SUITES = [
    Suite("models", "embedded models: accuracy and size", [python_packages],
          ["bash", "scripts/check_models.sh"], counts.last_line),
    Suite("engine", "engine at every kernel level of this machine, and on WebGPU in software",
          [LAVAPIPE],
          CargoTests(["-p", "lethe-engine", "--features", "lethe-engine/webgpu"],
                     documented=["lethe-engine"]),
          counts.rust),
    NATIVE,
]
