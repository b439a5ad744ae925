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
import tomllib
from collections.abc import Callable

from testing import counts, needs
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

    def run(self, output, limit_minutes=None, errors=subprocess.STDOUT):
        """Runs it to its end or to its limit: its exit status, None at the limit, and its time."""
        start, ended = time.monotonic(), threading.Event()
        process = subprocess.Popen(
            self.command, cwd=self.folder, env=os.environ | self.environment,
            stdin=subprocess.DEVNULL, stdout=output, stderr=errors, start_new_session=True,
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
    """Test programs that cargo builds, run by themselves, each in its package's folder."""

    # Of `cargo test`. What suites with the same arguments want is built once.
    arguments: list[str]
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    # Runs them, where they are for another machine.
    runner: list[str] = dataclasses.field(default_factory=list)
    # Their options: --show-output lets a test that passed say what it skipped.
    options: list[str] = dataclasses.field(default_factory=lambda: ["--show-output"])
    # The packages whose programs are run; none for all.
    only: tuple[str, ...] = ()
    # The arguments where no other suite wants the same build.
    alone: list[str] | None = None
    # Whether there are tests in documentation, which cargo builds and runs in one. They go with the
    # first suite of a build.
    documented: bool = False

    def build(self, log, is_shared):
        """Builds what is not built: the programs, and how long it took. What tests of documentation
        say goes to `log`."""
        arguments = self.alone if self.alone and not is_shared else self.arguments
        spent, key = Time(), self.key(arguments)
        if key not in built:
            built[key], spent = self.build_programs(log, arguments)
        found = [program for package, program in built[key] if not self.only or package in self.only]
        if not found:
            raise Broken("there are no test programs")
        return found, spent

    def key(self, arguments):
        """What the same programs come of."""
        return (*arguments, *sorted(self.environment.items()))

    def shares_build_with(self, other):
        return isinstance(other, CargoTests) and self.key(self.arguments) == other.key(other.arguments)

    def build_programs(self, log, arguments):
        messages = log.with_suffix(".build.json")
        command = ["cargo", "test", "-j", CARGO_JOBS, *arguments]
        with open(messages, "w") as file, open(log.with_suffix(".build.log"), "w") as said:
            cargo = Program("cargo", [*command, "--no-run", "--message-format", "json-render-diagnostics"],
                            environment=self.environment)
            status, spent = cargo.run(file, errors=said)
        if status:
            tail = pathlib.Path(said.name).read_text(errors="replace").splitlines()[-60:]
            raise Broken("it does not build:\n" + "\n".join(tail))
        programs = []
        for message in map(json.loads, messages.read_text().splitlines()):
            if message.get("executable") and message["profile"]["test"]:
                manifest = pathlib.Path(message["manifest_path"])
                package = tomllib.loads(manifest.read_text())["package"]["name"]
                programs.append((package, Program(
                    message["target"]["name"], [*self.runner, message["executable"], *self.options],
                    manifest.parent, self.environment)))
        if self.documented:
            documentation = Program("documentation", [*command, "--doc", "--no-fail-fast"],
                                    environment=self.environment)
            with open(log, "w") as file:
                status, took = documentation.run(file)
            spent += took
            said = counts.rust(plain(log.read_text(errors="replace")))
            if said is None or (status and not said.failed):
                raise Broken(f"the tests of its documentation do not run; all output in {log}")
        return programs, spent


# Programs with their packages, by what they come of.
built = {}


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
    limit_minutes: float = 20
    # Its building waits until what runs has ended.
    alone: bool = False

    @property
    def log(self):
        return LOGS / f"{self.name}.log"

    def build(self, others):
        """What there is to run, and how long building it took; `others` are the other suites."""
        start, before = time.monotonic(), needs.spent.cpu
        for need in self.needs:
            need()
        spent = Time(time.monotonic() - start, needs.spent.cpu - before)
        self.log.write_text("")
        if isinstance(self.tests, CargoTests):
            is_shared = any(self.tests.shares_build_with(other.tests) for other in others)
            programs, took = self.tests.build(self.log, is_shared)
            return programs, spent + took
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
                found = self.counts(plain(log.read()))
            if status is None:
                problem = f"not done after {self.limit_minutes} minutes and ended"
            elif found is None:
                problem = f"printed no count (exit status {status})"
            elif status and not found.failed:
                problem = f"ended with exit status {status}, though no test failed"
            else:
                problem = None
            total += found or Counts()
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
    results, ready = {}, queue.Queue()

    def build_all():
        for i, suite in enumerate(suites):
            if suite.alone:
                # All before it have to be through.
                while len(results) < i:
                    time.sleep(0.2)
            print(f"building {suite.name}", flush=True)
            try:
                others = [other for other in suites if other is not suite]
                ready.put((suite, *suite.build(others)))
            except Exception as reason:  # noqa: BLE001: whatever it is, who waits has to hear of it.
                ready.put((suite, reason, None))

    threading.Thread(target=build_all, daemon=True).start()
    for _ in suites:
        suite, programs, building = ready.get()
        print(f"{suite.name}: {suite.about}", flush=True)
        if isinstance(programs, Unavailable):
            print(f"    SKIPPED: {programs}", flush=True)
            results[suite.name] = Result(Counts(skipped=1))
        elif isinstance(programs, Exception):
            print(f"    FAILED: {programs}", flush=True)
            results[suite.name] = Result(Counts(failed=1))
        else:
            found, problems, ran = suite.run(programs)
            results[suite.name] = Result(found, building, ran)
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
