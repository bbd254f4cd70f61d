"""Adds up the results of a test run and prints them for people.

    test_report.py --ctest ctest.xml --tests tests.json --cases FOLDER [--doctor doctor.json]

CTest knows whole programs; most of ours are GoogleTest programs of many cases, a case of which may
skip itself. Every program that writes a JUnit file named after its CTest test into --cases is
counted by case; any other CTest test counts as one. A program that failed although none of its
cases did (it crashed, hung, or could not write its file) adds one failure.

The last line is "N passed, N failed, N skipped". Ends with 1 when something failed, when nothing
ran, and when kernel tests were skipped although `pyrometer doctor --json` says that they could run.
"""

import argparse
import collections
import json
import pathlib
import re
import sys
import xml.etree.ElementTree as ElementTree

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
Case = collections.namedtuple("Case", "label name outcome detail seconds")


def first_line(text):
    """What a reader wants of a skip or failure message: its first line that says something."""
    for line in (text or "").splitlines():
        line = line.strip()
        # GoogleTest puts the place first, and a word.
        if line and not re.fullmatch(r"\S+:\d+:?", line) and line not in ("Skipped", "Failed", "Failure"):
            return line
    return ""


def read_cases(path, label):
    """Cases of one JUnit file."""
    cases = []
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        if case.get("status") == "notrun":  # disabled
            continue
        name = f'{case.get("classname", "")}.{case.get("name", "")}'.strip(".")
        outcome, detail = PASSED, ""
        for kind, result in (("failure", FAILED), ("error", FAILED), ("skipped", SKIPPED)):
            element = case.find(kind)
            if element is not None:
                outcome = result
                detail = first_line(element.text) or first_line(element.get("message")) or element.get("message", "")
                break
        cases.append(Case(label, name, outcome, detail, float(case.get("time") or 0)))
    return cases


def read_lines(path, label):
    """Cases of a runner that prints "ok   NAME (123 ms)" and "FAIL NAME", the reason indented below."""
    cases, lines = [], path.read_text(errors="replace").splitlines()
    for number, line in enumerate(lines):
        word, _, name = line.partition(" ")
        if word == "ok":
            cases.append(Case(label, re.sub(r" \(\d+ ms\)$", "", name.strip()), PASSED, "", 0))
        elif word == "FAIL":
            below = lines[number + 1].strip() if number + 1 < len(lines) else ""
            cases.append(Case(label, name.strip(), FAILED, below, 0))
    return cases


def read_ctest(path, labels, folder):
    """All cases of a run: the CTest result file, each program's own file where there is one."""
    cases = []
    for test in ElementTree.parse(path).getroot().iter("testcase"):
        name = test.get("name")
        label = labels.get(name, "other")
        output = test.findtext("system-out") or ""
        failed = test.find("failure") is not None or test.get("status") == "fail"
        not_run = test.find("skipped") is not None or test.get("status") in ("notrun", "disabled")
        own = []
        for file in sorted(folder.glob(f"{name}.xml")):
            try:
                own += read_cases(file, label)
            except ElementTree.ParseError:
                failed = True
        cases += own
        seconds = float(test.get("time") or 0)
        if failed and not any(case.outcome == FAILED for case in own):
            last = [line for line in output.splitlines() if line.strip()][-1:]
            cases.append(Case(label, name, FAILED, "the program failed: " + "".join(last), seconds))
        elif not own:
            detail = ""
            if not_run:
                detail = next((line for line in output.splitlines() if "SKIP" in line.upper()), "") or "not run"
            cases.append(Case(label, name, SKIPPED if not_run else PASSED, detail, seconds))
    return cases


def read_labels(path):
    """CTest's `--show-only=json-v1`: name -> first label."""
    labels = {}
    for test in json.loads(path.read_text())["tests"]:
        for item in test.get("properties", []):
            if item["name"] == "LABELS" and item["value"]:
                labels[test["name"]] = item["value"][0]
    return labels


def contradiction(cases, doctor):
    """What is wrong with kernel tests that skipped, held against the doctor's findings; "" when nothing is."""
    states = {item.get("name"): item.get("state") for item in doctor.get("features", [])}
    if states.get("bpf_perf_event") != "ok" or states.get("ring_buffer") != "ok":
        return ""
    kernel = [case for case in cases if case.label == "kernel"]
    skips = [case for case in kernel if case.outcome == SKIPPED]
    if skips and not any(case.outcome == PASSED for case in kernel):
        return "the doctor says that BPF works here, yet no kernel test ran"
    for case in skips:
        # Reasons of missing features read "name: why".
        if states.get(case.detail.split(":")[0]) == "ok" or "needs root" in case.detail:
            return f"{case.name} skipped ({case.detail}), but the doctor says that this works here"
    return ""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ctest", type=pathlib.Path, required=True)
    parser.add_argument("--tests", type=pathlib.Path, required=True, help="ctest --show-only=json-v1")
    parser.add_argument("--cases", type=pathlib.Path, required=True)
    parser.add_argument("--more", type=pathlib.Path, nargs="*", default=[], help="LABEL.xml: JUnit files of other runners")
    parser.add_argument("--lines", type=pathlib.Path, nargs="*", default=[], help="LABEL.log: see read_lines")
    parser.add_argument("--doctor", type=pathlib.Path)
    arguments = parser.parse_args()

    cases = read_ctest(arguments.ctest, read_labels(arguments.tests), arguments.cases)
    for path in arguments.more:
        cases += read_cases(path, path.stem)
    for path in arguments.lines:
        cases += read_lines(path, path.stem)

    counts = collections.defaultdict(collections.Counter)
    for case in cases:
        counts[case.label][case.outcome] += 1

    failures = [case for case in cases if case.outcome == FAILED]
    skips = [case for case in cases if case.outcome == SKIPPED]
    complaint = ""
    if arguments.doctor:
        complaint = contradiction(cases, json.loads(arguments.doctor.read_text()))
    if not cases:
        complaint = "no test ran"

    print(f'{"label":<12}{PASSED:>8}{FAILED:>8}{SKIPPED:>9}')
    for label in sorted(counts):
        row = counts[label]
        print(f"{label:<12}{row[PASSED]:>8}{row[FAILED]:>8}{row[SKIPPED]:>9}")
    for case in skips:
        print(f"skipped: {case.label}: {case.name}: {case.detail or 'no reason given'}")
    for case in failures:
        print(f"failed: {case.label}: {case.name}: {case.detail}")
    if complaint:
        print(f"failed: {complaint}")
    total = collections.Counter(case.outcome for case in cases)
    failed = total[FAILED] + (1 if complaint else 0)
    print(f"{total[PASSED]} passed, {failed} failed, {total[SKIPPED]} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
