"""Runs Python's unittest and writes a JUnit file that scripts/test adds up.

    if __name__ == "__main__":
        junit_unittest.main()

The file is $PYROMETER_TEST_RESULTS/NAME.xml, none when that variable is not set; NAME is
$PYROMETER_TEST_NAME, which must be CTest's name of the test, or else the script's name.
Arguments are unittest's own. Exit code 0 when nothing failed.
"""

import os
import pathlib
import sys
import time
import unittest
import xml.etree.ElementTree as ElementTree


class _Result(unittest.TextTestResult):
    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.cases = []
        self._started = 0.0

    def startTest(self, test):
        self._started = time.monotonic()
        super().startTest(test)

    def _add(self, test, kind="", text=""):
        parts = test.id().split(".")
        self.cases.append((parts[-2] if len(parts) > 1 else "", parts[-1], time.monotonic() - self._started, kind, text))

    def addSuccess(self, test):
        self._add(test)
        super().addSuccess(test)

    def addFailure(self, test, err):
        self._add(test, "failure", f"{err[0].__name__}: {err[1]}")
        super().addFailure(test, err)

    def addError(self, test, err):
        self._add(test, "error", f"{err[0].__name__}: {err[1]}")
        super().addError(test, err)

    def addSkip(self, test, reason):
        self._add(test, "skipped", reason)
        super().addSkip(test, reason)

    def addSubTest(self, test, subtest, err):
        if err is not None:
            self._add(subtest, "failure", f"{err[0].__name__}: {err[1]}")
        super().addSubTest(test, subtest, err)


def _write(path, cases):
    suite = ElementTree.Element("testsuite", name=path.stem)
    for group, name, seconds, kind, text in cases:
        case = ElementTree.SubElement(suite, "testcase", classname=group, name=name, time=f"{seconds:.3f}")
        if kind:
            clean = "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)
            ElementTree.SubElement(case, kind, message=clean.splitlines()[0] if clean else "").text = clean
    ElementTree.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)


def main():
    program = unittest.main(
        module="__main__", exit=False,
        testRunner=unittest.TextTestRunner(resultclass=_Result, verbosity=2))
    folder = os.environ.get("PYROMETER_TEST_RESULTS")
    if folder:
        name = os.environ.get("PYROMETER_TEST_NAME") or pathlib.Path(sys.argv[0]).stem
        _write(pathlib.Path(folder) / f"{name}.xml", program.result.cases)
    sys.exit(0 if program.result.wasSuccessful() else 1)
