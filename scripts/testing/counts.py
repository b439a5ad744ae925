"""How many tests passed, failed and were skipped, read from what programs print."""

import dataclasses
import re


@dataclasses.dataclass
class Counts:
    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other):
        return Counts(
            self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped
        )

    def __str__(self):
        text = f"{self.passed} passed, {self.failed} failed"
        return text + (f", {self.skipped} skipped" if self.skipped else "")


def rust(output):
    """Sums `test result: ok. 3 passed; 0 failed; 1 ignored; …`, one line for each test binary.

    A test that could not run here says so in a line that begins with `skipped:`. The harness takes
    it for passed; here it counts as skipped.
    """
    found = re.findall(r"test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored", output)
    if not found:
        return None
    passed, failed, ignored = (sum(map(int, column)) for column in zip(*found))
    sections = re.split(r"^---- (\S+) stdout ----$", output, flags=re.M)[2::2]
    skipped = sum(bool(re.search(r"^skipped: ", section, re.M)) for section in sections)
    return Counts(passed - skipped, failed, ignored + skipped)


def last_line(output):
    """The last line `3 passed, 0 failed[, 1 skipped]`, as this repository's own tools print it."""
    found = re.findall(r"^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$", output, re.M)
    return Counts(*(int(number or 0) for number in found[-1])) if found else None


def node(output):
    """The summary of `node --test`: `# pass 3`, `# fail 0`, `# skipped 0`."""
    found = {name: int(number) for name, number in
             re.findall(r"^(?:#|ℹ) (pass|fail|skipped) (\d+)$", output, re.M)}
    if "pass" not in found:
        return None
    return Counts(found["pass"], found.get("fail", 0), found.get("skipped", 0))
