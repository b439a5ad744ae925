"""The record of measurements: benches/record/<target>-<cpu>/."""

import csv
import datetime
import pathlib
import platform
import re

ROOT = pathlib.Path(__file__).resolve().parent.parent


def cpu_name():
    """The processor's name as part of a file name."""
    try:
        info = pathlib.Path("/proc/cpuinfo").read_text()
        name = re.search(r"model name\s*:\s*(.*)", info)[1]
    except (OSError, TypeError):
        name = platform.processor() or "cpu"
    name = re.sub(r"\((R|TM)\)|CPU|Processor|@.*", " ", name)
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower()


def write_record(rows, about=""):
    """Writes rows to <date><about>.csv."""
    folder = ROOT / "benches" / "record" / f"{platform.machine()}-{cpu_name()}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{datetime.date.today().isoformat()}{about}.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"written to {path.relative_to(ROOT)}")
