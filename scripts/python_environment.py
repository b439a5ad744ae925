"""The Python environment that the scripts of this repository share: target/venv.

A script that needs more than the standard library starts with

    import python_environment
    python_environment.enter()

The first call on a machine makes the environment and installs the pinned packages of
requirements.txt; `enter` then starts the script again inside it. The environment is made anew
when requirements.txt changes. `python3 scripts/python_environment.py` prepares it and prints
the path of its interpreter.
"""

import fcntl
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "scripts" / "requirements.txt"
ENVIRONMENT = ROOT / "target" / "venv"
INTERPRETER = ENVIRONMENT / "bin" / "python"
# Written last, so that an interrupted installation is begun again.
STAMP = ENVIRONMENT / "requirements.sha256"


def prepare():
    """Makes the environment if it is absent or out of date; returns its interpreter's path."""
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    ENVIRONMENT.parent.mkdir(exist_ok=True)
    with open(ENVIRONMENT.parent / "venv.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if STAMP.exists() and STAMP.read_text() == wanted:
            return INTERPRETER
        print(f"installing {REQUIREMENTS.relative_to(ROOT)} into target/venv", file=sys.stderr)
        shutil.rmtree(ENVIRONMENT, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", ENVIRONMENT], check=True)
        subprocess.run(
            [INTERPRETER, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
             "-r", REQUIREMENTS],
            check=True,
        )
        STAMP.write_text(wanted)
    return INTERPRETER


def enter():
    """Continues the running script inside the environment. Returns only there."""
    if pathlib.Path(sys.prefix) != ENVIRONMENT:
        interpreter = prepare()
        os.execv(interpreter, [str(interpreter), *sys.argv])


if __name__ == "__main__":
    print(prepare())
