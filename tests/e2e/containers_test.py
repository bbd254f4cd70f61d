"""A program in a container beside the same program on the host: the shares are told apart, and right.

The workload spends 60 % of its time in hot_a and 40 % in hot_b.
"""

import json
import os
import time
import unittest

import junit_unittest
from harness import (Container, Daemon, Scratch, WORKLOADS, background, free_port, get_json, need_bpf, need_runc, run,
                     wait_for)

SECONDS = 20
TOLERANCE = 3  # percentage points
CAUSES = ("other", "lock", "block_io", "network", "timer", "page_fault", "poll", "runnable", "throttled")


def shares(functions):
    """Percent of the time in hot_a + hot_b spent in each, from rows of `top --json`."""
    cost = {"hot_a": 0, "hot_b": 0}
    for row in functions:
        name = row["name"].split("(")[0]
        if name in cost:
            cost[name] += row["self"]
    total = sum(cost.values())
    return {name: 100 * value / total for name, value in cost.items()} if total else {}


class Shop(Scratch):
    def setUp(self):
        super().setUp()
        need_bpf(self)
        need_runc(self)

    def assert_split(self, functions, whole=None):
        found = shares(functions)
        self.assertTrue(found, functions)
        self.assertAlmostEqual(found["hot_a"], 60, delta=TOLERANCE)
        self.assertAlmostEqual(found["hot_b"], 40, delta=TOLERANCE)
        print(f"  hot_a {found['hot_a']:.1f} %, hot_b {found['hot_b']:.1f} %")
        if whole:  # nearly nothing else is in there
            hot = sum(row["self"] for row in functions if row["name"].startswith("hot_"))
            self.assertGreater(hot / whole, 0.9)

    def test_up_tells_container_and_host_apart(self):
        grpc, http = free_port(), free_port()
        with Container("shop", WORKLOADS / "spin_fp_static", "0"), background(WORKLOADS / "spin_fp", "0"), \
                Daemon("up", "--data", self.scratch, "--http", f"127.0.0.1:{http}", "--grpc", f"127.0.0.1:{grpc}") as up:
            up.wait_for_line("http://")
            store = ("--store", f"127.0.0.1:{grpc}")
            time.sleep(SECONDS + 12)  # two whole windows and the naming of the second

            top = run("top", *store, '{container.name="shop"}', "--json")
            self.assertEqual(top.returncode, 0, top)
            reply = json.loads(top.stdout)
            self.assert_split(reply["functions"], reply["total"])
            samples = reply["total"] / 1e9 * 99

            host = json.loads(run("top", *store, '{comm="spin_fp",container.name=""}', "--json").stdout)
            self.assert_split(host["functions"], host["total"])
            # They compete for two CPUs; each gets a fair part, and neither holds the other's.
            self.assertGreater(host["total"], reply["total"] / 4)
            self.assertGreater(samples, 99 * SECONDS / 8)

            # The same over HTTP, as the page shows it.
            rows = get_json(f"http://127.0.0.1:{http}/api/v1/containers")["containers"]
            shop = [row for row in rows if row["labels"].get("container.name") == "shop"]
            self.assertEqual(len(shop), 1, rows)
            self.assertGreater(shop[0]["cores"], 0.2)
            self.assertFalse(shop[0]["isHost"])
            self.assertTrue([row for row in rows if row["isHost"]])

            # Text for people names it too.
            text = run("top", *store, "--by", "container.name").stdout
            self.assertIn("shop", text)
            self.assertEqual(up.stop(), 0)

    def test_record_of_one_container(self):
        with Container("shop", WORKLOADS / "spin_fp_static", "0"), background(WORKLOADS / "spin_fp", "0"):
            result = run("record", "--container", "shop", "-d", f"{SECONDS}s", "-o", self.scratch / "shop.folded",
                         timeout=SECONDS + 40)
            self.assertEqual(result.returncode, 0, result)
            cost = {}
            for line in (self.scratch / "shop.folded").read_text().splitlines():
                stack, value = line.rsplit(" ", 1)
                leaf = stack.split(";")[-1].split("(")[0]
                cost[leaf] = cost.get(leaf, 0) + int(value)
            self.assert_split([{"name": name, "self": value} for name, value in cost.items()], sum(cost.values()))

    def test_session_on_a_remote_agent(self):
        grpc, http = free_port(), free_port()
        with Container("shop", WORKLOADS / "spin_fp_static", "0"), background(WORKLOADS / "spin_fp", "0"), \
                Daemon("store", "--data", self.scratch / "store", "--http", f"127.0.0.1:{http}", "--grpc",
                       f"127.0.0.1:{grpc}") as store:
            store.wait_for_line("http://")
            with Daemon("agent", "--store", f"127.0.0.1:{grpc}", "--node", "far", "--spool", self.scratch / "spool"):
                nodes = wait_for(
                    lambda: [n for n in get_json(f"http://127.0.0.1:{http}/api/v1/nodes")["nodes"] if n["online"]], 20,
                    "the agent at the store")
                probes = {probe["name"]: (probe["state"], probe["reason"]) for probe in nodes[0]["probes"]}
                self.assertEqual(probes["cpu_sampler"], ("ok", ""))
                self.assertEqual(probes["off_cpu"], ("unused", ""))  # nobody asked for waits
                result = run("session", "start", "--store", f"127.0.0.1:{grpc}", "--node", "far", "--container", "shop",
                             "-d", f"{SECONDS}s", "-o", self.scratch / "shop.json", "--json", timeout=SECONDS + 60)
                self.assertEqual(result.returncode, 0, result)
                reply = json.loads(result.stdout)
                self.assert_split(reply["functions"], reply["total"])
                self.assertTrue((self.scratch / "shop.json").stat().st_size > 0)

                listed = json.loads(run("session", "list", "--store", f"127.0.0.1:{grpc}", "--json").stdout)
                self.assertEqual([(s["node"], s["state"]) for s in listed], [("far", "done")])
                self.assertGreater(listed[0]["samples"], 99 * SECONDS / 8)

                # Waits of a container, on an agent that measures none all the time.
                with Container("sleeper", WORKLOADS / "syscall_mix_static", 200000, 1500, 6000, 500):
                    result = run("session", "start", "--store", f"127.0.0.1:{grpc}", "--node", "far", "--container",
                                 "sleeper", "--probes", "off-cpu", "-d", "5s", "--json", timeout=65)
                self.assertEqual(result.returncode, 0, result)
                reply = json.loads(result.stdout)
                print(f"  waits of 5 s: {reply}")
                causes = {row["name"]: row["self"] for row in reply["functions"] if row["self"] > 0}
                self.assertLessEqual(set(causes), {f"[{cause}]" for cause in CAUSES})
                self.assertGreater(causes["[timer]"], 2e9)

                # The session counts nothing twice: the always-on profile does not contain it.
                twice = json.loads(run("series", "--store", f"127.0.0.1:{grpc}", "cpu", "--by", "session", "--json").stdout)
                self.assertEqual([row["labels"] for row in twice["series"] if row["labels"].get("session")], [])

                gone = run("session", "start", "--store", f"127.0.0.1:{grpc}", "--node", "far", "--container", "nowhere",
                           "-d", "1s", timeout=60)
                self.assert_one_line(gone, 1, "nowhere")

    def test_a_session_whose_ring_fails_says_so(self):
        grpc, http = free_port(), free_port()
        arm = self.scratch / "arm"
        environment = os.environ | {"LD_PRELOAD": str(WORKLOADS / "libfailing_ring.so"), "PYROMETER_FAILING_RINGS": str(arm)}
        with background(WORKLOADS / "spin_fp", "0"), \
                Daemon("store", "--data", self.scratch / "store", "--http", f"127.0.0.1:{http}", "--grpc",
                       f"127.0.0.1:{grpc}") as store:
            store.wait_for_line("http://")
            with Daemon("agent", "--store", f"127.0.0.1:{grpc}", "--node", "far", "--spool", self.scratch / "spool",
                        env=environment):
                wait_for(lambda: [n for n in get_json(f"http://127.0.0.1:{http}/api/v1/nodes")["nodes"] if n["online"]], 20,
                         "the agent at the store")
                arm.touch()
                begun = time.monotonic()
                result = run("session", "start", "--store", f"127.0.0.1:{grpc}", "--node", "far", "-d", "60s", timeout=100)
                self.assertLess(time.monotonic() - begun, 50)
                self.assert_one_line(result, 1, "cpu_sampler failed", "cannot read samples: Input/output error",
                                     "stay in the store")
                arm.unlink()
                for session in (json.loads(run("session", "list", "--store", f"127.0.0.1:{grpc}", "--json").stdout)[0],
                                get_json(f"http://127.0.0.1:{http}/api/v1/sessions")["sessions"][0]):
                    self.assertEqual(session["state"], "failed")
                    self.assertIn("cannot read samples: Input/output error", session["error"])
                    self.assertGreater(session["samples"], 0)
                kept = run("top", "--store", f"127.0.0.1:{grpc}", f'cpu{{session="{session["id"]}"}}', "--json")
                self.assertEqual(kept.returncode, 0, kept)
                self.assertGreater(json.loads(kept.stdout)["total"], 0)
                # The node goes on, and so does its next session.
                result = run("session", "start", "--store", f"127.0.0.1:{grpc}", "--node", "far", "-d", "2s", timeout=100)
                self.assertEqual(result.returncode, 0, result)


if __name__ == "__main__":
    junit_unittest.main()
