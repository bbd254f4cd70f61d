"""Kill -9 of the agent, then of the store, in the middle of a stream: nothing lost, nothing counted twice.

The truth is read from the spool: every batch is a file there before it is sent, with its sample count in its
header, and the newest stays until a newer one exists. So watching the folder sees every batch there ever was.
"""

import json
import pathlib
import signal
import struct
import threading

import junit_unittest
from harness import Daemon, Scratch, WORKLOADS, background, free_port, get_json, need_bpf, run, wait_for

HEADER = struct.Struct("<8sIIQQQ")  # magic, version, reserved, payload bytes, hash, samples


class SpoolWatch:
    """Sequence -> samples of every batch that was ever in the spool."""

    def __init__(self, folder):
        self.folder, self.seen = pathlib.Path(folder), {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def look(self):
        for path in self.folder.glob("*.batch"):
            if path.stem.isdigit() and int(path.stem) not in self.seen:
                try:
                    with path.open("rb") as file:
                        magic, _, _, _, _, samples = HEADER.unpack(file.read(HEADER.size))
                except (OSError, struct.error):
                    continue
                assert magic == b"PYRSPOOL", magic
                self.seen[int(path.stem)] = samples

    def _watch(self):
        while not self._stop.wait(0.002):  # a batch that is acknowledged at once is there for some milliseconds only
            self.look()

    def stop(self):
        self._stop.set()
        self._thread.join()
        self.look()


class Crash(Scratch):
    def setUp(self):
        super().setUp()
        need_bpf(self)
        self.grpc, self.http = free_port(), free_port()

    def agent(self):
        daemon = Daemon("agent", "--store", f"127.0.0.1:{self.grpc}", "--node", "n1", "--spool", self.scratch / "spool")
        self.addCleanup(daemon.stop)
        return daemon

    def store(self):
        daemon = Daemon("store", "--data", self.scratch / "data", "--http", f"127.0.0.1:{self.http}", "--grpc",
                        f"127.0.0.1:{self.grpc}")
        self.addCleanup(daemon.stop)
        daemon.wait_for_line("http://")
        return daemon

    def status(self):
        return get_json(f"http://127.0.0.1:{self.http}/api/v1/status")["store"]

    def test_both_are_killed_in_the_stream(self):
        watch = SpoolWatch(self.scratch / "spool")
        self.addCleanup(watch.stop)
        with background(WORKLOADS / "spin_fp", "0"), background(WORKLOADS / "fork_storm", "100000", "20"):
            store, agent = self.store(), self.agent()
            wait_for(lambda: self.status()["batches"] >= 1, 30, "the first batch")

            agent.kill()
            agent = self.agent()
            known = len(watch.seen)
            # The store dies just when a batch has been written and is on its way.
            wait_for(lambda: len(watch.seen) > known, 30, "a batch of the second agent", every=0.01)
            store.kill()
            known = len(watch.seen)
            wait_for(lambda: len(watch.seen) > known, 30, "a batch while the store is away")
            agent.kill()
            agent = self.agent()
            wait_for(lambda: len(watch.seen) > known + 1, 30, "a batch of the third agent")
            store = self.store()
            wait_for(lambda: self.status()["batches"] >= known + 1, 60, "the resent batches")
            self.assertEqual(agent.stop(signal.SIGTERM), 0, agent.output())

        watch.stop()
        status = self.status()
        sequences = sorted(watch.seen)
        print(f"  {len(sequences)} batches, {sum(watch.seen.values())} samples in the spool; the store: {status}")
        self.assertEqual(sequences, list(range(1, len(sequences) + 1)), f"numbers without a gap; the store: {status}")
        waiting = [int(p.stem) for p in (self.scratch / "spool").glob("*.batch")]
        self.assertLessEqual(len(waiting), 1, "all is acknowledged; the newest file is only the marker")
        self.assertEqual(status["batches"], len(sequences))
        self.assertEqual(status["samples"], sum(watch.seen.values()))
        self.assertGreater(status["samples"], 1000)

        # The same after the store died once more with everything acknowledged.
        store.kill()
        self.store()
        again = self.status()
        self.assertEqual((again["batches"], again["samples"]), (status["batches"], status["samples"]))
        # And what it answers adds up to it: count of samples over all cpu series.
        rows = json.loads(run("series", "--store", f"127.0.0.1:{self.grpc}", "cpu", "--from", "-1h", "--to", "now",
                              "--json").stdout)["series"]
        self.assertEqual(sum(point[2] for row in rows for point in row["points"]), status["samples"])


if __name__ == "__main__":
    junit_unittest.main()
