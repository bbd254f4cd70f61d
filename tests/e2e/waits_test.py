"""What a container waits for: `pyrometer syscalls`, `pyrometer waits`, off-CPU flame graphs, against planted waits."""

import json
import os
import re
import subprocess
import time
import urllib.parse
import urllib.request

import junit_unittest
from harness import Container, Daemon, Scratch, WORKLOADS, free_port, need_bpf, need_runc, run, wait_for

NAME = "pyrometer-e2e-waits"
ROUNDS, MICROSECONDS = 300, 5000
HANGS_S = 40  # longer than a window and its way to the store


class Waits(Scratch):
    since = "-1h"

    def ask(self, *arguments):
        """JSON of a command, asked of the store."""
        reply = run(*arguments, "--store", f"127.0.0.1:{self.grpc}", "--from", self.since, "--json")
        self.assertEqual(reply.returncode, 0, reply.stderr)
        return json.loads(reply.stdout)

    def test_a_container_that_waits_for_a_pipe(self):
        need_bpf(self)
        need_runc(self)
        self.http, self.grpc = free_port(), free_port()
        selector = f'{{container.name="{NAME}"}}'
        with Daemon("up", "--data", self.scratch, "--http", f"127.0.0.1:{self.http}", "--grpc", f"127.0.0.1:{self.grpc}",
                    "--probes", "cpu,syscalls,tcp,waits") as up:
            up.wait_for_line("http://")
            reader, writer = os.pipe()
            try:
                with Container(NAME, WORKLOADS / "waits_static", "pipe", ROUNDS, MICROSECONDS, stdin=reader) as container:
                    # What runc does in the container's cgroup, where the machine is busy it waits, is in windows before this.
                    time.sleep(1.5)
                    self.since = str(int(time.time() * 1000))
                    time.sleep(13)  # a window may be closed late
                    os.close(writer)
                    writer = -1
                    container.wait(60)
                    calls, own_ns = map(int, container.output().split()[1:3])
            finally:
                os.close(reader)
                if writer >= 0:
                    os.close(writer)
            self.assertEqual(calls, ROUNDS)

            def reads():
                rows = {row["labels"]["syscall"]: row for row in self.ask("syscalls", selector, "--rows", "0")}
                return rows if rows.get("read", {}).get("calls", 0) >= ROUNDS else None

            rows = wait_for(reads, 30, "the reads of the container", every=1)
            read = rows["read"]
            split = read["timeNs"]
            print(f"  {read}; by its own clock {own_ns} ns")
            # runc's own reads in the container's cgroup are few and do not wait.
            self.assertLess(read["calls"], ROUNDS + 200)
            self.assertAlmostEqual(read["totalNs"], own_ns, delta=0.02 * own_ns + 20e6)
            self.assertAlmostEqual(sum(split.values()), read["totalNs"], delta=0.01 * read["totalNs"])
            blocked = sum(ns for cause, ns in split.items() if cause not in ("running", "runnable", "throttled"))
            self.assertGreaterEqual(split["poll"], 0.95 * blocked)

            waits = self.ask("waits", selector)
            self.assertEqual(len(waits), 1, waits)
            print(f"  {waits[0]}")
            self.assertGreaterEqual(waits[0]["timeNs"]["poll"], 0.9 * own_ns)
            self.assertGreaterEqual(waits[0]["timeNs"]["timer"], 0.9 * ROUNDS * MICROSECONDS * 1000)
            self.assertGreaterEqual(waits[0]["waits"]["poll"], ROUNDS)
            self.assertIn("queueP99Ns", waits[0])

            # The leaf is the cause, the frames lead to who asked; weights sum up to about the truth.
            folded = run("export", f'off_cpu{{container.name="{NAME}",cause="poll"}}', "--store", f"127.0.0.1:{self.grpc}",
                         "--from", "-1h", "-o", "-", "--format", "folded")
            self.assertEqual(folded.returncode, 0, folded.stderr)
            lines = folded.stdout.splitlines()
            self.assertTrue(lines)
            by_stack = {line.rsplit(" ", 1)[0]: int(line.rsplit(" ", 1)[1]) for line in lines}
            self.assertTrue(all(stack.endswith("[poll]") for stack in by_stack), lines[:3])
            self.assertTrue(any("Pipe" in stack and "main" in stack for stack in by_stack), lines[:3])
            woken = run("export", f'off_cpu_wakers{{container.name="{NAME}",cause="poll"}}', "--store",
                        f"127.0.0.1:{self.grpc}", "--from", "-1h", "-o", "-", "--format", "folded")
            self.assertIn("[woken by waits_static", woken.stdout)

            table = run("waits", selector, "--store", f"127.0.0.1:{self.grpc}", "--from", "-1h")
            self.assertEqual(table.returncode, 0, table.stderr)
            self.assertIn(NAME, table.stdout)
            self.assertIn("[poll]", table.stdout)
            table = run("syscalls", selector, "--store", f"127.0.0.1:{self.grpc}", "--from", "-1h")
            self.assertEqual(table.returncode, 0, table.stderr)
            self.assertRegex(table.stdout, r"read .*poll \d+")

    def stacks(self, query):
        """Folded stacks of a query -> nanoseconds."""
        reply = run("export", query, "--store", f"127.0.0.1:{self.grpc}", "--from", "-1h", "-o", "-", "--format", "folded")
        self.assertEqual(reply.returncode, 0, reply.stderr)
        lines = [line.rsplit(" ", 1) for line in reply.stdout.splitlines()]
        return {stack: int(ns) for stack, ns in lines}

    def test_from_a_slow_read_to_who_holds_the_lock(self):
        """docs/slow_read.md, step by step."""
        need_bpf(self)
        need_runc(self)
        self.http, self.grpc = free_port(), free_port()
        name = f"{NAME}-slow"
        selector = f'{{container.name="{name}"}}'
        with Daemon("up", "--data", self.scratch, "--http", f"127.0.0.1:{self.http}", "--grpc", f"127.0.0.1:{self.grpc}",
                    "--probes", "cpu,syscalls,tcp,waits") as up:
            up.wait_for_line("http://")
            with Container(name, WORKLOADS / "slow_read_static", "25") as container:
                container.wait(90)
                reads, slow = map(int, container.output().split()[1:3])
            print(f"  {reads} reads, {slow} of them slow")

            def calls():
                rows = {row["labels"]["syscall"]: row for row in self.ask("syscalls", selector, "--rows", "0")}
                return rows if rows.get("read", {}).get("calls", 0) >= reads else None

            read = wait_for(calls, 30, "the reads of the container", every=1)["read"]
            # 1. Some reads are slow, and it is not the call that works: it waits for something to read.
            self.assertGreater(read["p99Ns"], 30e6, read)
            self.assertGreater(read["timeNs"]["poll"], 0.9 * read["totalNs"], read)
            # 2. Slow ones kept as examples say so too, on top of their stacks.
            reply = urllib.request.urlopen(
                f"http://127.0.0.1:{self.http}/api/v1/exemplars?from=-1h&minNs=30000000&limit=100&query="
                + urllib.parse.quote(f'syscall_latency{{container.name="{name}",syscall="read"}}'), timeout=30)
            examples = json.load(reply)["exemplars"]
            self.assertTrue(examples)
            # Where the machine has other things to do some mostly waited for a CPU after that.
            tops = [example["frames"][0] for example in examples]
            self.assertLessEqual(set(tops), {"[poll]", "[runnable]"})
            self.assertGreaterEqual(tops.count("[poll]"), 0.8 * len(tops), tops)
            self.assertTrue(any("ReadRecord" in frame for frame in examples[0]["frames"]), examples[0])
            # Which call it was: the descriptor by what it is.
            print(f"  {examples[0]['call']}")
            self.assertTrue(any(re.fullmatch(r"read\(\d+ → pipe:\[\d+\], …, \d+\) = \d+", example["call"])
                                for example in examples), [example["call"] for example in examples])
            # What the time of each went to, and who ended its longest wait; runc read in the container's cgroup, too.
            examples = [example for example in examples if any("ReadRecord" in frame for frame in example["frames"])]
            for example in examples:
                self.assertTrue(example["slow"], example)
                queued = example["splitNs"].get("runnable", 0)  # the machine may be busy
                self.assertGreater(example["splitNs"]["poll"] + queued, 0.9 * example["durationNs"], example)
                self.assertAlmostEqual(sum(example["splitNs"].values()), example["durationNs"], delta=20_000)
            woken = [example["waker"] for example in examples if example["waker"]]
            print(f"  {len(woken)} of {len(examples)} slow reads say who woke them")
            self.assertGreaterEqual(len(woken), 0.8 * len(examples))
            for waker in woken:
                self.assertEqual((waker["comm"], waker["cause"]), ("producer", "poll"))
                self.assertTrue(any("AppendRecord" in frame for frame in waker["frames"]), waker)
                self.assertGreater(waker["waitNs"], 20e6)
            said = run("syscalls", f'{{container.name="{name}",syscall="read"}}', "--store", f"127.0.0.1:{self.grpc}",
                       "--from", "-1h", "--examples", "3")
            self.assertEqual(said.returncode, 0, said.stderr)
            self.assertRegex(said.stdout, r"read\(\d+ → pipe:\[\d+\], …, \d+\) = \d+  in .*: one of the slowest")
            self.assertRegex(said.stdout, r"time +poll [\d.]+ ms")
            self.assertRegex(said.stdout, r"asked by .*ReadRecord")
            self.assertRegex(said.stdout, r"woken by +producer \(\d+\), after [\d.]+ ms of poll: .*AppendRecord")
            # Typical ones are drawn among all calls, most of which are not slow, and stand for them.
            drawn = self.ask("syscalls", selector, "--examples", "1000", "--typical")
            made = sum(row["calls"] for row in self.ask("syscalls", selector, "--rows", "0"))
            print(f"  {len(drawn)} drawn, standing for {sum(call['weight'] for call in drawn)} of {made} calls")
            self.assertTrue(drawn)
            self.assertTrue(all(call["weight"] > 0 for call in drawn))
            self.assertLess(min(call["durationNs"] for call in drawn), 20e6)
            # 3. Who ended the long waits: the producer, when it had the lock at last.
            woken = self.stacks(f'off_cpu_wakers{{container.name="{name}",cause="poll"}}')
            by_producer = sum(ns for stack, ns in woken.items()
                              if "ReadRecord" in stack and "[woken by producer]" in stack and "AppendRecord" in stack)
            self.assertGreater(by_producer, 0.8 * sum(woken.values()), woken)
            # 4. What the producer waited for, and who let it go on: the code that held the lock.
            locked = self.stacks(f'off_cpu_wakers{{container.name="{name}",cause="lock",comm="producer"}}')
            by_compactor = sum(ns for stack, ns in locked.items()
                               if "AppendRecord" in stack and "[woken by compactor]" in stack and "CompactIndex" in stack)
            self.assertGreater(by_compactor, 0.8 * sum(locked.values()), locked)
            # Who woke it stands upside down, what is inlined (std::mutex::unlock) as well; and it begins at the wake-up.
            for stack in locked:
                woken_by = stack.partition("[woken by compactor]")[2]
                if "CompactIndex" in woken_by:
                    self.assertNotRegex(woken_by, r"CompactIndex.*unlock")
                self.assertNotIn("bpf_", woken_by)

    def test_what_a_call_in_flight_waits_for(self):
        need_bpf(self)
        need_runc(self)
        self.http, self.grpc = free_port(), free_port()
        name = f"{NAME}-open"
        selector = f'{{container.name="{name}"}}'
        with Daemon("up", "--data", self.scratch, "--http", f"127.0.0.1:{self.http}", "--grpc", f"127.0.0.1:{self.grpc}",
                    "--probes", "cpu,syscalls,tcp,waits") as up:
            up.wait_for_line("http://")
            with Container(name, WORKLOADS / "waits_static", "pipe", 1, HANGS_S * 1_000_000, stdin=subprocess.DEVNULL):
                def open_calls():
                    rows = {row["labels"]["syscall"]: row for row in self.ask("syscalls", selector, "--rows", "0")}
                    return {call: rows[call]["inFlightOn"] for call in ("read", "nanosleep") if rows.get(call, {}).get("inFlight")}

                found = wait_for(lambda: len(calls := open_calls()) == 2 and calls, 40, "two calls in flight", every=1)
                print(f"  {found}")
                # One thread waits for the other's byte, which sleeps before it writes.
                self.assertEqual({call: {cause: row["calls"] for cause, row in on.items()} for call, on in found.items()},
                                 {"read": {"poll": 1}, "nanosleep": {"timer": 1}})
                self.assertGreater(found["read"]["poll"]["oldestNs"], 0)
                table = run("syscalls", selector, "--store", f"127.0.0.1:{self.grpc}", "--from", "-5m")
                self.assertRegex(table.stdout, rf"{name} +read .* 1 +\d+\.\d\d s +poll 1 ")

    def test_a_recorded_command_and_its_children(self):
        need_bpf(self)
        file = self.scratch / "why.folded"
        reply = run("record", "--probes", "waits", "-o", str(file), "--", "sh", "-c",
                    f"{WORKLOADS / 'waits_static'} sleep 5 400000 </dev/null; true")
        self.assertEqual(reply.returncode, 0, reply.stderr)
        own_ns = int(re.search(r"^sleep 5 (\d+) ", reply.stdout, re.M)[1])
        self.assertRegex(reply.stdout, r"waits, by cause[\s\S]* timer +\d")
        lines = [line.rsplit(" ", 1) for line in file.read_text().splitlines()]
        slept = {stack: int(ns) for stack, ns in lines if stack.endswith("[timer]")}
        print(f"  {len(slept)} stacks of sleeping, {sum(slept.values())} ns; by its own clock {own_ns} ns")
        # Its own sleeps and nobody else's: other programs of this machine sleep too.
        self.assertTrue(all("Sleep" in stack for stack in slept), list(slept)[:3])
        self.assertAlmostEqual(sum(slept.values()), own_ns, delta=0.25 * own_ns)

    def test_wrong_questions(self):
        self.assert_one_line(run("waits", "cpu{}"), 2, "leave out the type 'cpu'")
        unclosed = run("syscalls", '{container.name="shop')
        self.assertEqual(unclosed.returncode, 2, unclosed)
        self.assertIn("selector: this quote is never closed", unclosed.stderr)
        self.assert_one_line(run("syscalls", "--typical"), 2, "--typical: says which --examples")
        self.assert_one_line(run("syscalls", "--examples", "0"), 2)
        self.assert_one_line(run("waits", "--watch", "10ms"), 2, "--watch: at least 1s")
        self.assert_one_line(run("waits", "--store", f"127.0.0.1:{free_port()}"), 1)
        with Daemon("store", "--data", self.scratch, "--http", f"127.0.0.1:{free_port()}", "--grpc",
                    f"127.0.0.1:{(grpc := free_port())}") as store:
            store.wait_for_line("127.0.0.1")
            self.assert_one_line(run("waits", "--store", f"127.0.0.1:{grpc}"), 1, "--probes cpu,syscalls,tcp,waits")


if __name__ == "__main__":
    junit_unittest.main()
