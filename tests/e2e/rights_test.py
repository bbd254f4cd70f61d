"""Without the rights for BPF every command says what is missing and what to do; `record -- CMD` falls back."""

import json
import os
import pathlib
import shutil

import junit_unittest
from harness import BINARY, Scratch, WORKLOADS, command, free_port, need_program, need_root

NOBODY = 65534
PARANOID = pathlib.Path("/proc/sys/kernel/perf_event_paranoid")


class NoRights(Scratch):
    def setUp(self):
        super().setUp()
        need_root(self)  # to become somebody who is not
        need_program(self, "setpriv")
        os.chmod(self.scratch, 0o777)
        for program in (BINARY, WORKLOADS / "spin_fp"):
            shutil.copy2(program, self.scratch)
            os.chmod(self.scratch / pathlib.Path(program).name, 0o755)

    def as_nobody(self, *arguments, timeout=60):
        return command("setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--bounding-set", "-all",
                       "--inh-caps", "-all", "--no-new-privs", "env", f"HOME={self.scratch}", self.scratch / "pyrometer",
                       *arguments, cwd=self.scratch, timeout=timeout)

    def set_paranoid(self, value):
        before = PARANOID.read_text()
        try:
            PARANOID.write_text(str(value))
        except OSError as error:
            self.skipTest(f"cannot set {PARANOID}: {error}")
        self.addCleanup(PARANOID.write_text, before)

    def assert_says_what_to_do(self, result):
        """Exit code 1, one line, with what is missing and the remedy."""
        self.assert_one_line(result, 1)
        self.assertRegex(result.stderr, r"CAP_|root|capabilit", result)
        self.assertRegex(result.stderr, r"root|sudo|setcap", result)

    def test_up(self):
        ports = ("--http", f"127.0.0.1:{free_port()}", "--grpc", f"127.0.0.1:{free_port()}")
        self.assert_says_what_to_do(self.as_nobody("up", "--data", self.scratch / "data", *ports))

    def test_agent(self):
        self.assert_says_what_to_do(
            self.as_nobody("agent", "--store", f"127.0.0.1:{free_port()}", "--spool", self.scratch / "spool"))

    def test_record_of_everything(self):
        self.assert_says_what_to_do(self.as_nobody("record", "--all", "-d", "1s", "-o", self.scratch / "x.html"))
        self.assertFalse((self.scratch / "x.html").exists())

    def test_record_of_a_container(self):
        self.assert_says_what_to_do(self.as_nobody("record", "--container", "shop", "-d", "1s"))

    def test_record_of_a_command_falls_back(self):
        self.set_paranoid(2)
        result = self.as_nobody("record", "-o", self.scratch / "x.folded", "--", self.scratch / "spin_fp", "2")
        self.assertEqual(result.returncode, 0, result)
        text = (self.scratch / "x.folded").read_text()
        self.assertIn("hot_a", text)
        self.assertIn("main;work", text.replace("(unsigned long, unsigned long)", ""))
        self.assertRegex(result.stdout + result.stderr, r"(?i)without|unprivileged|perf event", "it says how it measured")

    def test_record_of_a_command_where_perf_is_closed(self):
        self.set_paranoid(3)
        result = self.as_nobody("record", "-o", self.scratch / "x.folded", "--", self.scratch / "spin_fp", "1")
        if result.returncode == 0:
            self.skipTest("this kernel treats perf_event_paranoid=3 as 2 (only some distributions' kernels know 3)")
        self.assert_one_line(result, 1, "perf_event_paranoid")
        self.assertFalse((self.scratch / "x.folded").exists())

    def test_doctor_names_state_effect_and_remedy(self):
        result = self.as_nobody("doctor", "--json")
        self.assertEqual(result.returncode, 0, result)
        report = json.loads(result.stdout)
        features = {item["name"]: item for item in report["features"]}
        self.assertEqual(features["bpf_perf_event"]["state"], "missing")
        self.assertEqual(features["cap_bpf"]["state"], "missing")
        for item in features.values():
            self.assertTrue(item["title"], item)
            if item["state"] != "ok":
                self.assertTrue(item["effect"], item)
            if item["name"].startswith("cap_") and item["state"] == "missing":
                self.assertTrue(item["remedy"], item)
        text = self.as_nobody("doctor")
        self.assertEqual(text.returncode, 0)
        self.assertIn("remedy:", text.stdout)

    def test_what_needs_no_rights_works(self):
        (self.scratch / "in.folded").write_text("main;work 3\n")
        os.chmod(self.scratch / "in.folded", 0o644)
        result = self.as_nobody("convert", "in.folded", "out.pb.gz")
        self.assertEqual(result.returncode, 0, result)
        result = self.as_nobody("top", "--store", f"127.0.0.1:{free_port()}")
        self.assert_one_line(result, 1, "127.0.0.1")
        self.assertNotIn("CAP_", result.stderr)


if __name__ == "__main__":
    junit_unittest.main()
