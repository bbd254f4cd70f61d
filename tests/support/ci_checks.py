"""Checks of `pyrometer ci` by the hundred, for tests/bench/ci_silence, ci_power and ci_debian.

Results lie in a file of one JSON object a line, so that a campaign of hours can be ended at any time and taken up again: a
check that was not written down is run anew.
"""

import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

GATE = 1.02  # of the baseline's mean CPU time: the usual gate on a total


def at_most(hits, trials, rate):
    """The probability of `hits` or fewer of `trials` at a rate."""
    return sum(math.comb(trials, k) * rate**k * (1 - rate) ** (trials - k) for k in range(hits + 1))


def upper_bound(hits, trials, confidence=0.95):
    """Clopper-Pearson, one-sided: the rate at which `hits` or fewer of `trials` have probability 1 - confidence."""
    if hits >= trials:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if at_most(hits, trials, middle) > 1 - confidence else (low, middle)
    return high


def binomial_bounds(hits, trials, confidence=0.95):
    """Clopper-Pearson, two-sided: (low, high)."""
    one_sided = (1 + confidence) / 2
    return 1 - upper_bound(trials - hits, trials, one_sided), upper_bound(hits, trials, one_sided)


def gate_alarms(report):
    """Would a gate on the mean CPU time have failed these runs?"""
    total = report["total_cpu"]
    return bool(total["tested"]) and total["candidate_samples"] > GATE * total["baseline_samples"]


def run_check(binary, baseline, candidate, *arguments):
    """The report of one check. Ends the program when the check fails (exit code 1 or 2)."""
    with tempfile.TemporaryDirectory(prefix="ci-checks-") as folder:
        path = pathlib.Path(folder) / "report.json"
        command = [str(binary), "ci", "run", "--baseline", baseline, "--candidate", candidate, "-o", str(path), *map(str, arguments)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            _, errors = process.communicate()
        except BaseException:
            process.send_signal(signal.SIGINT)  # it ends the command that it runs
            process.wait()
            raise
        if process.returncode not in (0, 3, 4):
            sys.exit(f"{' '.join(command)}: exit code {process.returncode}: {errors}")
        return json.loads(path.read_text())


class Campaign:
    """Results by key, kept in a file. `key` is a text; equal keys are repeats of one experiment."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.results = {}
        if self.path.exists():
            for line in self.path.read_text().splitlines():
                try:
                    result = json.loads(line)
                except ValueError:
                    continue  # the last line of a campaign that was cut off
                self.results.setdefault(result["key"], []).append(result)

    def count(self, key):
        return len(self.results.get(key, []))

    def add(self, key, report, **more):
        first = report["findings"][0]["function"] if report["findings"] else None
        result = {"key": key, "decision": report["decision"], "first": (first or {}).get("name", "") if report["findings"] else "",
                  "moved": len(report["moved"]), "detectable": report["detectable_share"], "gate": gate_alarms(report),
                  "run_cpu_ns": report["run_cpu_ns"], "samples": report["samples"], "pairs": report["runs"]["baseline"],
                  "load": round(os.getloadavg()[0], 1), "seed": report["seed"], **more}
        self.results.setdefault(key, []).append(result)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")
        return result


def end_on_sigterm():
    """Ended from outside, a campaign ends its commands too."""

    def interrupt(*_):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
