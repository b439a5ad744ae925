#!/usr/bin/env python3
"""Formatting, lints, documentation and house rules: `make check`. Warnings are errors.

The house rules are those of CONTRIBUTING.md that a program can see. Everything is run, so that one
call shows everything there is to mend; the exit status is 1 if anything is.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys

from testing.needs import CARGO_JOBS, IN_WORKSPACE, ROOT

MOST_LINES = 600

COMMANDS = [
    ("formatting", ["cargo", "fmt", "--all", "--check"], {}),
    ("lints", ["cargo", "clippy", "-j", CARGO_JOBS, "--workspace", "--all-targets",
               "--features", IN_WORKSPACE, "--quiet",
               "--", "-D", "warnings"], {}),
    ("lints, engine in wasm", ["cargo", "clippy", "-j", CARGO_JOBS, "-p", "lethe-engine", "-p", "lethe-kernels",
                               "--no-default-features", "--target", "wasm32-unknown-unknown",
                               "--quiet", "--", "-D", "warnings"],
     {"CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS": "-C target-feature=+simd128"}),
    ("documentation", ["cargo", "doc", "-j", CARGO_JOBS, "--workspace", "--no-deps",
                       "--document-private-items", "--quiet"],
     # Module docs lead through a module's private parts as well.
     {"RUSTDOCFLAGS": "-D warnings -A rustdoc::private_intra_doc_links"}),
    ("bindings", ["python3", "scripts/bindings.py", "--check"], {}),
    ("page of operators", ["python3", "scripts/operators_page.py", "--check"], {}),
    ("attributes that are taken", ["python3", "scripts/signatures.py", "--read"], {}),
    ("integers that are cut", ["python3", "scripts/casts.py"], {}),
]


def tracked_files():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, text=True, capture_output=True, check=True)
    return [path for path in map(pathlib.Path, listed.stdout.splitlines()) if (ROOT / path).is_file()]


# What operators and kernels allocate is as large as a model or a request says. `limits` has what counts it
# and can fail; these abort the process.
INFALLIBLE = re.compile(r"\bvec!\[[^\]]*; |\bwith_capacity\(|\bBuffer::zeroed\(")
FALLIBLE_FOLDERS = ("engine/src/operators/", "engine/src/operator/", "engine/kernels/src/kernels/")


def infallible_allocations(path, lines):
    if not str(path).startswith(FALLIBLE_FOLDERS) or path.stem in ("case", "coverage", "endings", "extremes"):
        return
    for number, line in enumerate(lines, 1):
        if INFALLIBLE.search(line) and not line.lstrip().startswith("//"):
            yield f"{path}:{number}: allocates without `limits`: {line.strip()}"


def house_rules():
    """Lines that say where a rule is broken."""
    broken = []
    for path in tracked_files():
        if path.suffix == ".rs":
            lines = (ROOT / path).read_text().splitlines()
            is_test = "tests" in path.parts or path.stem == "tests"
            tests_begin = next((i for i, line in enumerate(lines)
                                if line == "#[cfg(test)]" and lines[i + 1 : i + 2] == ["mod tests {"]),
                               len(lines))
            generated = lines[:1] and lines[0].startswith("// @generated")
            if not is_test and not generated and tests_begin > MOST_LINES:
                broken.append(f"{path}: {tests_begin} lines without tests; look for the second noun")
            if not is_test:
                broken.extend(infallible_allocations(path, lines[:tests_begin]))
            if path.name == "mod.rs":
                broken.append(f"{path}: a module is name.rs with name/")
            if path.stem in ("utils", "util", "helpers", "common", "misc", "base"):
                broken.append(f"{path}: name the noun that it is about")
            if not is_test and lines and not lines[0].startswith(("//!", "#!", "// @generated")):
                broken.append(f"{path}: begins without a module doc")
        if path.suffix == ".md":
            text = re.sub(r"```.*?```", "", (ROOT / path).read_text(), flags=re.S)
            for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
                if "://" not in link and not (ROOT / path.parent / link).exists():
                    broken.append(f"{path}: links to {link}, which does not exist")
    documented = set(re.findall(r"LETHE-[A-Z-]+", (ROOT / "docs" / "errors.md").read_text()))
    for path in tracked_files():
        if path.suffix in (".rs", ".ts"):
            for code in set(re.findall(r'"(LETHE-[A-Z-]+)"', (ROOT / path).read_text())) - documented:
                broken.append(f"{path}: {code} is not explained in docs/errors.md")
    return broken


def main():
    failures = []
    for name, command, environment in COMMANDS:
        print(f"{name}: {' '.join(command)}", flush=True)
        if subprocess.run(command, cwd=ROOT, env=os.environ | environment,
                          stdin=subprocess.DEVNULL).returncode:
            failures.append(name)
    print("house rules", flush=True)
    broken = house_rules()
    for line in broken:
        print(f"    {line}")
    if broken:
        failures.append("house rules")
    if shutil.which("cargo-deny"):
        print("licences: cargo deny check licenses bans sources", flush=True)
        if subprocess.run(["cargo", "deny", "check", "licenses", "bans", "sources"], cwd=ROOT).returncode:
            failures.append("licences")
    else:
        print("licences: SKIPPED, cargo-deny is not installed")
    print(f"to mend: {', '.join(failures)}" if failures else "all good")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
