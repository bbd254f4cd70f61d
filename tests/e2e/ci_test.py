"""pyrometer ci: a planted slowdown is found and named, unchanged code passes, and what cannot be decided is not passed."""

import json
import os
import pathlib
import re
import shutil
import xml.etree.ElementTree as ElementTree

import junit_unittest
from harness import BINARY, Daemon, Scratch, WORKLOADS, command, free_port, need_bpf, need_program, need_root, run

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

    def test_the_same_code_elsewhere_is_no_regression(self):
        """The candidate takes more, for a reason that is in no code: as a layout effect would."""
        for name, program, extra in (("a", "many_functions", ""), ("b", "many_functions_reordered", "SLOW_FUNCTION=0 SLOW_PERCENT=60 ")):
            script = self.scratch / name
            script.write_text(f"#!/bin/sh\n{extra}exec {WORKLOADS / program} 300\n")
            script.chmod(0o755)
        result = ci("run", "--baseline", self.scratch / "a", "--candidate", self.scratch / "b", "-n", 8, "--json", "--github")
        self.assertEqual(result.returncode, 0, result)
        report, _ = json.JSONDecoder().raw_decode(result.stdout)
        self.assertIn("f000", [finding["function"]["name"] for finding in report["layout"]], report)
        self.assertIn("suspected layout effect", report["reason"])
        self.assertIn("::warning title=Suspected layout effect", result.stdout)

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


class Benchmarks(Scratch):
    def setUp(self):
        super().setUp()
        need_bpf(self)
        self.program = WORKLOADS / "two_benchmarks"
        if not self.program.exists():
            self.skipTest("needs libbenchmark-dev (scripts/bootstrap --dev installs it)")

    def test_a_verdict_for_each(self):
        work = f"{self.program} --benchmark_min_time=0.2"
        result = ci("run", "--benchmark", "--baseline", work, "--candidate", f"ONLY_HERE=1 SLOW_PERCENT=60 {work}", "-n", 8, "--warm-up", 0,
                    "--alpha", 0.1, "--json", "-o", self.scratch / "report.html")
        self.assertEqual(result.returncode, 3, result)
        report = json.loads(result.stdout)
        verdicts = {one["name"]: one for one in report["benchmarks"]}
        self.assertEqual(set(verdicts), {"BM_A", "BM_B", "BM_Both<int, 3>/1000"})
        self.assertEqual(verdicts["BM_A"]["decision"], "regression")
        self.assertNotEqual(verdicts["BM_B"]["decision"], "regression", report)
        self.assertAlmostEqual(verdicts["BM_A"]["total_cpu"]["ratio"], 1.6, delta=0.15)
        self.assertAlmostEqual(verdicts["BM_B"]["total_cpu"]["ratio"], 1, delta=0.15)
        self.assertGreater(verdicts["BM_A"]["real_time_ns"]["baseline"], 100)
        self.assertEqual(report["only_in"], {"baseline": [], "candidate": ["BM_OnlyHere"]})
        named = {(finding["benchmark"], finding["function"]["name"]) for finding in report["findings"] if finding["function"]}
        self.assertIn(("BM_A", "work_of_a"), named)
        ratio = next(finding["effect"]["ratio"] for finding in report["findings"] if finding["benchmark"] == "BM_A")
        self.assertAlmostEqual(ratio, 1.6, delta=0.15)  # per iteration, though a benchmark runs for a time
        self.assertIn(("BM_Both<int, 3>/1000", "work_of_a"), named)
        self.assertNotIn("work_of_b", {function for _, function in named})

    def test_other_programs_are_told(self):
        self.assert_one_line(ci("run", "--benchmark", "--baseline", "true", "--candidate", "true"), 1, "lists no benchmarks")
        result = ci("run", "--benchmark", "--baseline", f"{self.program}", "--candidate", f"{self.program} --benchmark_filter=none")
        self.assertEqual(result.returncode, 1, result)


class Stored(Scratch):
    """Runs in a store: a baseline, and a history."""

    def setUp(self):
        super().setUp()
        need_bpf(self)
        self.grpc = f"127.0.0.1:{free_port()}"
        store = Daemon("store", "--data", self.scratch / "data", "--http", f"127.0.0.1:{free_port()}", "--grpc", self.grpc)
        self.addCleanup(store.stop)
        store.wait_for_line("http://")

    def push(self, version, runs, percent=0, *arguments):
        extra = {"SLOW_FUNCTION": "0", "SLOW_PERCENT": str(percent)} if percent else {}
        return ci("record", "--push", "--store", self.grpc, "--service", "many", "--commit", version, "--branch", "main", "-n", runs,
                  "--warm-up", 0, *arguments, "--", WORKLOADS / "many_functions", 200, env={**os.environ, **extra})

    def test_baseline_and_history(self):
        candidate = self.scratch / "head.pyro"
        for number in range(12):
            slow = 60 if number >= 7 else 0
            runs, more = (6, ("-o", candidate)) if number == 11 else (6, ()) if number == 3 else (2, ())
            result = self.push(f"v{number:02}", runs, slow, *more)
            self.assertEqual(result.returncode, 0, result)
            self.assertRegex(result.stdout, rf"pushed to {self.grpc}: {runs} runs, .*service many, version v{number:02}, branch main")

        against = ("compare", "--store", self.grpc, "--baseline-selector", 'cpu{service="many",version="v03"}')
        result = ci(*against, candidate)
        self.assertEqual(result.returncode, 3, result)
        self.assertIn("f000 (many_functions)", result.stdout)
        same = ci(*against[:-1], 'cpu{service="many",version="v11"}', candidate)
        self.assertNotIn(same.returncode, (1, 2, 3), same)  # a busy machine may leave it undecided
        other = json.loads(candidate.read_text())
        other["origin"]["machine"]["cpus"] += 2
        (self.scratch / "other.pyro").write_text(json.dumps(other))
        result = ci(*against, self.scratch / "other.pyro")
        self.assertEqual(result.returncode, 4, result)
        self.assertIn("number of CPUs differs", result.stdout)
        self.assert_one_line(ci(*against[:-1], 'cpu{service="many"}', candidate), 2, "version v00", "version v11")
        self.assert_one_line(ci(*against[:-1], 'cpu{service="absent"}', candidate), 1, "no runs")
        broken = ci(*against[:-1], "cpu{", candidate)
        self.assertEqual(broken.returncode, 2, broken)
        self.assertIn("selector: expected a label name", broken.stderr)

        result = ci("check", "--history", "--store", self.grpc, 'cpu{service="many",branch="main"}', "--json")
        self.assertEqual(result.returncode, 3, result)
        history = json.loads(result.stdout)
        self.assertEqual(history["versions"], [f"v{number:02}" for number in range(12)])
        self.assertEqual(history["runs"], 10 * 2 + 2 * 6)
        slower = [change for change in history["changes"] if change["function"] and change["ratio"] > 1]
        self.assertEqual([(change["function"]["name"], change["version"], change["standing"]) for change in slower], [("f000", "v07", True)], history)
        self.assertAlmostEqual(slower[0]["ratio"], 1.6, delta=0.2)
        result = ci("check", "--history", "--store", self.grpc, '{service="many",version=~"v0[0-4]"}')
        self.assertEqual(result.returncode, 4, result)
        self.assertRegex(result.stdout, "5 versions are too few.*at least 10")
        # The machine's always-on profile is not counted twice.
        result = run("series", "--store", self.grpc, "cpu", "--from", "-1h", "--json")
        self.assertEqual(json.loads(result.stdout)["series"], [], result)

    def test_a_version_is_needed(self):
        elsewhere = self.scratch / "no-repository"
        elsewhere.mkdir()
        result = ci("record", "--push", "--store", self.grpc, "--", "true", cwd=elsewhere, env={**os.environ, "GIT_CEILING_DIRECTORIES": "/"})
        self.assert_one_line(result, 1, "--commit")
        self.assert_one_line(ci("record", "--push", "--store", "127.0.0.1:1", "--commit", "x", "--", "true"), 1, "127.0.0.1:1")


class Recipes(Scratch):
    """Those of docs/ci.md, as they stand there, with a slower candidate: in a folder with both programs, and fewer pairs."""

    def setUp(self):
        super().setUp()
        need_bpf(self)
        self.text = (pathlib.Path(__file__).resolve().parents[2] / "docs/ci.md").read_text()
        tools = self.scratch / "tools"
        tools.mkdir()
        for name, script in (("pyrometer", f'exec {os.path.abspath(BINARY)} "$@" -n 12'),
                             ("sudo", 'exec "$@"')):
            (tools / name).write_text(f"#!/bin/sh\n{script}\n")
            (tools / name).chmod(0o755)
        for folder, extra in (("old", ""), ("new", "SLOW_FUNCTION=0 SLOW_PERCENT=100 "), ("base", ""), ("head", "SLOW_FUNCTION=0 SLOW_PERCENT=100 ")):
            (self.scratch / folder).mkdir()
            bench = self.scratch / folder / "bench"
            bench.write_text(f"#!/bin/sh\n{extra}exec {WORKLOADS / 'many_functions'} 250\n")
            bench.chmod(0o755)
        self.environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "GITHUB_STEP_SUMMARY": str(self.scratch / "summary.md")}

    def block(self, after, language):
        return re.search(rf"{re.escape(after)}[\s\S]*?```{language}\n([\s\S]*?)```", self.text)[1]

    def run_script(self, script):
        return command("bash", "-e", "-c", script, cwd=self.scratch, env=self.environment, timeout=280)

    def test_plain_shell(self):
        result = self.run_script(self.block("Plain shell", "sh"))
        self.assertEqual(result.returncode, 1, result)
        self.assertIn("slower, see report.md", result.stdout)
        self.assertIn("f000", (self.scratch / "report.md").read_text())
        self.assertIn("f000", (self.scratch / "report.xml").read_text())

    def test_github_actions(self):
        lines = self.block("GitHub Actions", "yaml").splitlines()
        self.assertEqual(lines[0], "- run: |")
        result = self.run_script("\n".join(line[4:] for line in lines[1:]))
        self.assertEqual(result.returncode, 1, result)
        self.assertIn("::error title=Performance regression", result.stdout)
        self.assertIn("f000", (self.scratch / "summary.md").read_text())

    def test_gitlab(self):
        script = re.search(r"script:\n    - (.*)\n", self.block("GitLab CI", "yaml"))[1]
        result = self.run_script(script)
        self.assertEqual(result.returncode, 3, result)
        self.assertTrue((self.scratch / "gl.codequality.json").exists())


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
