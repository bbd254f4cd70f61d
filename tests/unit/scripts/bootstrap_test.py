"""scripts/bootstrap with dpkg-query and apt-get of our own making: it installs what is missing, and only that."""

import os
import pathlib
import shutil
import subprocess
import tempfile
import time
import unittest

import junit_unittest

TOP = pathlib.Path(__file__).resolve().parents[3]
# What dpkg-query prints and answers for packages named in the file `installed`; apt-get adds to that file.
DPKG_QUERY = """#!/bin/bash
shift 3; code=0
for name in "$@"; do if grep -qx "$name" {folder}/installed; then echo "installed $name"; else code=1; fi; done
exit $code
"""
APT_GET = """#!/bin/bash
echo "apt-get $*" >>{folder}/calls
echo "output of apt-get"
[ ! -e {folder}/broken ] || exit 100
for word in "$@"; do echo "$word" >>{folder}/installed; done
"""


class Bootstrap(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = pathlib.Path(scratch.name)
        (self.folder / "bin").mkdir()
        for name, text in (("dpkg-query", DPKG_QUERY), ("apt-get", APT_GET), ("node", "#!/bin/sh\n"), ("npm", "#!/bin/sh\n"),
                           ("sudo", "#!/bin/sh\nexit 1\n")):
            (self.folder / "bin" / name).write_text(text.format(folder=self.folder))
            (self.folder / "bin" / name).chmod(0o755)
        for name in ("installed", "calls"):
            (self.folder / name).touch()
            (self.folder / name).chmod(0o666)
        self.folder.chmod(0o777)

    def bootstrap(self, *arguments, prefix=()):
        path = f"{self.folder}/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return subprocess.run([*prefix, TOP / "scripts/bootstrap", *arguments], capture_output=True, text=True, check=False,
                              stdin=subprocess.DEVNULL, env={"PATH": path, "HOME": str(self.folder)})

    def need_root(self):
        if os.geteuid() != 0:
            self.skipTest("needs root: who is not may not install")

    def test_installs_what_is_missing_then_nothing(self):
        self.need_root()
        first = self.bootstrap()
        self.assertEqual(first.returncode, 0, first)
        calls = (self.folder / "calls").read_text().splitlines()
        self.assertEqual(len(calls), 2, calls)
        self.assertTrue(calls[0].startswith("apt-get update"))
        self.assertIn("--no-install-recommends", calls[1])
        self.assertIn(" librocksdb-dev", calls[1])
        self.assertNotIn("nodejs", calls[1], "node and npm were there")
        self.assertNotIn("chromium", calls[1], "only --dev wants it")

        started = time.monotonic()
        second = self.bootstrap()
        self.assertEqual((second.returncode, second.stdout, second.stderr), (0, "", ""))
        self.assertLess(time.monotonic() - started, 1)
        self.assertEqual((self.folder / "calls").read_text().splitlines(), calls)

        (self.folder / "installed").write_text((self.folder / "installed").read_text().replace("bpftool\n", ""))
        third = self.bootstrap()
        self.assertEqual(third.returncode, 0, third)
        self.assertTrue((self.folder / "calls").read_text().splitlines()[-1].endswith(" bpftool"))

    def test_dev_wants_more(self):
        self.need_root()
        self.assertEqual(self.bootstrap("--dev").returncode, 0)
        self.assertIn("chromium", (self.folder / "calls").read_text())

    def test_a_failed_installation_shows_why(self):
        self.need_root()
        (self.folder / "broken").touch()
        result = self.bootstrap()
        self.assertEqual(result.returncode, 1)
        self.assertIn("output of apt-get", result.stdout)

    def test_a_package_that_does_not_arrive(self):
        self.need_root()
        (self.folder / "bin/apt-get").write_text("#!/bin/sh\n")
        result = self.bootstrap()
        self.assertEqual(result.returncode, 1)
        self.assertIn("still missing", result.stderr)

    def test_without_rights_it_says_what_to_run(self):
        self.need_root()
        if shutil.which("setpriv") is None:
            self.skipTest("needs setpriv")
        if subprocess.run(["setpriv", "--reuid=65534", "test", "-x", TOP / "scripts/bootstrap"], check=False).returncode:
            self.skipTest("the working tree is not readable for others")
        result = self.bootstrap(prefix=("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"))
        self.assertEqual(result.returncode, 1, result)
        self.assertIn("apt-get install -y --no-install-recommends", result.stderr)
        self.assertEqual((self.folder / "calls").read_text(), "")

    def test_unknown_argument(self):
        self.assertEqual(self.bootstrap("--frobnicate").returncode, 2)


if __name__ == "__main__":
    junit_unittest.main()
