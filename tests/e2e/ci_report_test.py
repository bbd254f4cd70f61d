"""Reports of pyrometer ci, from made-up runs: each format holds against its schema, whatever happened and whatever functions are called;
the page opens in a browser; findings are ranked by a diff."""

import json
import pathlib
import re
import subprocess
import sys

import junit_unittest
import made_up_runs
from harness import Scratch, command, need_program, run

TOP = pathlib.Path(__file__).resolve().parents[2]
SCHEMAS = {"report.json": TOP / "docs/formats/ci-report.schema.json",
           "report.sarif": TOP / "tests/schemas/sarif-2.1.0-subset.schema.json",
           "report.codequality.json": TOP / "tests/schemas/code-quality.schema.json"}
NAMES = (*SCHEMAS, "report.xml", "report.md", "report.html")
OTHERS = [(["main", f"other{i}"], 100) for i in range(60)]
PLACES = {"scan": ("/build/src/scan.c", 42), "parse": ("/build/src/parse.c", 10), "copy": ("/build/src/copy.c", 7)}


def others(but=()):
    return [stack for stack in OTHERS if stack[0][-1] not in but]


# name -> (baseline, candidate, exit code)
HOSTILE = "f<script>alert(1)</script>]]>&\"'%0A::error::|`*\u202e\uffff\u0001 \u00e9"
CASES = {
    "regression": ([(["main", "scan"], 300), *OTHERS], [(["main", "scan"], 450), *OTHERS], 3),
    "pass": (OTHERS, OTHERS, 0),
    "undecided": ([(["main"], 3)], [(["main"], 3)], 4),
    "new function": (OTHERS, [(["main", "fresh"], 400), *OTHERS], 3),
    "moved": ([(["main", "before"], 400), *OTHERS], [(["main", "after"], 400), *OTHERS], 0),
    "faster": ([(["main", "scan"], 450), *OTHERS], [(["main", "scan"], 250), *OTHERS], 0),
    "hostile names": ([(["main", HOSTILE], 300), *OTHERS], [(["main", HOSTILE], 500), *OTHERS], 3),
    "one name in two modules": ([(["main", "libone.so!scan"], 300), (["main", "libtwo.so!scan"], 300), *OTHERS],
                                [(["main", "libone.so!scan"], 500), (["main", "libtwo.so!scan"], 500), *OTHERS], 3),
    "everything": ([(["main", f"other{i}"], 100) for i in range(2)], [(["main", f"other{i}"], 160) for i in range(2)], 3),
    "many": ([*[(["main", f"slow{i}"], 100) for i in range(30)], *OTHERS * 2], [*[(["main", f"slow{i}"], 300) for i in range(30)], *OTHERS * 2], 3),
}


class Reports(Scratch):
    def check(self, case, *arguments):
        baseline, candidate, code = CASES[case]
        files = [made_up_runs.write(self.scratch / f"{side}.pyro", stacks, seed, places={**PLACES, HOSTILE: ("/src/a dir/%41?#é.c", 3)})
                 for side, stacks, seed in (("base", baseline, 1), ("head", candidate, 2))]
        outputs = [word for name in NAMES for word in ("-o", self.scratch / name)]
        result = run("ci", "compare", *files, *outputs, "--github", *arguments)
        self.assertEqual(result.returncode, code, result)
        return result

    def problems(self, path, schema):
        """What the schema has against the file, a line each; skips the test where no Python here knows the language of schemas."""
        script = ("import json, sys, jsonschema\n"
                  "schema, report = (json.load(open(path, encoding='utf-8')) for path in sys.argv[1:])\n"
                  "jsonschema.Draft202012Validator.check_schema(schema)\n"
                  "for problem in jsonschema.Draft202012Validator(schema).iter_errors(report):\n"
                  "    print('/'.join(map(str, problem.absolute_path)) + ': ' + problem.message)\n")
        for python in (sys.executable, "/usr/bin/python3"):  # Debian's package is for Debian's Python
            result = command(python, "-c", script, schema, path)
            if "No module named 'jsonschema'" in result.stderr:
                continue
            self.assertEqual(result.returncode, 0, result)
            return result.stdout.splitlines()
        self.skipTest("needs the Python module jsonschema (scripts/bootstrap --dev installs it)")

    def test_every_output_holds_against_its_schema(self):
        need_program(self, "xmllint")
        for case in CASES:
            with self.subTest(case=case):
                self.check(case)
                for name, schema in SCHEMAS.items():
                    self.assertEqual(self.problems(self.scratch / name, schema), [], name)
                lint = command("xmllint", "--noout", "--nonet", "--schema", TOP / "tests/schemas/junit.xsd", self.scratch / "report.xml")
                self.assertEqual(lint.returncode, 0, lint)

    def test_counted_instructions_are_told(self):
        base = made_up_runs.write(self.scratch / "base.pyro", OTHERS, 1, instructions=2_000_000_000)
        head = made_up_runs.write(self.scratch / "head.pyro", OTHERS, 2, instructions=2_010_000_000)
        unknown = made_up_runs.write(self.scratch / "unknown.pyro", OTHERS, 3)
        path = self.scratch / "report.json"
        for candidate, ratio in ((head, 1.005), (unknown, None)):
            result = run("ci", "compare", base, candidate, "-o", path, "-o", self.scratch / "report.md")
            self.assertEqual(result.returncode, 0, result)
            told = json.loads(path.read_text())["instructions"]
            self.assertEqual(self.problems(path, SCHEMAS["report.json"]), [])
            markdown = (self.scratch / "report.md").read_text()
            if ratio is None:
                self.assertIsNone(told)
                self.assertIn("instructions: not counted", result.stdout)
                self.assertNotIn("nstructions", markdown)
            else:
                self.assertAlmostEqual(told["ratio"], ratio, 5)
                self.assertLess(told["ratio_interval"][0], ratio)
                self.assertGreater(told["ratio_interval"][1], ratio)
                self.assertIn("instructions: +0.50 %", result.stdout)
                self.assertIn("Instructions: +0.50 %", markdown)

    def test_the_schemas_refuse(self):
        """A schema that lets everything pass would prove nothing."""
        self.check("regression")
        for name, break_it in (("report.json", lambda r: r["findings"].clear()), ("report.json", lambda r: r.update(decision="maybe")),
                               ("report.json", lambda r: r["findings"][0]["effect"].update(extra=1)),
                               ("report.sarif", lambda r: r["runs"][0]["results"][0].pop("message")),
                               ("report.sarif", lambda r: r["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]
                                .update(uri="a dir/x.c")),
                               ("report.codequality.json", lambda r: r[0].update(severity="bad"))):
            report = json.loads((self.scratch / name).read_text())
            break_it(report)
            broken = self.scratch / "broken.json"
            broken.write_text(json.dumps(report))
            with self.subTest(name=name):
                self.assertNotEqual(self.problems(broken, SCHEMAS[name]), [])

    def test_counts_agree(self):
        result = self.check("many")
        report = json.loads((self.scratch / "report.json").read_text())
        count = len(report["findings"])
        self.assertGreater(count, 20)
        self.assertEqual(result.stdout.count("::error "), 10)
        self.assertEqual(len(json.loads((self.scratch / "report.sarif").read_text())["runs"][0]["results"]), count)
        self.assertEqual(len(json.loads((self.scratch / "report.codequality.json").read_text())), count)
        self.assertIn(f'tests="{count + 1}" failures="{count}"', (self.scratch / "report.xml").read_text())

    def test_what_was_handed_on_is_not_faster(self):
        self.check("moved")
        report = json.loads((self.scratch / "report.json").read_text())
        self.assertEqual([entry["function"]["name"] for entry in report["moved"]], ["after"])
        self.assertEqual(report["faster"], [])

    def test_nothing_from_outside_is_markup(self):
        result = self.check("hostile names")
        for name in ("report.md", "report.html", "report.xml"):
            self.assertNotIn("<script>alert", (self.scratch / name).read_text(), name)
        self.assertNotIn("\u202e", (self.scratch / "report.md").read_text())  # or the rest of the line is read backwards
        annotations = [line for line in result.stdout.splitlines() if line.startswith("::")]
        self.assertEqual(len(annotations), 1, result)

    def test_the_page_opens_without_a_network(self):
        page = self.scratch / "report.html"
        for case, parts in (("regression", ("Performance regression", "Differential flame graph", "scan (app)", "box s3 guilty")),
                            ("moved", ("No regression", "Moved, not slower", "after (app)")),
                            ("undecided", ("Could not decide",)), ("hostile names", ("f&lt;script&gt;alert(1)",))):
            with self.subTest(case=case):
                self.check(case)
                text = page.read_text()
                self.assertEqual(re.findall(r"(?:src|href)=|https?://", text), [])
                need_program(self, "chromium")
                dom = command("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000", "--window-size=1280,900",
                              f"--user-data-dir={self.scratch / 'browser'}", "--dump-dom", page.as_uri(), timeout=120, stdin=subprocess.DEVNULL)
                for part in parts:
                    self.assertIn(part, dom.stdout, dom.stderr[-2000:])

    def test_runs_that_drift_are_not_compared(self):
        steady = made_up_runs.write(self.scratch / "steady.pyro", [(["main", "scan"], 400), *OTHERS], 1, runs=16)
        drifting = made_up_runs.write(self.scratch / "drifting.pyro", [(["main", "scan"], 400), *OTHERS], 2, runs=16, drift=1.0)
        for files, side in (((steady, drifting), "candidate"), ((drifting, steady), "baseline")):
            result = run("ci", "compare", *files)
            self.assertEqual(result.returncode, 4, result)
            self.assertRegex(result.stdout, rf"scan's part changed while the runs of the {side} were taken[\s\S]*pyrometer ci run")

    def test_a_diff_ranks(self):
        stacks = [(["main", "scan"], 300), (["main", "parse"], 300), (["main", "parse", "copy"], 300), *OTHERS]
        slower = [(["main", "scan"], 600), (["main", "parse"], 400), (["main", "parse", "copy"], 500), *OTHERS]
        files = [made_up_runs.write(self.scratch / f"{side}.pyro", one, seed, places=PLACES)
                 for side, one, seed in (("base", stacks, 1), ("head", slower, 2))]

        def order(*arguments):
            result = run("ci", "compare", *files, "--json", *arguments)
            self.assertEqual(result.returncode, 3, result)
            return [(finding["function"]["name"], finding.get("change", {}).get("relation")) for finding in json.loads(result.stdout)["findings"]]

        self.assertEqual(order(), [("scan", None), ("copy", None), ("parse", None)])
        change = self.scratch / "change.diff"
        change.write_text("diff --git a/src/parse.c b/src/parse.c\n--- a/src/parse.c\n+++ b/src/parse.c\n@@ -12,2 +12,3 @@ int parse(void)\n"
                          " a\n+b\n c\n")
        self.assertEqual(order("--diff", change), [("parse", "itself"), ("copy", "called by changed"), ("scan", None)])
        self.assertEqual(order("--diff", change, "--source-root", "/build")[0], ("parse", "itself"))
        report = json.loads(run("ci", "compare", *files, "--json", "--diff", change, "--source-root", "/build").stdout)
        self.assertEqual(report["findings"][0]["function"]["file"], "src/parse.c")
        self.assertIn("its own lines changed (src/parse.c:13)", report["findings"][0]["message"])

        need_program(self, "git")
        repository = self.scratch / "repository"
        (repository / "src").mkdir(parents=True)

        def git(*words):
            done = command("git", "-c", "user.name=t", "-c", "user.email=t@example.org", *words, cwd=repository)
            self.assertEqual(done.returncode, 0, done)

        git("init", "-q")
        for text in ("one\n" * 50, "one\n" * 43 + "two\n" + "one\n" * 6):
            (repository / "src/scan.c").write_text(text)
            git("add", ".")
            git("commit", "-q", "-m", "change")
        result = run("ci", "compare", *files, "--json", "--diff", "HEAD~1..HEAD", cwd=repository)
        self.assertEqual(json.loads(result.stdout)["findings"][0]["change"]["relation"], "itself", result)
        self.assert_one_line(run("ci", "compare", *files, "--diff", "no-such..range", cwd=repository), 2, "no-such..range")
        change.write_text("hello\n")
        self.assert_one_line(run("ci", "compare", *files, "--diff", change), 2, "not a unified diff")


if __name__ == "__main__":
    junit_unittest.main()
