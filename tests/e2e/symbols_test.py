"""Names of stripped binaries: symbols that come later, and what doctor says about one process."""

import json
import os
import re
import subprocess
import urllib.parse

import junit_unittest
from harness import Daemon, Scratch, background, free_port, get_json, need_bpf, need_program, run, wait_for

SOURCE = """
#include <stdlib.h>
static volatile unsigned long sink;
__attribute__((noinline)) void late_inner(unsigned long n) { for (unsigned long i = 0; i < n; ++i) sink += i * i; }
__attribute__((noinline)) void late_outer(unsigned long n) { late_inner(n); __asm__ volatile(""); }
int main(void) { for (;;) late_outer(1000000); }
"""


class Symbols(Scratch):
    def build(self):
        need_program(self, "gcc", "strip", "objcopy")
        source = self.scratch / "late.c"
        source.write_text(SOURCE)
        full, stripped, debug = self.scratch / "late.full", self.scratch / "late", self.scratch / "late.debug"
        subprocess.run(["gcc", "-O2", "-g", "-Wl,--build-id=sha1", "-o", full, source], check=True)
        subprocess.run(["objcopy", "--only-keep-debug", full, debug], check=True)
        subprocess.run(["strip", "-s", "-o", stripped, full], check=True)
        return stripped, debug

    def test_uploaded_symbols_name_old_samples(self):
        need_bpf(self)
        stripped, debug = self.build()
        http, grpc = free_port(), f"127.0.0.1:{free_port()}"
        flame = f"http://127.0.0.1:{http}/api/v1/flame?query=" + urllib.parse.quote('cpu{comm="late"}')
        with Daemon("up", "--data", self.scratch / "data", "--cache", self.scratch / "cache", "--http", f"127.0.0.1:{http}",
                    "--grpc", grpc, "--probes", "cpu") as up:
            up.wait_for_line(r"^http://\S+")
            with background(stripped):
                wait_for(lambda: any(s.startswith("late+0x") for s in get_json(flame)["strings"]), 40,
                         "nameless samples of the stripped program", every=1)
            upload = run("symbols", "upload", "--store", grpc, debug)
            self.assertEqual(upload.returncode, 0, upload)
            self.assertRegex(upload.stdout, r"build ID [0-9a-f]{40}, .* functions with lines")
            strings = get_json(flame)["strings"]
            self.assertIn("late_inner", strings)
            self.assertIn("late_outer", strings)
            self.assertTrue(any(s.endswith("late.c") for s in strings), "source files")
            self.assertFalse([s for s in strings if s.startswith("late+0x")])
            top = run("top", "cpu{comm=\"late\"}", "--store", grpc)
            self.assertIn("late_inner", top.stdout)
            # What cannot name anything is refused; the rest is taken.
            text = self.scratch / "notes.txt"
            text.write_text("no symbols here\n")
            refused = run("symbols", "upload", "--store", grpc, text, stripped, debug)
            self.assertEqual(refused.returncode, 1, refused)
            self.assertIn("no ELF file", refused.stderr)
            self.assertIn("stripped", refused.stderr)
            self.assertIn("replaces an earlier upload", refused.stdout)
            self.assert_one_line(run("symbols", "upload", "--store", grpc, self.scratch / "absent"), 1, "absent")
            self.assertEqual(up.stop(), 0)
        # They are still there after a restart.
        with Daemon("up", "--data", self.scratch / "data", "--cache", self.scratch / "cache", "--http", f"127.0.0.1:{http}",
                    "--grpc", grpc, "--probes", "cpu") as up:
            up.wait_for_line(r"^http://\S+")
            self.assertIn("late_inner", get_json(flame)["strings"])

    def test_doctor_explains_one_process(self):
        stripped, _ = self.build()
        with background(stripped) as process:
            result = run("doctor", "--pid", str(process.pid), "--json")
            self.assertEqual(result.returncode, 0, result)
            code = {os.path.basename(c["name"]): c for c in json.loads(result.stdout)["code"]}
            self.assertIn("unwind table", code["late"]["unwinding"])
            self.assertIn("no names", code["late"]["missing"])
            self.assertRegex(code["late"]["buildId"], r"^[0-9a-f]{40}$")
            libc = next(c for name, c in code.items() if name.startswith("libc"))
            self.assertEqual(libc["package"], "libc6")
            text = run("doctor", "--pid", str(process.pid)).stdout
            self.assertIn(str(stripped), text)
            self.assertIn("unwind table", text)
        self.assert_one_line(run("doctor", "--pid", "4194000"), 1, "no process")
        self.assertEqual(run("doctor", "--pid", "x").returncode, 2)

    def test_trust_report(self):
        need_bpf(self)
        stripped, _ = self.build()
        out = self.scratch / "p.json"
        with background(stripped) as process:
            result = run("record", "--pid", str(process.pid), "-d", "3s", "-F", "199", "-o", out)
        self.assertEqual(result.returncode, 0, result)
        accounting = json.loads(out.read_text())["accounting"]
        self.assertGreater(accounting["taken"], 0)
        # The kernel's account of the process's CPU time, in ticks of 10 ms, at both ends.
        self.assertAlmostEqual(accounting["expected"], accounting["taken"], delta=max(20, accounting["taken"] * 0.1))
        self.assertEqual(sum(accounting["means"].values()), sum(accounting["stopReasons"].values())
                         - accounting["stopReasons"].get("not_taken", 0))
        self.assertGreater(accounting["means"]["unwind tables"], 0.9 * accounting["taken"])
        self.assertGreaterEqual(accounting["frames"], 2 * accounting["taken"])
        self.assertTrue(re.search(r"taken of [\d,]+ expected from CPU time", result.stdout), result.stdout)
        self.assertIn("whole", result.stdout)
        self.assertIn("unwound by unwind tables", result.stdout)

    def test_what_is_expected_of_the_machine(self):
        """Only while samples were taken: not while a new binary's tables and names are made afterwards."""
        need_bpf(self)
        stripped, _ = self.build()  # a binary that no cache knows
        out = self.scratch / "all.json"
        with background(stripped):
            self.assertEqual(run("record", "--all", "-d", "3s", "-o", out).returncode, 0)
        profile = json.loads(out.read_text())
        self.assertAlmostEqual(profile["durationNs"], 3e9, delta=0.2e9)
        accounting = profile["accounting"]
        self.assertAlmostEqual(accounting["expected"], accounting["taken"], delta=max(20, accounting["taken"] * 0.1))


if __name__ == "__main__":
    junit_unittest.main()
