"""System calls and waits of containers, as `pyrometer syscalls` and `waits` tell them, against what each container's program
measured of itself in the same run: every call by its own clock, its CPU time, its time in run queues and its switches by
the kernel's accounts, and the quota's throttling by the cgroup's cpu.stat.

Six containers, all at once: they must not be mixed up either.
"""

import json
import math
import os
import pathlib
import tempfile
import time
import urllib.parse

import junit_unittest
from harness import Container, Daemon, Scratch, WORKLOADS, free_port, get_json, need_bpf, need_runc, run, wait_for

PREFIX = "pyrometer-e2e-truth-"
WINDOW = 10  # seconds, the daemon's own
QUIET = 1.5  # after which runc has done what it does in the container's cgroup
LATE = 3  # the agent may close a window this much later, where the machine is busy: sums are of what came before that
QUEUES = ("runnable", "throttled")
# From a wake-up, where our queue begins, to the run queue, where the kernel's account does: a halted virtual processor is
# woken in between.
WAKING_NS = 100e3

# mode: arguments, call, cause
PIPE, CONVOY, SLEEP = (150, 8000), (30, 8000), (200, 6000)
KINDS = {
    "sleep": (SLEEP, "nanosleep", "timer"),
    "pipe": (PIPE, "read", "poll"),
    "convoy": (CONVOY, "futex", "lock"),
    "fsync": ((60,), "fsync", "block_io"),
    "touch": ((300,), None, "page_fault"),
    "spin": ((1, 400000), "getppid", None),
}
QUOTA = {"cpu": {"quota": 10000, "period": 100000}}
IO_PER_S = 200


def resources(kind):
    """A tenth of a processor for one; a slow disk for those that wait for it, so that their waits are milliseconds everywhere."""
    device = os.stat(tempfile.gettempdir()).st_dev
    slow = [{"major": os.major(device), "minor": os.minor(device), "rate": IO_PER_S}]
    return {"spin": QUOTA, "fsync": {"blockIO": {"throttleWriteIOPSDevice": slow}},
            "touch": {"blockIO": {"throttleReadIOPSDevice": slow}}}.get(kind)


def here():
    """Which kinds this machine can have."""
    on_disk = os.major(os.stat(tempfile.gettempdir()).st_dev) != 0
    return [kind for kind in KINDS if on_disk or kind not in ("fsync", "touch")]


def bucket(value):
    """Index of a value in the histogram of docs/design and userspace/profile/histogram.h: 16 per power of two."""
    value = int(value)
    if value < 16:
        return value
    shift = value.bit_length() - 5
    return 16 + shift * 16 + ((value >> shift) & 15)


def quantile(times, q, down=0):
    """Nearest rank of the times themselves, or `down` ranks below it."""
    return sorted(times)[max(1, math.ceil(q * len(times)) - down) - 1]


def throttling(pid):
    """Nanoseconds and periods of throttling of the process's cgroup, by its cpu.stat; None without the controller."""
    for line in pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            candidates = [pathlib.Path(f"/sys/fs/cgroup{path}/cpu.stat")]
        elif "cpu" in controllers.split(","):
            candidates = [pathlib.Path(f"/sys/fs/cgroup/{name}{path}/cpu.stat") for name in (controllers, "cpu")]
        else:
            continue
        for file in candidates:
            if not file.exists():
                continue
            return lambda file=file: read_throttling(file)
    return None


def read_throttling(file):
    stat = dict(line.split() for line in file.read_text().splitlines())
    if "nr_throttled" not in stat:
        return None
    ns = int(stat["throttled_time"]) if "throttled_time" in stat else int(stat["throttled_usec"]) * 1000
    return ns, int(stat["nr_throttled"])


class LatencyTruth(Scratch):
    def ask(self, command, kind, *arguments):
        """JSON rows of a command about one container, from the first whole window without runc."""
        reply = run(command, f'{{container.name="{PREFIX}{kind}"}}', "--store", f"127.0.0.1:{self.grpc}", "--from",
                    str(self.since_ms), "--rows", "0", "--json", *arguments)
        self.assertEqual(reply.returncode, 0, reply.stderr)
        return json.loads(reply.stdout)

    def lost(self):
        """Reason -> waits that are in no sum or sample, of the whole machine."""
        query = urllib.parse.quote("pyrometer_waits_lost{}")
        rows = get_json(f"http://127.0.0.1:{self.http}/api/v1/series?query={query}&by=reason&from={self.since_ms}")["series"]
        return {row["labels"]["reason"]: sum(value for _, value in row["points"]) for row in rows}

    def setUp(self):
        super().setUp()
        need_bpf(self)
        need_runc(self)

    def test_what_each_container_says_of_itself(self):
        self.http, self.grpc = free_port(), free_port()
        gates, containers = {}, {}

        def open_gate(kind):
            writer = gates.pop(kind, None)
            if writer is not None:
                os.close(writer)

        with Daemon("up", "--data", self.scratch, "--http", f"127.0.0.1:{self.http}", "--grpc", f"127.0.0.1:{self.grpc}",
                    "--probes", "cpu,syscalls,tcp,waits") as up:
            up.wait_for_line("http://")
            for kind in here():
                reader, gates[kind] = os.pipe()
                self.addCleanup(open_gate, kind)
                container = Container(PREFIX + kind, WORKLOADS / "latency_truth_static", kind, *KINDS[kind][0],
                                      stdin=reader, resources=resources(kind))
                os.close(reader)
                self.addCleanup(container.stop)
                containers[kind] = container
            time.sleep(QUIET)
            self.since_ms = int(time.time() * 1000)
            time.sleep(WINDOW + LATE)
            stat = throttling(containers["spin"].pid)
            throttled_before = stat and stat()
            for kind in containers:
                open_gate(kind)
            for container in containers.values():
                container.wait(120)
            throttled = stat and stat()
            if throttled:
                throttled = [after - before for after, before in zip(throttled, throttled_before)]
            ended = time.time()
            self.truth = {kind: json.loads(container.output()) for kind, container in containers.items()}

            # The windows with the last of it, and their way to the store.
            def arrived():
                rows = {row["labels"]["syscall"]: row for row in self.ask("syscalls", "spin")}
                return rows if rows.get("getppid", {}).get("calls", 0) >= self.truth["spin"]["calls"] else None

            time.sleep(max(0, ended + WINDOW + 1 - time.time()))
            wait_for(arrived, 60, "the calls of the last container", every=1)
            time.sleep(2)
            lost = self.lost()
            print(f"  lost: { {reason: count for reason, count in lost.items() if count} }")
            for kind in KINDS:
                with self.subTest(container=kind):
                    if kind not in containers:
                        self.skipTest("the folder of temporary files is not on a disk of this machine")
                    self.check(kind, lost, throttled)

    def check(self, kind, lost, throttled):
        _, call, cause = KINDS[kind]
        truth = self.truth[kind]
        times = truth["times"]
        own_ns = sum(times)
        waits = self.ask("waits", kind)
        self.assertEqual(len(waits), 1, waits)
        waits = waits[0]
        wait_ns = lambda name: waits["timeNs"].get(name, 0)

        # Every wait is there: each voluntary switch by the kernel's count, the one that ended with the gate, and what the
        # end of the process may take. Switches that the kernel does not report are named.
        counted = sum(n for name, n in waits["waits"].items() if name not in QUEUES)
        short = max(0, truth["switches"] + 1 - counted)
        self.assertLessEqual(short, lost.get("end not reported", 0))
        self.assertLessEqual(counted, truth["switches"] + 4 + (4 if kind == "convoy" else 0))
        # The end of the process blocks once as a rule.
        missed_ns = sum(sorted(times, reverse=True)[:max(0, truth["switches"] + 2 - counted)])

        # What is neither CPU time nor a queue was blocked; all this by the kernel's own accounts, call by call.
        queued_ns = truth["queuedNs"]
        blocked_ns = own_ns - truth["cpuNs"] - queued_ns if queued_ns >= 0 else None
        print(f"  {kind}: {truth['calls']} calls, own clock {own_ns / 1e6:.1f} ms = cpu {truth['cpuNs'] / 1e6:.1f} + queued "
              f"{queued_ns / 1e6:.1f} + blocked {(blocked_ns or 0) / 1e6:.1f}; {truth['switches']} switches, {counted} waits"
              f", {short} not reported, {truth['majorFaults']} major faults, {truth['preempted']} calls preempted")
        print("    waits: " + ", ".join(f"{name} {waits['waits'].get(name, 0)} in {ns / 1e6:.1f} ms"
                                       for name, ns in waits["timeNs"].items() if ns))
        if call:
            row = {row["labels"]["syscall"]: row for row in self.ask("syscalls", kind)}[call]
            split = row["timeNs"]
            print(f"    {call}: {row['calls']} calls, {row['totalNs'] / 1e6:.1f} ms, p50 {row['p50Ns']} (own "
                  f"{quantile(times, 0.5)}), p99 {row['p99Ns']} (own {quantile(times, 0.99)}), "
                  + ", ".join(f"{name} {ns / 1e6:.1f}" for name, ns in split.items() if ns))
            self.assertEqual(row["calls"], truth["calls"])
            if kind != "convoy":  # where a word that has changed is EAGAIN
                self.assertEqual(row["errors"], {})
            self.assertAlmostEqual(sum(split.values()), row["totalNs"], delta=0.01 * row["totalNs"])
        if kind == "spin":
            self.check_quota(truth, own_ns, wait_ns, row, throttled)
            return
        if call:
            # A thread that has to make room on its way back from a call queues by its own clock, but in no call any more. Where
            # the kernel's account of queues has that, a call was between its time without and with its queues.
            outside_ns = max(0, queued_ns - split.get("runnable", 0))
            self.assertAlmostEqual(row["totalNs"], own_ns - outside_ns, delta=0.01 * own_ns)
            least = times if outside_ns < 0.01 * own_ns else [max(0, ns - queue) for ns, queue in zip(times, truth["queues"])]
            # One that lost its processor beside the call took longer by its own clock only; m of them move ranks by m at most. Of
            # those that this moved by a bucket there are no more than all the excess has room for.
            excess_ns = max(0, sum(least) - row["totalNs"])
            for q, seen in ((0.5, row["p50Ns"]), (0.99, row["p99Ns"])):
                high = quantile(times, q)
                low = quantile(least, q, min(truth["preempted"], int(excess_ns / (high / 32))))
                self.assertGreaterEqual(bucket(seen), bucket(low) - 1, (q, seen, low))
                self.assertLessEqual(bucket(seen), bucket(high) + 1, (q, seen, high))
            blocked = sum(ns for name, ns in split.items() if name not in QUEUES and name != "running")
            self.assertGreaterEqual(split[cause], 0.95 * blocked)
            planted = split[cause]
            # The queue of these calls, as the kernel accounts it.
            if queued_ns >= 0:
                self.assertAlmostEqual(split.get("runnable", 0) + split.get("throttled", 0), queued_ns,
                                       delta=0.05 * queued_ns + WAKING_NS * len(times) + missed_ns)
        else:
            planted = wait_ns(cause)
            # What it waits for are pages: each wait, by the kernel's count of switches while it touched them, is one that had to
            # be read, by its count of major faults. A page that arrived in time needs none, and a fast disk has many of those;
            # one that is in the way of another may need two. Between touches it waits in the calls that drop pages, more often on
            # a busy machine.
            self.assertGreaterEqual(waits["waits"][cause], 0.95 * truth["callSwitches"] - short)
            self.assertLessEqual(waits["waits"][cause], 1.02 * truth["majorFaults"])
            self.assertLessEqual(planted, own_ns)
        if blocked_ns is not None:
            self.assertGreaterEqual(planted, 0.95 * blocked_ns - missed_ns)
            self.assertLessEqual(planted, 1.05 * blocked_ns)

    def check_quota(self, truth, own_ns, wait_ns, row, throttled):
        # It never blocks: what is not CPU time is a queue, and what is not throttling was other programs' turn, or another
        # machine's, which is neither CPU time nor a wait: of that only the kernel's own account of the quota is free.
        planted = own_ns - truth["cpuNs"] - wait_ns("runnable")
        print(f"    quota: throttled {wait_ns('throttled') / 1e6:.1f} ms, own {planted / 1e6:.1f} ms; "
              f"cpu.stat says {throttled}")
        self.assertGreater(planted, 1e9)
        if throttled:
            self.assertGreater(throttled[0], 1e9)
        self.assertGreaterEqual(wait_ns("throttled"), 0.95 * (throttled[0] if throttled else planted))
        self.assertLessEqual(wait_ns("throttled"), 1.05 * planted)
        self.assertLessEqual(row["totalNs"], truth["cpuNs"] + wait_ns("runnable"))


if __name__ == "__main__":
    junit_unittest.main()
