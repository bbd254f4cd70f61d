"""Other people's tools read what we write: go tool pprof, speedscope's schema, a browser without a network."""

import json
import re
import shutil
import xml.etree.ElementTree as ElementTree

import junit_unittest
from harness import Scratch, WORKLOADS, background, command, need_bpf, need_program, run

CHROMIUM = ("chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--disable-extensions", "--window-size=1400,900")


class Formats(Scratch):
    @classmethod
    def setUpClass(cls):
        cls.names = ("p.pb.gz", "p.folded", "p.speedscope.json", "p.html", "p.svg", "p.json")

    def record(self):
        need_bpf(self)
        outputs = [item for name in self.names for item in ("-o", self.scratch / name)]
        with background(WORKLOADS / "spin_fp", "0"):
            result = run("record", "--all", "-d", "5s", *outputs)
        self.assertEqual(result.returncode, 0, result)
        for name in self.names:
            self.assertGreater((self.scratch / name).stat().st_size, 100, name)

    def test_all_of_one_recording(self):
        self.record()
        with self.subTest("go tool pprof"):
            self.check_pprof()
        with self.subTest("speedscope"):
            self.check_speedscope()
        with self.subTest("svg"):
            root = ElementTree.parse(self.scratch / "p.svg").getroot()
            self.assertTrue(root.tag.endswith("svg"))
            self.assertIn("hot_a", (self.scratch / "p.svg").read_text())
        with self.subTest("folded"):
            for line in (self.scratch / "p.folded").read_text().splitlines():
                self.assertRegex(line, r"^\S.* \d+$")
        with self.subTest("every format holds the same samples"):
            self.check_totals()
        with self.subTest("html in chromium"):
            self.check_html()

    def check_pprof(self):
        if shutil.which("go") is None:
            self.skipTest("needs go (scripts/bootstrap --dev installs it)")
        # HOME: pprof wants a place for its own files.
        result = command("env", f"HOME={self.scratch}", "go", "tool", "pprof", "-top", "-nodecount=40", self.scratch / "p.pb.gz")
        self.assertEqual(result.returncode, 0, result)
        self.assertIn("Type: cpu", result.stdout)
        flat = {}
        for line in result.stdout.splitlines():
            match = re.match(r"\s*([\d.]+)(ms|s)\s+[\d.]+%.*\s(hot_[ab])\b", line)
            if match:
                flat[match[3]] = float(match[1]) * (1 if match[2] == "s" else 1e-3)
        self.assertEqual(sorted(flat), ["hot_a", "hot_b"], result.stdout)
        share = flat["hot_a"] / (flat["hot_a"] + flat["hot_b"])
        self.assertAlmostEqual(share, 0.6, delta=0.06, msg=result.stdout)

    def check_speedscope(self):
        """The rules of speedscope's file-format-spec, as its importer enforces them."""
        file = json.loads((self.scratch / "p.speedscope.json").read_text())
        self.assertEqual(file["$schema"], "https://www.speedscope.app/file-format-schema.json")
        frames = file["shared"]["frames"]
        for frame in frames:
            self.assertIsInstance(frame["name"], str)
            self.assertLessEqual(set(frame), {"name", "file", "line", "col"})
        self.assertTrue(file["profiles"])
        for profile in file["profiles"]:
            self.assertIn(profile["type"], ("sampled", "evented"))
            self.assertIn(profile["unit"], ("bytes", "microseconds", "milliseconds", "nanoseconds", "none", "seconds"))
            self.assertIsInstance(profile["name"], str)
            self.assertEqual(profile["type"], "sampled")
            self.assertEqual(len(profile["samples"]), len(profile["weights"]))
            self.assertTrue(all(0 <= index < len(frames) for stack in profile["samples"] for index in stack))
            self.assertTrue(all(weight >= 0 for weight in profile["weights"]))
            self.assertAlmostEqual(profile["endValue"] - profile["startValue"], sum(profile["weights"]),
                                   delta=1e-6 * max(1, sum(profile["weights"])))
        self.assertIn("hot_a", json.dumps(frames))

    def check_totals(self):
        totals = {}
        for name in ("p.pb.gz", "p.json", "p.speedscope.json", "p.folded"):
            out = self.scratch / ("again-" + name.split(".")[1] + ".folded")
            result = run("convert", self.scratch / name, out)
            self.assertEqual(result.returncode, 0, result)
            totals[name] = sum(int(line.rsplit(" ", 1)[1]) for line in out.read_text().splitlines())
        self.assertEqual(len(set(totals.values())), 1, totals)

    def check_html(self):
        need_program(self, "chromium")
        page = self.scratch / "p.html"
        text = page.read_text()
        self.assertNotRegex(text, r"<(script|link|img)[^>]+(src|href)=[\"']?https?:", "it must need no network")
        dom = command(*CHROMIUM, f"--user-data-dir={self.scratch}/profile", "--virtual-time-budget=5000", "--dump-dom",
                      f"file://{page}", timeout=120)
        self.assertEqual(dom.returncode, 0, dom.stderr)
        self.assertIn("<canvas", dom.stdout)
        self.assertIn("hot_a", dom.stdout, "the table beside the graph names the functions")
        shot = self.scratch / "shot.png"
        command(*CHROMIUM, f"--user-data-dir={self.scratch}/profile", "--virtual-time-budget=5000",
                f"--screenshot={shot}", f"file://{page}", timeout=120)
        self.assertGreater(shot.stat().st_size, 15000, "an empty page compresses to less")


if __name__ == "__main__":
    junit_unittest.main()
