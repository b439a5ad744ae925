"""Suites of tests, and how they are built and run.

    needs ─► build ─────────────► needs ─► build ─────────────► …      one after the other
                   └► its programs run ────────────► run ─────► …      one after the other

A suite's programs run while those of the next suite are built: compiling keeps both cores busy for
part of its time, tests for part of theirs. Building has no part in the limits: a limit is for one
test program, and is there to end one that hangs.
"""

import dataclasses
import json
import os
import pathlib
import queue
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable

from testing import needs
from testing.counts import Counts
from testing.needs import CARGO_JOBS, ROOT, Broken, Time, Unavailable

LOGS = ROOT / "target" / "test-logs"


@dataclasses.dataclass
class Program:
    """A test program: a command, and the folder that it expects to be in."""

    name: str
    command: list[str]
    folder: pathlib.Path = ROOT
    environment: dict[str, str] = dataclasses.field(default_factory=dict)

    def run(self, output, limit_minutes=None):
        """Runs it to its end or to its limit: its exit status, None at the limit, and its time."""
        start, ended = time.monotonic(), threading.Event()
        process = subprocess.Popen(
            self.command, cwd=self.folder, env=os.environ | self.environment,
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )
        timed_out = []

        def end_at_limit():
            if not ended.wait(limit_minutes * 60):
                timed_out.append(True)
                kill_group(process.pid)

        if limit_minutes:
            threading.Thread(target=end_at_limit, daemon=True).start()
        _, status, used = os.wait4(process.pid, 0)
        ended.set()
        process.returncode = os.waitstatus_to_exitcode(status)
        # Also whatever it left running, such as a server or a browser.
        kill_group(process.pid)
        spent = Time(time.monotonic() - start, used.ru_utime + used.ru_stime)
        return None if timed_out else process.returncode, spent


def kill_group(leader):
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        pass


@dataclasses.dataclass
class CargoTests:
    """Test programs that cargo builds: the arguments of `cargo test`.

    They are run by themselves, each in its package's folder as cargo would, by `runner` where they
    are for another machine.
    """

    arguments: list[str]
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    runner: list[str] = dataclasses.field(default_factory=list)
    # Options of the programs: --show-output lets a test that passed say what it skipped.
    options: list[str] = dataclasses.field(default_factory=lambda: ["--show-output"])
    # Packages with tests in their documentation. rustdoc builds and runs those in one.
    documented: list[str] = dataclasses.field(default_factory=list)

    def build(self, log):
        """Builds the programs and runs the tests of documentation, whose output goes to `log`."""
        messages = log.with_suffix(".build.json")
        command = ["cargo", "test", "-j", CARGO_JOBS, "--no-run", "--message-format",
                   "json-render-diagnostics", *self.arguments]
        with open(messages, "w") as file, open(log.with_suffix(".build.log"), "w") as said:
            start = time.monotonic()
            process = subprocess.Popen(command, cwd=ROOT, env=os.environ | self.environment,
                                       stdin=subprocess.DEVNULL, stdout=file, stderr=said)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            spent = Time(time.monotonic() - start, used.ru_utime + used.ru_stime)
        if process.returncode:
            tail = pathlib.Path(said.name).read_text(errors="replace").splitlines()[-60:]
            raise Broken("it does not build:\n" + "\n".join(tail))
        programs = []
        for line in messages.read_text().splitlines():
            message = json.loads(line)
            if message.get("executable") and message["profile"]["test"]:
                folder = pathlib.Path(message["manifest_path"]).parent
                command = [*self.runner, message["executable"], *self.options]
                programs.append(Program(message["target"]["name"], command, folder, self.environment))
        with open(log, "w") as file:
            for package in self.documented:
                _, more = Program(
                    package, ["cargo", "test", "-j", CARGO_JOBS, "--doc", "--package", package,
                     *features_of(self.arguments)], environment=self.environment,
                ).run(file)
                spent += more
        return programs, spent


def features_of(arguments):
    """The option --features with its value, where it is among cargo's arguments."""
    at = arguments.index("--features") if "--features" in arguments else len(arguments)
    return arguments[at : at + 2]


@dataclasses.dataclass
class Suite:
    name: str
    about: str
    needs: list[Callable[[], None]]
    # What runs: programs that cargo builds, or a command.
    tests: CargoTests | list[str]
    counts: Callable[[str], Counts | None]
    folder: str = "."
    # Of one test program, which is far more than any takes.
    limit_minutes: int = 20
    # Its building waits until what runs has ended.
    alone: bool = False

    @property
    def log(self):
        return LOGS / f"{self.name}.log"

    def build(self):
        """What there is to run, and how long building it took."""
        start, before = time.monotonic(), needs.spent.cpu
        for need in self.needs:
            need()
        spent = Time(time.monotonic() - start, needs.spent.cpu - before)
        self.log.write_text("")
        if isinstance(self.tests, CargoTests):
            programs, built = self.tests.build(self.log)
            return programs, spent + built
        return [Program(self.name, self.tests, ROOT / self.folder)], spent

    def run(self, programs):
        """Runs the programs: their counts, what went wrong besides failed tests, and their time."""
        total, problems, spent = Counts(), [], Time()
        # What building has said is read as a program's output is.
        if documented := self.log.read_text(errors="replace"):
            total += self.counts(plain(documented)) or Counts()
        for program in programs:
            before = self.log.stat().st_size
            with open(self.log, "a") as log:
                status, took = program.run(log, self.limit_minutes)
            spent += took
            with open(self.log, errors="replace") as log:
                log.seek(before)
                counts = self.counts(plain(log.read()))
            if status is None:
                problem = f"not done after {self.limit_minutes} minutes and ended"
            elif counts is None:
                problem = f"printed no count (exit status {status})"
            elif status and not counts.failed:
                problem = f"ended with exit status {status}, though no test failed"
            else:
                problem = None
            total += counts or Counts()
            if problem:
                total += Counts(failed=1)
                problems.append(f"{program.name}: {problem}")
        return total, problems, spent


def plain(output):
    """Without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", output)


@dataclasses.dataclass
class Result:
    counts: Counts
    built: Time = dataclasses.field(default_factory=Time)
    ran: Time = dataclasses.field(default_factory=Time)


def run_all(suites):
    """Builds and runs the suites; their results by name, of which each is printed when it is there."""
    LOGS.mkdir(parents=True, exist_ok=True)
    results, built = {}, queue.Queue()

    def build_all():
        for i, suite in enumerate(suites):
            if suite.alone:
                # All before it have to be through.
                while len(results) < i:
                    time.sleep(0.2)
            print(f"building {suite.name}", flush=True)
            try:
                built.put((suite, *suite.build()))
            except (Unavailable, Broken, OSError) as reason:
                built.put((suite, reason, None))

    threading.Thread(target=build_all, daemon=True).start()
    for _ in suites:
        suite, programs, building = built.get()
        print(f"{suite.name}: {suite.about}", flush=True)
        if isinstance(programs, Unavailable):
            print(f"    SKIPPED: {programs}", flush=True)
            results[suite.name] = Result(Counts(skipped=1))
        elif isinstance(programs, Exception):
            print(f"    FAILED: {programs}", flush=True)
            results[suite.name] = Result(Counts(failed=1))
        else:
            counts, problems, ran = suite.run(programs)
            results[suite.name] = Result(counts, building, ran)
            report(suite, results[suite.name], problems)
    return results


def report(suite, result, problems):
    output = plain(suite.log.read_text(errors="replace"))
    for line in dict.fromkeys(re.findall(r"^skipped: .*$", output, re.M)):
        print(f"    {line}")
    if result.counts.failed:
        print("    | " + "\n    | ".join(output.rstrip().splitlines()[-80:]))
        for problem in problems or [f"{result.counts.failed} tests"]:
            print(f"    FAILED: {problem}")
        print(f"    all output in {suite.log.relative_to(ROOT)}")
    print(f"    {result.counts}; built in {result.built}, run in {result.ran}", flush=True)
