"""pyrometer ci: a planted slowdown is found and named, unchanged code passes, and what cannot be decided is not passed."""

import json
import os
import re
import shutil
import xml.etree.ElementTree as ElementTree

import junit_unittest
from harness import BINARY, Scratch, WORKLOADS, command, need_bpf, need_program, need_root, run

# About 0.4 s: 900 samples.
PROGRAM = f"{WORKLOADS / 'many_functions'} 300"
SLOW = f"SLOW_FUNCTION=0 SLOW_PERCENT=60 {PROGRAM}"
NOBODY = 65534


def ci(*arguments, **named):
    return run("ci", *arguments, timeout=280, **named)


class Decides(Scratch):
    def setUp(self):
        super().setUp()
        need_bpf(self)

    def test_a_planted_slowdown_is_found_and_named(self):
        names = ("report.json", "report.md", "report.xml", "report.sarif", "report.codequality.json")
        files = {name: self.scratch / name for name in names}
        outputs = [word for path in files.values() for word in ("-o", path)]
        result = ci("run", "--baseline", PROGRAM, "--candidate", SLOW, "-n", 12, "--github", *outputs)
        self.assertEqual(result.returncode, 3, result)
        self.assertTrue(result.stdout.startswith("REGRESSION: "), result)
        self.assertRegex(result.stdout, r"(?m)^::error title=Performance regression.*::f000")

        report = json.loads(files["report.json"].read_text())
        self.assertEqual(report["decision"], "regression")
        self.assertEqual(report["findings"][0]["function"]["name"], "f000", report["findings"])
        self.assertEqual(report["findings"][0]["callers"][0]["function"]["name"], "round_of_all")
        effect = report["findings"][0]["effect"]
        self.assertLess(effect["ratio_interval"][0], 1.6)
        self.assertGreater(effect["ratio_interval"][1], 1.4)
        self.assertLess(report["runs"]["baseline"], 13)

        self.assertIn("| f000 (many\\_functions) |", files["report.md"].read_text())
        suite = ElementTree.parse(files["report.xml"]).getroot().find("testsuite")
        self.assertEqual(int(suite.get("failures")), len(suite.findall("testcase/failure")))
        self.assertEqual(int(suite.get("tests")), len(suite.findall("testcase")))
        self.assertIn("f000", suite.find("testcase/failure").get("message"))
        sarif = json.loads(files["report.sarif"].read_text())
        self.assertEqual(sarif["version"], "2.1.0")
        self.assertIn("f000", sarif["runs"][0]["results"][0]["message"]["text"])
        issue = json.loads(files["report.codequality.json"].read_text())[0]
        self.assertLessEqual({"description", "check_name", "fingerprint", "severity", "location"}, issue.keys())

    def decided(self, candidate):
        """Result and report. At 0.2 %, so that these tests fail for nothing in one case of 500 at most; a machine that is too
        busy to decide is given more runs, as the report says."""
        for pairs in (8, 16, 32):
            result = ci("run", "--baseline", PROGRAM, "--candidate", candidate, "-n", pairs, "--alpha", "0.002", "--json")
            report = json.loads(result.stdout)
            if report["decision"] != "undecided":
                break
            self.assertEqual(result.returncode, 4, result)
            self.assertIn("pairs", report["remedy"])
        self.assertEqual(report["runs"], {"baseline": pairs, "candidate": pairs})
        return result, report

    def test_unchanged_code_passes(self):
        result, report = self.decided(PROGRAM)
        self.assertEqual((result.returncode, report["decision"]), (0, "pass"), result)
        self.assertEqual(report["findings"], [])
        self.assertLess(report["detectable_share"], 0.05)

    def test_a_rename_in_another_order_is_no_regression(self):
        result, report = self.decided(PROGRAM.replace("many_functions", "many_functions_renamed"))
        self.assertEqual((result.returncode, report["decision"]), (0, "pass"), result)
        moved = {finding["function"]["name"]: finding["moved_from"][0]["name"] for finding in report["moved"]}
        self.assertEqual(moved, {"new_name_of_f000": "f000"}, result)

    def test_recorded_runs_are_compared(self):
        base, slow = self.scratch / "base.pyro", self.scratch / "slow.pyro"
        for path, extra in ((base, {}), (slow, {"SLOW_FUNCTION": "0", "SLOW_PERCENT": "60"})):
            result = ci("record", "-n", 6, "-o", path, "--", *PROGRAM.split(), env={**os.environ, **extra})
            self.assertEqual(result.returncode, 0, result)
            self.assertRegex(result.stdout, r"wrote .*: 6 runs, [\d,]+ samples")
        result = ci("compare", base, slow)
        self.assertEqual(result.returncode, 3, result)
        self.assertIn("f000", result.stdout)
        same = ci("compare", base, base)
        self.assertNotIn(same.returncode, (1, 2, 3), same)
        self.assertEqual(ci("compare", base, slow).stdout, result.stdout, "the same runs, the same answer")

        other = json.loads(base.read_text())
        other["origin"]["machine"]["cpus"] += 2
        (self.scratch / "other.pyro").write_text(json.dumps(other))
        result = ci("compare", self.scratch / "other.pyro", slow)
        self.assertEqual(result.returncode, 4, result)
        self.assertIn("number of CPUs", result.stdout)
        (self.scratch / "cut.pyro").write_text(base.read_text()[:1000])
        self.assert_one_line(ci("compare", self.scratch / "cut.pyro", slow), 1, "cut.pyro", "pyrometer ci record")


class Starved(Scratch):
    """Exit code 4 or 1 with words that help, never 0."""

    def setUp(self):
        super().setUp()
        need_bpf(self)

    def test_too_few_pairs_run_nothing(self):
        mark = self.scratch / "ran"
        result = ci("run", "--baseline", f"touch {mark}", "--candidate", "true", "-n", 3)
        self.assertEqual(result.returncode, 4, result)
        self.assertRegex(result.stdout, r"3 pairs.*too few[\s\S]*at least 6 pairs")
        self.assertFalse(mark.exists())

    def test_commands_without_work(self):
        result = ci("run", "--baseline", "true", "--candidate", "true", "-n", 6, "--warm-up", 0)
        self.assertEqual(result.returncode, 4, result)
        self.assertTrue(result.stdout.startswith("CANNOT DECIDE: "), result)

    def test_a_command_that_leaves_its_work_behind(self):
        away = f"setsid -f {WORKLOADS / 'many_functions'} 20"
        result = ci("run", "--baseline", away, "--candidate", away, "-n", 6, "--warm-up", 0)
        self.assertEqual(result.returncode, 4, result)

    def test_a_crashing_candidate(self):
        result = ci("run", "--baseline", "true", "--candidate", "echo out of cheese >&2; kill -SEGV $$")
        self.assertEqual(result.returncode, 1, result)
        self.assertIn("signal 11", result.stderr)
        self.assertIn("out of cheese", result.stderr)

    def test_a_failing_baseline(self):
        result = ci("run", "--baseline", "no-such-benchmark --now", "--candidate", "true")
        self.assertEqual(result.returncode, 1, result)
        self.assertRegex(result.stderr, r"(?s)exit code 127.*no-such-benchmark")


class Usage(Scratch):
    def test_what_people_get_wrong(self):
        both = ("--baseline", "true", "--candidate", "true")
        self.assert_one_line(ci("run", "--baseline", "true"), 2, "--candidate")
        self.assert_one_line(ci("run", *both, "--alpha", "2"), 2, "--alpha")
        self.assert_one_line(ci("run", *both, "-o", self.scratch / "x.docx"), 2, ".sarif")
        self.assert_one_line(ci("run", *both, "-o", self.scratch / "no" / "x.md"), 1, "no/x.md")
        self.assert_one_line(ci("record", "--", "true"), 2, "--output")
        self.assert_one_line(ci("compare", "only-one"), 2)
        self.assert_one_line(ci("compare", self.scratch / "a.pyro", self.scratch / "b.pyro"), 1, "a.pyro")
        self.assert_one_line(ci(), 2, "pyrometer ci --help")


class WithoutRights(Scratch):
    def test_perf_events_decide_too(self):
        need_root(self)  # to become somebody who is not
        need_program(self, "setpriv")
        paranoid = int(open("/proc/sys/kernel/perf_event_paranoid", encoding="ascii").read())
        if paranoid > 2:
            self.skipTest(f"kernel.perf_event_paranoid is {paranoid}")
        os.chmod(self.scratch, 0o777)
        for program in (BINARY, WORKLOADS / "many_functions"):
            shutil.copy2(program, self.scratch)
        work = f"{self.scratch}/many_functions 300"
        result = command("setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--bounding-set", "-all",
                         "--inh-caps", "-all", "--no-new-privs", "env", f"HOME={self.scratch}", self.scratch / "pyrometer", "ci",
                         "run", "--baseline", work, "--candidate", f"SLOW_FUNCTION=0 SLOW_PERCENT=80 {work}", "-n", 16,
                         cwd=self.scratch, timeout=280)
        self.assertEqual(result.returncode, 3, result)
        self.assertTrue(re.search(r"f000 \(many_functions\)", result.stdout), result)
        self.assertIn("without BPF", result.stderr)


if __name__ == "__main__":
    junit_unittest.main()
