#!/usr/bin/env python3
"""Finds integers of 64 bits that are cut to what a machine counts with: `as usize`, `as u32`, `as i32` ...

    python3 scripts/casts.py

A model's and a request's integers have 64 bits. In WebAssembly a `usize` has 32: `as` would take 2^32 + 3
for 3 there, and so it would for `u32` everywhere. Such a number goes through a checked conversion
(`try_from`, or `size`, `at_most`, `clamped` and `normalize_index` in engine/src/operators/axes.rs).

The compiler knows the types, so this asks clippy, and shows what it says of conversions from 64 bits or
more. A conversion that cannot cut stands there with its reason, which is shown to nobody else:

    #[expect(clippy::cast_possible_truncation, reason = "a remainder by 1000")]

The last line is `N to mend`; the exit status is 1 if there are any.
"""

import json
import re
import subprocess
import sys

from testing.needs import CARGO_JOBS, ROOT

PACKAGES = ("lethe-engine", "lethe-server", "lethe-web")
FEATURES = "lethe-engine/webgpu"
WIDE = ("i64", "u64", "i128", "u128")
COUNTS = ("usize", "isize", "u32", "i32")
# Whose business cutting is.
FOLDERS = ("engine/src/", "wasi-server/src/", "web/src/")


def messages():
    packages = [word for package in PACKAGES for word in ("-p", package)]
    command = ["cargo", "clippy", "-j", CARGO_JOBS, *packages, "--features", FEATURES, "--quiet",
               "--message-format=json", "--", "-A", "clippy::all", "-W", "clippy::cast_possible_truncation"]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}")
    for line in done.stdout.splitlines():
        entry = json.loads(line)
        if entry.get("reason") == "compiler-message":
            yield entry["message"]


def found():
    """Where integers are cut: file, line, and what the compiler says."""
    for message in messages():
        types = re.match(r"casting `(\w+)` to `(\w+)` may truncate", message["message"])
        if types and types[1] in WIDE and types[2] in COUNTS:
            place = message["spans"][0]
            if place["file_name"].startswith(FOLDERS):
                yield f"{place['file_name']}:{place['line_start']}", types[1], types[2]


def main():
    places = sorted(set(found()))
    for place, wide, narrow in places:
        print(f"    {place}: {wide} as {narrow} may be cut; convert it by try_from")
    print(f"{len(places)} to mend")
    sys.exit(bool(places))


if __name__ == "__main__":
    main()
