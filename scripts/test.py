#!/usr/bin/env python3
"""Runs every test of the repository: `make test`.

    python3 scripts/test.py               everything
    python3 scripts/test.py engine web    the suites whose names begin so
    python3 scripts/test.py --list        the table of suites

`SUITES` says what there is: a name, what it needs, what is run, and how to read its counts. What a
suite needs is installed where that is allowed (Rust targets, npm and Python packages, Debian packages
for root); where it is not, the suite is skipped and the reason is said. While the programs of a suite
run, the next suite is built; the limits are for programs that hang, and building has no part in them.
A program that prints no count has failed. At the end stands a table of what was tested and how long
building and running took; the last line is

    N passed, N failed[, N skipped]

and the exit status is 1 if anything failed. Each suite's whole output is in target/test-logs.

Real models, of tens to hundreds of megabytes, are tested when they lie in target/models. With
LETHE_MODELS=1 they are put there first, by the scripts of ../shared/models.
"""

import argparse
import os
import pathlib
import shutil
import sys
import time

from testing import counts
from testing.counts import Counts
from testing.needs import (
    CLIENTS, HOST_FEATURES, IN_WORKSPACE, OPEN_MODELS, ROOT, Time, absent, built, client_packages,
    command_line_tool, debian, make, npm_packages, optional, python_packages, real_models, rust_target,
    static_programs,
)
from testing.suites import CargoTests, Suite, run_all

LAVAPIPE = debian("mesa-vulkan-drivers", "usr/share/vulkan/icd.d/lvp_icd*.json")
CHROMIUM = debian("chromium", "chromium")
# The recipe for nginx in front of a bundle is run.
EDGE = [debian("nginx", "/usr/sbin/nginx"), debian("curl", "curl"), debian("openssl", "openssl")]
# Some of jco's optional packages for other platforms are not in every registry, and `npm ci` refuses
# a lock file without them.
JCO = optional(npm_packages("tests/edge", ("npm", "install", "--no-save")))
SITE = [npm_packages("web"), npm_packages("www"), make("site", "QUICK=1")]
# The debug build of the program, which the suite `native` leaves.
LETHE = "target/debug/lethe"
BUILT_LETHE = absent(LETHE, "cargo", "build", "--package", "lethe-host", "--features", "webgpu")
DEMO = "target/debug/examples/demo"

EMBEDDED = "models/digits models/vibration"
REAL = ("target/models/real/* "
        + " ".join(f"target/models/open/{name}" for name in OPEN_MODELS))
VERIFY = [
    ("verify", "lethe verify", ""),
    ("verify-sandbox", "lethe verify in a sandbox", "--isolation sandbox"),
    ("verify-pure", "lethe verify in a sandbox without native kernels", "--isolation sandbox --pure-wasm"),
]


# Where kernels are tested once and built for that alone, optimising takes longer.
UNOPTIMISED = ["--config", "profile.dev.package.lethe-kernels.opt-level=0"]


def engine_in_wasm(name, about, packages, features):
    """The engine's own tests compiled to wasm, run by Node's WASI."""
    return Suite(
        name, about,
        [rust_target("wasm32-wasip1"), command_line_tool("node")],
        CargoTests([*packages, "--no-default-features", "--target", "wasm32-wasip1", "--lib", *UNOPTIMISED],
                   {"CARGO_TARGET_WASM32_WASIP1_RUSTFLAGS": f"-C target-feature={features}"},
                   ["node", str(ROOT / "scripts" / "wasi_runner.mjs")]),
        counts.rust,
    )


def verify(name, about, options, models, needs):
    """Folders in the layout of the ONNX backend tests, as a user would verify them."""
    return Suite(name, about, [*needs, BUILT_LETHE],
                 ["bash", "-c", f"{LETHE} verify {options} {models}"], counts.last_line)


def demo_counts(output):
    """One test: the demo came to its end and found the memory wiped."""
    return Counts(passed=1) if "afterwards it is in the process 0 times" in output else Counts(failed=1)


def guest_flags():
    """What `wasm-host/sandbox/build.rs` compiles the guest with: so the engine is compiled once for
    guest and browser."""
    home = os.environ.get("CARGO_HOME", pathlib.Path.home() / ".cargo")
    return "\x1f".join(["-Ctarget-feature=+simd128", f"--remap-path-prefix={ROOT}=lethe",
                        f"--remap-path-prefix={home}=cargo"])


def packages(*names):
    return [word for name in names for word in ("--package", name)]


KERNELS, ENGINE = packages("lethe-kernels"), packages("lethe-engine")
# In one call, so that what they share is built once.
NATIVE = [*KERNELS, *ENGINE, *packages("lethe-sandbox", "lethe-host", "lethe-server", "lethe-tests"),
          # What the program has, and nothing more: it is built with what this leaves.
          "--no-default-features", "--features", IN_WORKSPACE]

SUITES = [
    Suite("scripts", "what runs the tests", [], ["python3", "scripts/testing/check.py"], counts.last_line),
    Suite("models", "embedded models: accuracy and size", [python_packages],
          ["bash", "scripts/check_models.sh"], counts.last_line),
    Suite("engine", "engine at every kernel level of this machine, and on WebGPU in software",
          [LAVAPIPE],
          CargoTests(NATIVE, only=("lethe-kernels", "lethe-engine"), documented=True,
                     alone=[*KERNELS, *ENGINE, "--no-default-features",
                            "--features", "lethe-engine/webgpu,lethe-engine/threads"]),
          counts.rust),
    # The site's page is one of the doors tested.
    Suite("native", "command line, sandbox host, server, bundles; hostile input, expected answers, "
          "reproducible bits, allocations",
          [optional(rust_target("wasm32-wasip2")), JCO, optional(npm_packages("tests/browser")),
           optional(CHROMIUM), *map(optional, SITE), *map(optional, EDGE)],
          CargoTests(NATIVE, only=("lethe-sandbox", "lethe-host", "lethe-server", "lethe-tests"),
                     documented=True),
          counts.rust),
    Suite("conformance", "the standard's backend tests that are known to pass", [python_packages, BUILT_LETHE],
          ["python3", "tests/conformance/check.py", LETHE], counts.last_line),
    engine_in_wasm("wasm", "kernels in wasm without SIMD", KERNELS, "-simd128"),
    engine_in_wasm("wasm-simd128", "engine in wasm with SIMD128", [*KERNELS, *ENGINE], "+simd128"),
    engine_in_wasm("wasm-relaxed", "kernels in wasm with relaxed SIMD", KERNELS,
                   "+simd128,+relaxed-simd"),
    Suite("neon", "engine with NEON, under emulation",
          [rust_target("aarch64-unknown-linux-gnu"),
           debian("gcc-aarch64-linux-gnu", "aarch64-linux-gnu-gcc"),
           debian("libc6-dev-arm64-cross", "usr/aarch64-linux-gnu/include/stdio.*"),
           debian("qemu-user", "qemu-aarch64")],
          CargoTests([*KERNELS, *ENGINE, "--target", "aarch64-unknown-linux-gnu", "--lib",
                      "--config", "profile.dev.package.lethe-kernels.opt-level=1"],
                     {"CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER": "aarch64-linux-gnu-gcc"},
                     ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"]),
          counts.rust),
    Suite("web-bindings", "wasm-bindgen bindings in headless Chromium",
          [CHROMIUM, debian("chromium-driver", "chromedriver"), rust_target("wasm32-unknown-unknown"),
           built("cargo", "build", *packages("lethe-web-tools"), "--features", "test-runner")],
          CargoTests([*packages("lethe-web"), "--target", "wasm32-unknown-unknown", "--profile", "wasm-dev",
                      "--target-dir", "target/guest", "--test", "bindings"],
                     {
                         "CARGO_ENCODED_RUSTFLAGS": guest_flags(),
                         "CHROMEDRIVER": shutil.which("chromedriver") or "/usr/bin/chromedriver",
                         "WASM_BINDGEN_USE_BROWSER": "1",
                     },
                     [str(ROOT / "target/debug/wasm-bindgen-test-runner")],
                     # It does not know --show-output.
                     options=[]),
          counts.rust),
    Suite("web-package", "npm package in Node", SITE, ["npm", "test"], counts.node, folder="web"),
    Suite("clients", "tritonclient, kserve, schemathesis, websockets and curl against `lethe serve`",
          [client_packages, optional(debian("curl", "curl")), BUILT_LETHE],
          [str(CLIENTS / "bin/python"), "tests/clients/check.py", LETHE], counts.last_line),
    Suite("browser", "the site, the models (wasm and WebGPU) and the server's pages in headless Chromium",
          [*SITE, npm_packages("tests/browser"), CHROMIUM, BUILT_LETHE],
          ["node", "tests/browser/run.mjs"], counts.last_line),
    Suite("ecosystem", "other people's programs, unchanged, on Lethe and on onnxruntime-web, in Node and Chromium",
          [*SITE, python_packages, npm_packages("tests/ecosystem", ("npm", "ci", "--ignore-scripts")),
           npm_packages("tests/browser"), CHROMIUM],
          ["bash", "-c", "target/venv/bin/python tests/ecosystem/models.py target/ecosystem/models && "
                         "node tests/ecosystem/run.mjs"], counts.last_line),
    Suite("recipes", "the npm package by way of bundlers, frameworks, extensions, service workers, Deno and Bun",
          [*SITE, npm_packages("tests/recipes", ("npm", "ci", "--ignore-scripts")), npm_packages("tests/browser"),
           CHROMIUM],
          ["node", "tests/recipes/run.mjs"], counts.last_line),
    Suite("demo", "the demo comes to its end", [absent(DEMO, "make", "demo")], [DEMO], demo_counts),
    *[verify(*row, models=EMBEDDED, needs=[]) for row in VERIFY],
    *[verify(f"{name}-real", f"{about}, real models", options, models=REAL,
             needs=[real_models]) for name, about, options in VERIFY],
    # Its program takes the place of the one that the other suites run.
    Suite("image", "the steps of deploy/Dockerfile, and the image with the rights that it asks for",
          [rust_target("wasm32-unknown-unknown"), static_programs],
          ["python3", "tests/image/check.py", "PROFILE=dev", f"FEATURES={','.join(HOST_FEATURES)}"],
          counts.last_line, alone=True),
]


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
    start = time.monotonic()
    results = run_all(chosen)
    print()
    print(f"{'suite':20} {'built in':>25} {'run in':>25}   tests")
    for name, result in results.items():
        print(f"{name:20} {result.built!s:>25} {result.ran!s:>25}   {result.counts}")
    built = sum((result.built for result in results.values()), Time())
    ran = sum((result.ran for result in results.values()), Time())
    print(f"{'all':20} {built!s:>25} {ran!s:>25}   in {time.monotonic() - start:.0f} s")
    total = sum((result.counts for result in results.values()), Counts())
    print(total)
    sys.exit(bool(total.failed))


if __name__ == "__main__":
    main()
