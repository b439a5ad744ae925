#!/usr/bin/env python3
"""Tests of what runs the tests: `python3 scripts/testing/check.py`.

The last line is `N passed, N failed`.
"""

import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from testing import counts, suites  # noqa: E402
from testing.counts import Counts  # noqa: E402
from testing.needs import Time, Unavailable  # noqa: E402
from testing.suites import CargoTests, Program, Suite, run_all  # noqa: E402


def shell(text):
    return ["sh", "-c", text]


class SuitesTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.addCleanup(setattr, suites, "LOGS", suites.LOGS)
        suites.LOGS = pathlib.Path(folder.name)

    def ran(self, *commands, limit_minutes=1.0):
        suite = Suite("s", "", [], [], counts.last_line, limit_minutes=limit_minutes)
        suite.log.write_text("")
        return suite.run([Program(f"p{i}", shell(command)) for i, command in enumerate(commands)])

    def test_counts_of_programs_are_added(self):
        found, problems, spent = self.ran("echo 3 passed, 0 failed", "echo 1 passed, 2 failed, 4 skipped; false")
        self.assertEqual((found, problems), (Counts(4, 2, 4), []))
        self.assertGreater(spent.wall, 0)

    def test_a_program_that_hangs_is_ended_and_named_in_one_line(self):
        found, problems, spent = self.ran("echo 5 passed, 0 failed; sleep 600 & sleep 600",
                                          "echo 2 passed, 0 failed", limit_minutes=0.01)
        self.assertEqual(found, Counts(7, 1))
        self.assertEqual(problems, ["p0: not done after 0.01 minutes and ended"])
        self.assertLess(spent.wall, 60)

    def test_a_program_without_a_count_has_failed(self):
        found, problems, _ = self.ran("echo hello")
        self.assertEqual((found, problems), (Counts(0, 1), ["p0: printed no count (exit status 0)"]))

    def test_a_program_that_ends_badly_has_failed_whatever_it_counted(self):
        found, problems, _ = self.ran("echo 1 passed, 0 failed; kill -SEGV $$")
        self.assertEqual(found, Counts(1, 1))
        self.assertEqual(problems, ["p0: ended with exit status -11, though no test failed"])

    def test_building_has_no_part_in_the_limit(self):
        built = []

        class Slow(CargoTests):
            def build(self, log, is_shared):
                Program("cargo", shell("sleep 2")).run(None)
                built.append(is_shared)
                return [Program("p", shell("echo 1 passed, 0 failed"))], Time(2)

        suite = Suite("s", "", [], Slow([]), counts.last_line, limit_minutes=0.02)
        self.assertEqual(run_all([suite])["s"].counts, Counts(1))
        self.assertEqual(built, [False])

    def test_what_cannot_be_had_is_skipped_and_the_rest_goes_on(self):
        def need():
            raise Unavailable("no such thing here")

        one = Suite("one", "", [need], shell("echo 1 passed, 0 failed"), counts.last_line)
        two = Suite("two", "", [], shell("echo 1 passed, 0 failed"), counts.last_line, alone=True)
        results = run_all([one, two])
        self.assertEqual([result.counts for result in results.values()], [Counts(skipped=1), Counts(1)])


    def test_an_error_while_building_is_a_failure_and_nobody_waits_for_ever(self):
        def need():
            raise KeyError("of a script")

        results = run_all([Suite("s", "", [need], shell("echo 1 passed, 0 failed"), counts.last_line)])
        self.assertEqual(results["s"].counts, Counts(failed=1))

    def test_builds_are_shared_by_arguments_and_environment(self):
        plain, simd = CargoTests(["-p", "a"]), CargoTests(["-p", "a"], {"RUSTFLAGS": "-C target-feature=+simd128"})
        self.assertTrue(plain.shares_build_with(CargoTests(["-p", "a"], only=("b",))))
        self.assertFalse(plain.shares_build_with(simd))
        self.assertFalse(plain.shares_build_with(shell("true")))


class CountsTest(unittest.TestCase):
    def test_rust_tests_that_say_so_are_skipped(self):
        said = ("---- a stdout ----\nskipped: no GPU\n\n---- b stdout ----\nfine\n"
                "test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured\n")
        self.assertEqual(counts.rust(said), Counts(1, 0, 2))
        self.assertIsNone(counts.rust("error: could not compile"))

    def test_the_last_line_counts(self):
        self.assertEqual(counts.last_line("1 passed, 0 failed\n2 passed, 3 failed, 4 skipped\n"), Counts(2, 3, 4))
        self.assertIsNone(counts.last_line("2 passed"))

    def test_node(self):
        self.assertEqual(counts.node("# pass 3\n# fail 1\n# skipped 0\n"), Counts(3, 1))
        self.assertIsNone(counts.node("ok 1"))


if __name__ == "__main__":
    result = unittest.TextTestRunner().run(unittest.defaultTestLoader.loadTestsFromModule(sys.modules[__name__]))
    failed = len(result.failures) + len(result.errors)
    print(f"{result.testsRun - failed} passed, {failed} failed")
    sys.exit(bool(failed))
