"""Round-trip time over a wire of exactly 10 ms each way, for the containers at both of its ends."""

import json
import os
import subprocess
import urllib.parse

import junit_unittest
from harness import (BINARY, Container, Daemon, Scratch, WORKLOADS, die_with_parent, free_port, get_json, need_bpf, need_runc,
                     run, wait_for)

ONE_WAY_MS = 10
RELAY = os.environ.get("PYROMETER_TUN_RELAY", "build/ci/tests/support/tun_relay")
ROUNDS = 150


class Network(Scratch):
    def setUp(self):
        super().setUp()
        need_bpf(self)
        need_runc(self)
        if not os.path.exists("/dev/net/tun"):
            self.skipTest("needs /dev/net/tun")

    def wire(self):
        """Paths of two network namespaces, ONE_WAY_MS apart."""
        relay = subprocess.Popen([RELAY, str(ONE_WAY_MS * 1000)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                 preexec_fn=die_with_parent)

        def end():
            relay.stdin.close()
            relay.wait(10)
            relay.stdout.close()

        self.addCleanup(end)
        ready = relay.stdout.readline().split()
        self.assertEqual(ready[:1], ["ready"])
        return ready[1:]

    def test_round_trip_time_of_both_ends(self):
        left, right = self.wire()
        http, grpc = free_port(), free_port()
        with Daemon("up", "--data", self.scratch, "--http", f"127.0.0.1:{http}", "--grpc", f"127.0.0.1:{grpc}") as up:
            up.wait_for_line("http://")
            with Container("pyrometer-e2e-server", WORKLOADS / "tcp_pingpong_static", "server", "10.99.0.2", 7777,
                           network=right) as server:
                wait_for(lambda: "ready" in server.output(), 10, "the server")
                with Container("pyrometer-e2e-client", WORKLOADS / "tcp_pingpong_static", "client", "10.99.0.2", 7777,
                               ROUNDS, network=left) as client:
                    client.wait(60)
                    truth = float(client.output().split()[-1]) * 1e3  # of the program itself, median, ns
                server.wait(10)
            api = f"http://127.0.0.1:{http}/api/v1"

            def closed(name):
                query = urllib.parse.quote(f'{{container.name="{name}"}}')
                return sum(row["connectionsClosed"] for row in get_json(f"{api}/peers?query={query}")["peers"])

            # The window with the end of the connection, and its way to the store.
            for name in ("pyrometer-e2e-client", "pyrometer-e2e-server"):
                wait_for(lambda name=name: closed(name) >= 1, 40, f"the end of the connection of {name}", every=0.5)
            print(f"  the program's own median: {truth / 1e6:.2f} ms")
            self.assertAlmostEqual(truth, 2 * ONE_WAY_MS * 1e6, delta=2e6)
            for name, peer, direction in (("pyrometer-e2e-client", "10.99.0.2", "out"),
                                          ("pyrometer-e2e-server", "10.99.0.1", "in")):
                with self.subTest(container=name):
                    query = urllib.parse.quote(f'{{container.name="{name}"}}')
                    peers = [row for row in get_json(f"{api}/peers?query={query}")["peers"] if peer in row["labels"]["peer"]]
                    self.assertEqual(len(peers), 1, get_json(f"{api}/peers?query={query}"))
                    row = peers[0]
                    query = urllib.parse.quote(f'tcp_rtt{{container.name="{name}"}}')
                    histogram = get_json(f"{api}/histograms?query={query}&by=peer")["histograms"][0]
                    mean = histogram["sum"] / histogram["count"]
                    print(f"  {name}: mean {mean / 1e6:.2f} ms, p50 {row['rttP50Ns'] / 1e6:.2f} ms, "
                          f"min {row['minRttNs'] / 1e6:.2f} ms, {row['samples']} samples, {row['labels']}")
                    self.assertAlmostEqual(row["rttP50Ns"], truth, delta=0.05 * truth)
                    self.assertAlmostEqual(mean, truth, delta=0.05 * truth)
                    self.assertAlmostEqual(row["minRttNs"], 2 * ONE_WAY_MS * 1e6, delta=0.05 * 2 * ONE_WAY_MS * 1e6)
                    self.assertGreaterEqual(row["samples"], ROUNDS * 0.9)
                    self.assertEqual(row["labels"]["direction"], direction)
                    # A byte each way each round.
                    self.assertEqual(row["bytesReceived"], ROUNDS)
                    self.assertEqual(row["bytesSent"], ROUNDS)
                    self.assertEqual(row["retransmits"], 0)
                    self.assertEqual(row["retransmitsByCause"], {})
                    self.assertEqual((row["connections"], row["connectionsClosed"]), (1, 1))
                    # Nearly all of a ping-pong's time at its client is waiting for an acknowledgement.
                    if direction == "out":
                        self.assertGreater(row["limitedNs"]["network"], 0.5 * ROUNDS * truth)
                    # The command says what the API says.
                    told = run("net", "--store", f"127.0.0.1:{grpc}", f'{{container.name="{name}"}}', "--json")
                    self.assertEqual(told.returncode, 0, told)
                    rows = [other for other in json.loads(told.stdout) if peer in other["labels"]["peer"]]
                    self.assertEqual(len(rows), 1, told)
                    if direction == "in":
                        self.assertEqual(rows[0]["labels"].pop("local.port"), "7777")
                    self.assertEqual(rows[0], row)
            table = run("net", "--store", f"127.0.0.1:{grpc}", "--sort", "connections")
            self.assertEqual(table.returncode, 0, table)
            self.assertRegex(table.stdout, r"pyrometer-e2e-client +-> 10\.99\.0\.2:7777 ")
            self.assertRegex(table.stdout, r"pyrometer-e2e-server +<- 10\.99\.0\.1 on 7777 ")
            empty = run("net", "--store", f"127.0.0.1:{grpc}", '{container.name="nobody"}')
            self.assert_one_line(empty, 1, "no TCP traffic matches")
            self.assert_one_line(run("net", "--store", f"127.0.0.1:{grpc}", "--by", "peer,cause"), 2, "cause")
            self.assert_one_line(run("net", "--sort", "colour"), 2, "--sort")
            watch = subprocess.Popen([BINARY, "net", "--store", f"127.0.0.1:{grpc}", "--watch"], stdout=subprocess.PIPE,
                                     text=True, preexec_fn=die_with_parent)
            with watch:
                titles = 0
                for line in watch.stdout:  # a table, and after a while another
                    titles += "rtt p50" in line
                    if titles == 2:
                        break
                watch.terminate()
            self.assertEqual(titles, 2)
            # Text says the same.
            text = run("series", "--store", f"127.0.0.1:{grpc}", "tcp_rtt", "--by", "container.name", "--json")
            self.assertEqual(text.returncode, 0, text)
            names = {row["labels"].get("container.name") for row in json.loads(text.stdout)["series"]}
            self.assertLessEqual({"pyrometer-e2e-client", "pyrometer-e2e-server"}, names)


if __name__ == "__main__":
    junit_unittest.main()
