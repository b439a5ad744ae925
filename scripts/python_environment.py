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


def prepare(requirements=REQUIREMENTS, environment=ENVIRONMENT):
    """Makes an environment if it is absent or out of date; returns its interpreter's path."""
    interpreter = environment / "bin" / "python"
    # Written last, so that an interrupted installation is begun again.
    stamp = environment / "requirements.sha256"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    environment.parent.mkdir(exist_ok=True)
    with open(environment.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == wanted:
            return interpreter
        into = environment.relative_to(ROOT)
        print(f"installing {requirements.relative_to(ROOT)} into {into}", file=sys.stderr)
        shutil.rmtree(environment, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        subprocess.run(
            [interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
             "-r", requirements],
            check=True,
        )
        stamp.write_text(wanted)
    return interpreter


def enter():
    """Continues the running script inside the environment. Returns only there."""
    if pathlib.Path(sys.prefix) != ENVIRONMENT:
        interpreter = prepare()
        os.execv(interpreter, [str(interpreter), *sys.argv])


if __name__ == "__main__":
    print(prepare())
