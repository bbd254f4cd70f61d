"""A store in a process of its own on free ports of loopback, for trials that watch it from outside.

    store = StoreProcess(build, folder, "1GiB", log, ["--retention", "0"])
    store.get("/api/v1/status")
    store.memory.largest                      # bytes, so far
    problem = store.stop()                    # "" or what was wrong
"""

import json
import pathlib
import socket
import subprocess
import threading
import time
import urllib.request

PERIOD_NS = 10_101_010  # of the generator's samples, tests/support/fleet.h
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def parse_size(text):
    """Bytes of "64MiB" or "1GiB"."""
    return int(text[:-3]) * UNITS[text[-3:]]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Memory(threading.Thread):
    """Resident size of a process: now (looked at ten times a second), and the largest that the kernel has seen."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.now, self.largest, self.ended = pid, 0, 0, threading.Event()
        self.look()
        self.start()

    def look(self):
        lines = pathlib.Path(f"/proc/{self.pid}/status").read_text().splitlines()
        sizes = {line.split(":")[0]: int(line.split()[1]) << 10 for line in lines if line.startswith(("VmRSS:", "VmHWM:"))}
        # Absent of a process that has just ended.
        self.now, self.largest = sizes.get("VmRSS", 0), max(self.largest, sizes.get("VmHWM", 0))

    def run(self):
        while not self.ended.wait(0.1):
            try:
                self.look()
            except OSError:
                return


class StoreProcess:
    def __init__(self, build, folder, memory, log, flags=()):
        self.grpc, self.http = free_port(), free_port()
        self.budget, self.log = parse_size(memory), log
        self.process = subprocess.Popen(
            [build / "userspace/cli/pyrometer", "store", "--data", folder / "data", "--grpc", f"127.0.0.1:{self.grpc}",
             "--http", f"127.0.0.1:{self.http}", "--memory", memory, *flags],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log)
        end = time.monotonic() + 60
        while True:
            try:
                self.get("/api/v1/status")
                break
            except OSError:
                if self.process.poll() is not None or time.monotonic() > end:
                    self.kill()
                    raise SystemExit(f"the store does not answer; see {log.name}")
                time.sleep(0.1)
        self.memory = Memory(self.process.pid)

    def get(self, path, tenant="", timeout=120):
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}{path}", headers={"X-Scope-OrgID": tenant})
        with urllib.request.urlopen(request, timeout=timeout) as reply:
            return json.load(reply)

    def samples(self, since, tenant=""):
        """What the stacks of a tenant hold that the generator sent. As functions: one flame graph of millions of stacks needs
        more memory than a question may have."""
        total = self.get(f"/api/v1/top?query=cpu&from={since}&to=now&limit=1", tenant)["total"]
        if total % PERIOD_NS != 0:
            raise SystemExit(f"{total} ns of tenant '{tenant}' are no whole number of samples")
        return total // PERIOD_NS

    def stop(self):
        """"" or what was wrong: above its budget at any time, or it did not end well."""
        self.memory.ended.set()
        self.memory.join()
        self.process.terminate()
        problems = []
        if self.memory.largest > self.budget:
            problems.append(f"resident memory of {self.memory.largest >> 20} MiB is above --memory {self.budget >> 20} MiB")
        if self.process.wait(60) != 0:
            problems.append(f"the store ended with {self.process.returncode}; see {self.log.name}")
        return "; ".join(problems)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
