#!/usr/bin/env python3
"""How long what everyone waits for takes, from nothing: a table for docs/build-times.md.

    python3 scripts/build_times.py [demo] [package] [ci] [--crates N]

Clones what is committed into a folder of its own, with the crates of the registry at hand, and runs
`make demo`, `make package` and `.ci/run` there, each with an empty target folder. Beside each time stand
the seconds of all cores together, which other work on the machine changes little, and the machine's
pace: how long a fixed loop takes before and after. With `--crates` the N crates that the demo
waits for longest are named, by `cargo build --timings`.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
COMMANDS = {
    "demo": ["make", "demo"],
    "package": ["make", "package"],
    "ci": [".ci/run"],
}


def pace():
    """Seconds that twenty million additions take."""
    start, total = time.perf_counter(), 0
    for i in range(20_000_000):
        total += i
    return time.perf_counter() - start


def timed(command, folder):
    """Exit status, seconds on the clock, seconds of cores."""
    start = time.monotonic()
    process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, time.monotonic() - start, used.ru_utime + used.ru_stime


def slowest_crates(folder, count):
    """The crates of the demo that took longest: name and seconds."""
    subprocess.run(["cargo", "build", "--timings", "-p", "lethe-sandbox", "--example", "demo"],
                   cwd=folder, check=True)
    page = (folder / "target/cargo-timings/cargo-timing.html").read_text()
    units = json.loads(re.search(r"UNIT_DATA = (\[.*?\]);\n", page, re.S)[1])
    units.sort(key=lambda unit: -unit["duration"])
    return [(f"{unit['name']}{unit['target']}", unit["duration"]) for unit in units[:count]]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", choices=[*COMMANDS, []], help="all where none is named")
    parser.add_argument("--crates", type=int, default=0, metavar="N")
    options = parser.parse_args()
    rows, crates = [], []
    with tempfile.TemporaryDirectory() as folder:
        clone = pathlib.Path(folder) / "lethe"
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        subprocess.run(["cargo", "fetch", "--quiet", "--locked"], cwd=clone, check=True)
        for name in options.what or COMMANDS:
            shutil.rmtree(clone / "target", ignore_errors=True)
            before = pace()
            status, wall, cores = timed(COMMANDS[name], clone)
            rows.append(f"| `{' '.join(COMMANDS[name])}` | {wall / 60:.1f} min | {cores / 60:.1f} min | "
                        f"{before:.1f} s, {pace():.1f} s | {status} |")
        if options.crates:
            shutil.rmtree(clone / "target", ignore_errors=True)
            crates = slowest_crates(clone, options.crates)
    print("| from an empty target folder | on the clock | of cores | pace before, after | exit status |")
    print("| --- | --- | --- | --- | --- |")
    print("\n".join(rows))
    if crates:
        print("\n| crate of the demo | seconds |\n| --- | --- |")
        print("\n".join(f"| {name} | {seconds:.0f} |" for name, seconds in crates))


if __name__ == "__main__":
    main()
