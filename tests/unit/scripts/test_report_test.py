"""scripts/lib/test_report.py counts cases, crashes and skips as they are."""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

import junit_unittest

TOP = pathlib.Path(__file__).resolve().parents[3]
CASES = """<testsuites><testsuite name="S">
 <testcase name="Good" classname="S" status="run" result="completed" time="0.1"/>
 <testcase name="Off" classname="S" status="notrun" result="suppressed"/>
 {more}
</testsuite></testsuites>"""
SKIP = '<testcase name="Idle" classname="S" status="run" result="skipped"><skipped message="a.cc:5&#10;no PMU here"/></testcase>'
FAIL = '<testcase name="Bad" classname="S" status="run"><failure message="a.cc:9&#10;Expected 1"/></testcase>'


class TestReport(unittest.TestCase):
    def report(self, tests, cases, doctor=None, lines=None):
        """tests: name -> (label, CTest status); cases: name -> JUnit text."""
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            (folder / "cases").mkdir()
            for test, text in cases.items():
                (folder / "cases" / f"{test}.xml").write_text(text)
            rows = "".join(
                f'<testcase name="{test}" status="{status}" time="1">'
                + ('<failure message="Failed"/>' if status == "fail" else "")
                + "<system-out>last words</system-out></testcase>" for test, (_, status) in tests.items())
            (folder / "ctest.xml").write_text(f"<testsuite>{rows}</testsuite>")
            (folder / "tests.json").write_text(json.dumps({"tests": [
                {"name": test, "properties": [{"name": "LABELS", "value": [label]}]} for test, (label, _) in tests.items()]}))
            command = [sys.executable, TOP / "scripts/lib/test_report.py", "--ctest", folder / "ctest.xml",
                       "--tests", folder / "tests.json", "--cases", folder / "cases"]
            if doctor is not None:
                (folder / "doctor.json").write_text(json.dumps(doctor))
                command += ["--doctor", folder / "doctor.json"]
            if lines is not None:
                (folder / "web.log").write_text(lines)
                command += ["--lines", folder / "web.log"]
            run = subprocess.run(command, capture_output=True, text=True, check=False)
            self.assertEqual(run.stderr, "")
            return run.returncode, run.stdout.splitlines()

    def test_cases_are_counted_not_programs(self):
        code, lines = self.report({"a": ("unit", "run"), "b": ("unit", "run")},
                                  {"a": CASES.format(more=SKIP), "b": CASES.format(more="")})
        self.assertEqual((code, lines[-1]), (0, "2 passed, 0 failed, 1 skipped"))
        self.assertIn("skipped: unit: S.Idle: no PMU here", lines)

    def test_a_failed_case_fails_the_run(self):
        code, lines = self.report({"a": ("unit", "fail")}, {"a": CASES.format(more=FAIL)})
        self.assertEqual((code, lines[-1]), (1, "1 passed, 1 failed, 0 skipped"))
        self.assertIn("failed: unit: S.Bad: Expected 1", lines)

    def test_a_crash_is_a_failure(self):
        code, lines = self.report({"a": ("unit", "fail")}, {})
        self.assertEqual((code, lines[-1]), (1, "0 passed, 1 failed, 0 skipped"))
        code, lines = self.report({"a": ("unit", "fail")}, {"a": CASES.format(more="")})
        self.assertEqual((code, lines[-1]), (1, "1 passed, 1 failed, 0 skipped"))
        code, lines = self.report({"a": ("unit", "run")}, {"a": "<testsuites><cut"})
        self.assertEqual((code, lines[-1]), (1, "0 passed, 1 failed, 0 skipped"))

    def test_lines_of_another_runner(self):
        text = "ok   opens at 100% (12 ms)\nnoise\nFAIL zooms\n     Expected 3\n     more\n"
        code, lines = self.report({}, {}, lines=text)
        self.assertEqual((code, lines[-1]), (1, "1 passed, 1 failed, 0 skipped"))
        self.assertIn("failed: web: zooms: Expected 3", lines)

    def test_nothing_ran_is_a_failure(self):
        code, lines = self.report({}, {})
        self.assertEqual((code, lines[-1]), (1, "0 passed, 1 failed, 0 skipped"))

    def test_skipped_kernel_tests_fail_where_bpf_works(self):
        only_skips = f"<testsuites><testsuite>{SKIP}</testsuite></testsuites>"
        tests, cases = {"k": ("kernel", "run"), "u": ("unit", "run")}, {"k": only_skips, "u": CASES.format(more="")}
        works = {"features": [{"name": "bpf_perf_event", "state": "ok"}, {"name": "ring_buffer", "state": "ok"}]}
        off = {"features": [{"name": "bpf_perf_event", "state": "missing"}, {"name": "ring_buffer", "state": "ok"}]}
        self.assertEqual(self.report(tests, cases, off)[0], 0)
        code, lines = self.report(tests, cases, works)
        self.assertEqual((code, lines[-1]), (1, "1 passed, 1 failed, 1 skipped"))

        # One that names a feature may skip where that feature is absent, and only there.
        cases["k"] = CASES.format(more=SKIP.replace("no PMU here", "hardware_cycles: no PMU"))
        works["features"].append({"name": "hardware_cycles", "state": "missing"})
        self.assertEqual(self.report(tests, cases, works)[0], 0)
        works["features"][-1]["state"] = "ok"
        code, lines = self.report(tests, cases, works)
        self.assertEqual(code, 1)
        self.assertIn("failed: S.Idle skipped (hardware_cycles: no PMU), but the doctor says that this works here", lines)


if __name__ == "__main__":
    junit_unittest.main()
