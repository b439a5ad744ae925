#!/usr/bin/env python3
"""Runs the backend tests of the ONNX standard natively and holds the result against passing.txt.

    python3 tests/conformance/check.py LETHE            compares
    python3 tests/conformance/check.py LETHE --add      puts what passes now into the list

`passing.txt` names the tests that pass, `kind/test` in each line. The list only grows: a test in it
that fails, or that the standard has no more, is a failure here, and so is one that passes and is not
in it, until `--add` has been run. What the table of operators takes is held against the standard's
schemas too (scripts/signatures.py). The last line is `N passed, N failed`; what the standard has beyond
the list is said above it.
"""

import argparse
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIST = pathlib.Path(__file__).with_name("passing.txt")
CASES = ROOT / "target" / "conformance"


def verified(lethe):
    """What `lethe verify` says of each test: its name, and how it failed or nothing."""
    folders = sorted(str(model.parent.relative_to(CASES)) for model in CASES.glob("*/*/model.onnx"))
    done = subprocess.run([lethe, "verify", "--json", *folders], cwd=CASES, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, text=True)
    if done.returncode not in (0, 1):
        sys.exit(f"lethe verify ended with {done.returncode}")
    return {test["name"]: test["failures"] for test in json.loads(done.stdout)["tests"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lethe", type=pathlib.Path)
    parser.add_argument("--add", action="store_true", help="put what passes now into passing.txt")
    options = parser.parse_args()
    subprocess.run([sys.executable, pathlib.Path(__file__).with_name("write_cases.py"), CASES], check=True)
    schemas = subprocess.run([sys.executable, ROOT / "scripts" / "signatures.py"])
    if schemas.returncode:
        print("FAILED: the table of operators and the standard's schemas differ")
    tests = verified(options.lethe.resolve())
    passing = {name for name, failures in tests.items() if not failures}
    listed = set(LIST.read_text().split())
    for name in sorted(listed - passing):
        print(f"FAILED {name}: {'; '.join(tests.get(name, ['the standard has it no more']))}")
    new = sorted(passing - listed)
    if options.add:
        LIST.write_text("".join(f"{name}\n" for name in sorted(listed | passing)))
        listed |= passing
    elif new:
        print("FAILED: passes and is not in passing.txt (add it with --add): " + ", ".join(new))
    print(f"{len(tests)} tests in the standard, {len(tests.keys() - listed)} of them beyond the list")
    failed = len(listed - passing) + (0 if options.add else len(new)) + bool(schemas.returncode)
    print(f"{len(listed & passing)} passed, {failed} failed")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
