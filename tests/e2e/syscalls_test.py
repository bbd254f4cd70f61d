"""System calls of a container: exact counts, quantiles near the truth, and the same numbers as strace."""

import json
import os
import re
import signal
import subprocess
import time
import urllib.parse

import junit_unittest
from harness import (Container, Daemon, Scratch, WORKLOADS, command, free_port, get_json, need_bpf, need_program,
                     need_runc, run, wait_for)

GETPPID, SLEEPS, READS, BAD_CLOSES = 12345, 60, 200, 7
HANGS_S = 45  # longer than two windows and their way to the store
FLUSHED = 13  # a window of 10 s, and its way to the store


def quantile(before, after, q):
    """Middle of the bucket that holds the quantile of what came between two readings of one histogram."""
    earlier = {(low, high): count for low, high, count in before.get("buckets", [])}
    rows = [(low, high, count - earlier.get((low, high), 0)) for low, high, count in after["buckets"]]
    left = q * sum(count for _, _, count in rows)
    for low, high, count in rows:
        left -= count
        if left <= 0 and count:
            return (low + high) / 2
    raise AssertionError("an empty histogram has no quantiles")


class Syscalls(Scratch):
    def setUp(self):
        super().setUp()
        need_bpf(self)
        need_runc(self)

    def calls(self, container):
        """Call -> histogram of the container so far."""
        query = urllib.parse.quote(f'syscall_latency{{container.name="{container}"}}')
        rows = get_json(f"http://127.0.0.1:{self.http}/api/v1/histograms?query={query}&by=syscall&from=-1h")["histograms"]
        return {row["labels"]["syscall"]: row for row in rows}

    def run_mix(self, name, while_waiting=lambda container: None):
        """Runs the mix in a container; what it did between its start and its end, by call."""
        reader, writer = os.pipe()
        try:
            with Container(name, WORKLOADS / "syscall_mix_static", "--wait", GETPPID, SLEEPS, READS, BAD_CLOSES,
                           stdin=reader) as container:
                time.sleep(FLUSHED)  # runc's own calls in the container's cgroup are in an earlier window
                before = self.calls(name)
                while_waiting(container)
                os.close(writer)
                writer = -1
                container.wait(60)
                self.assertIn("done", container.output())
        finally:
            os.close(reader)
            if writer >= 0:
                os.close(writer)
        time.sleep(FLUSHED)
        after = self.calls(name)
        count = lambda rows, call: rows.get(call, {}).get("count", 0)
        return {call: count(after, call) - count(before, call) for call in after}, before, after

    def test_counts_and_quantiles(self):
        self.http, grpc = free_port(), free_port()
        with Daemon("up", "--data", self.scratch, "--http", f"127.0.0.1:{self.http}", "--grpc", f"127.0.0.1:{grpc}") as up:
            up.wait_for_line("http://")
            counts, before, after = self.run_mix("pyrometer-e2e-calls")
            print(f"  {counts}")
            self.assertEqual(counts["getppid"], GETPPID)
            self.assertEqual(counts["nanosleep"], SLEEPS)
            self.assertEqual(counts["read"], READS)
            bad = lambda rows: rows.get("close", {}).get("errors", {}).get("EBADF", 0)
            self.assertEqual(bad(after) - bad(before), BAD_CLOSES)

            # The sleeps take 20 ms and what the scheduler adds; a bucket is 1/16 wide. runc's own short sleeps in the
            # container's cgroup were before.
            p50 = {call: quantile(before.get(call, {}), after[call], 0.5) for call in ("nanosleep", "read", "getppid")}
            print(f"  p50: nanosleep {p50['nanosleep'] / 1e6:.2f} ms, read {p50['read'] / 1e6:.2f} ms, "
                  f"getppid {p50['getppid']} ns")
            self.assertGreaterEqual(p50["nanosleep"], 20e6 * 15 / 16)
            self.assertLess(p50["nanosleep"], 22e6 * 17 / 16)
            # A byte each 5 ms.
            self.assertAlmostEqual(p50["read"], 5e6, delta=0.6e6)
            self.assertLess(p50["getppid"], 20e3)

            # The slow ones can be asked for their stacks.
            query = urllib.parse.quote('syscall_latency{container.name="pyrometer-e2e-calls",syscall="nanosleep"}')
            reply = get_json(f"http://127.0.0.1:{self.http}/api/v1/exemplars?query={query}&minNs=15000000&from=-1h")
            url = f"http://127.0.0.1:{self.http}/api/v1/exemplars?query={query}&minNs=15000000&from=-1h"
            # They travel a window later than the sums when the machine is busy.
            wait_for(lambda: get_json(url)["exemplars"], 30, "exemplars of slow calls", every=1)
            reply = get_json(url)
            self.assertGreaterEqual(reply["exemplars"][0]["durationNs"], 20e6)
            self.assertTrue(any("main" in frame for frame in reply["exemplars"][0]["frames"]), reply["exemplars"][0])

    def test_a_call_that_hangs_is_seen_while_it_hangs(self):
        self.http, grpc = free_port(), free_port()
        name = "pyrometer-e2e-hangs"
        selector = f'{{container.name="{name}"}}'

        def calls():
            """By call, as `pyrometer syscalls` has them of the last 5 minutes."""
            reply = run("syscalls", selector, "--store", f"127.0.0.1:{grpc}", "--from", "-5m", "--rows", "0", "--json")
            self.assertEqual(reply.returncode, 0, reply)
            return {row["labels"]["syscall"]: row for row in json.loads(reply.stdout)}

        reader, writer = os.pipe()
        try:
            with Container(name, WORKLOADS / "waits_static", "pipe", 1, HANGS_S * 1_000_000, stdin=reader) as container, \
                    Daemon("up", "--data", self.scratch, "--http", f"127.0.0.1:{self.http}", "--grpc",
                           f"127.0.0.1:{grpc}") as up:
                up.wait_for_line("http://")
                # It waits for its input since before the agent came.
                before = wait_for(lambda: {call: row for call, row in calls().items() if row["inFlight"]}, 40,
                                  "a call older than the agent", every=1)
                self.assertEqual([(call, row["inFlight"]) for call, row in before.items()], [("pselect6", 1)])  # select of glibc
                begun = time.monotonic()
                os.close(writer)
                writer = -1
                look = lambda: (found := calls().get("read", {})).get("inFlight") and found
                first = wait_for(look, 30, "the read that hangs", every=1)
                second = wait_for(lambda: (found := look()) and found["oldestNs"] > first["oldestNs"] and found, 30,
                                  "the read that still hangs", every=1)
                print(f"  after {time.monotonic() - begun:.1f} s: {second}")
                self.assertEqual(second["inFlight"], 1)
                self.assertEqual(second["calls"], first["calls"])  # runc's own, if any: this one has not returned
                self.assertGreater(second["oldestNs"], 5e9)
                self.assertLess(second["oldestNs"], (time.monotonic() - begun) * 1e9)
                self.assertLess(second["totalNs"], 1e9)
                table = run("syscalls", selector, "--store", f"127.0.0.1:{grpc}", "--from", "-5m")
                self.assertRegex(table.stdout, r"in flight +oldest")
                self.assertRegex(table.stdout, rf"{name} +read .* 1 +\d+\.\d\d s ")
                query = urllib.parse.quote(f"syscall_open{selector}")
                rows = get_json(f"http://127.0.0.1:{self.http}/api/v1/histograms?query={query}&by=syscall&latest=1")
                self.assertEqual({row["labels"]["syscall"]: row["count"] for row in rows["histograms"]},
                                 {"read": 1, "nanosleep": 1})
                container.wait(HANGS_S + 30)
                # Now it has returned: a call as any other, and nothing in flight.
                after = wait_for(lambda: (found := calls()["read"])["calls"] > second["calls"] and found, 30,
                                 "the read that returned", every=1)
                self.assertGreater(after["totalNs"], HANGS_S * 1e9 * 15 / 16)
                self.assertEqual(sum(row["inFlight"] for row in calls().values()), 0)
        finally:
            os.close(reader)
            if writer >= 0:
                os.close(writer)

    def test_agrees_with_strace(self):
        need_program(self, "strace")
        self.http, grpc = free_port(), free_port()
        with Daemon("up", "--data", self.scratch, "--http", f"127.0.0.1:{self.http}", "--grpc", f"127.0.0.1:{grpc}") as up:
            up.wait_for_line("http://")
            strace = []

            def attach(container):
                report = self.scratch / "strace"
                process = subprocess.Popen(["strace", "-c", "-w", "-o", report, "-p", str(container.pid)],
                                           stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                           text=True)
                strace.append((process, report))
                self.assertIn("attached", process.stderr.readline())

            counts, before, after = self.run_mix("pyrometer-e2e-strace", attach)
            process, report = strace[0]
            process.wait(10)
            process.stderr.close()
            theirs = {}
            for line in report.read_text().splitlines():
                fields = line.split()
                if len(fields) >= 5 and re.fullmatch(r"[\d.]+", fields[0]) and fields[-1] != "total":
                    theirs[fields[-1]] = (int(fields[3]), float(fields[1]))
            for call, expected in (("getppid", GETPPID), ("nanosleep", SLEEPS), ("read", READS)):
                self.assertEqual(theirs[call][0], expected)
                self.assertEqual(counts[call], expected)
            # Mean of the sleeps, ours and theirs; strace adds its own stops to both.
            ours = (after["nanosleep"]["sum"] - before.get("nanosleep", {}).get("sum", 0)) / SLEEPS
            print(f"  nanosleep mean: ours {ours / 1e6:.2f} ms, strace {theirs['nanosleep'][1] / SLEEPS * 1e3:.2f} ms")
            self.assertAlmostEqual(ours / 1e9, theirs["nanosleep"][1] / SLEEPS, delta=0.002)


if __name__ == "__main__":
    junit_unittest.main()
