"""What the end-to-end tests share: the built binary, daemons, containers, networks, scratch folders.

Environment (set by CMake): PYROMETER the binary, PYROMETER_WORKLOADS the folder of the test programs,
PYROMETER_TUN_RELAY the delaying link. Everything a test starts ends with it: use `with`, or addCleanup.
"""

import contextlib
import ctypes
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest
import urllib.error
import urllib.request

BINARY = os.environ.get("PYROMETER", "build/ci/userspace/cli/pyrometer")
WORKLOADS = pathlib.Path(os.environ.get("PYROMETER_WORKLOADS", "build/ci/tests/workloads"))

_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent():
    """In a child before exec: it is killed when the test dies, however that happens."""
    _libc.prctl(1, signal.SIGKILL)


def run(*arguments, timeout=120, **named):
    """Runs pyrometer; the result has returncode, stdout, stderr (text)."""
    return command(BINARY, *arguments, timeout=timeout, **named)


def command(*arguments, timeout=120, text=True, **named):
    named.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run([str(a) for a in arguments], capture_output=True, text=text, timeout=timeout, check=False,
                          preexec_fn=die_with_parent, **named)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def get(url, timeout=10):
    with urllib.request.urlopen(url, timeout=timeout) as reply:
        return reply.read()


def get_json(url, timeout=10):
    return json.loads(get(url, timeout))


def wait_for(condition, seconds, what, every=0.1):
    """The first true value of condition(); an AssertionError naming `what` after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s in vain for {what}")
        time.sleep(every)


class Daemon:
    """pyrometer up, agent or store in the background, output in a file."""

    def __init__(self, *arguments, env=None, prefix=()):
        self.output_file = tempfile.NamedTemporaryFile(prefix="pyrometer-e2e-", suffix=".log")
        self.process = subprocess.Popen([*prefix, BINARY, *[str(a) for a in arguments]], stdin=subprocess.DEVNULL,
                                        stdout=self.output_file, stderr=subprocess.STDOUT, env=env,
                                        preexec_fn=die_with_parent)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    @property
    def pid(self):
        return self.process.pid

    def output(self):
        return pathlib.Path(self.output_file.name).read_text(errors="replace")

    def wait_for_line(self, pattern, seconds=60):
        """The match of `pattern` in the output; fails at once when the process ends before."""

        def look():
            found = re.search(pattern, self.output())
            if found is None and self.process.poll() is not None:
                raise AssertionError(f"ended with {self.process.returncode} before saying {pattern!r}:\n{self.output()}")
            return found

        return wait_for(look, seconds, f"{pattern!r} in the output:\n{self.output()}")

    def stop(self, signal_number=signal.SIGTERM, seconds=60):
        """Exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal_number)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise AssertionError(f"did not end within {seconds} s of signal {signal_number}:\n{self.output()}") from None
        return self.process.returncode

    def kill(self):
        self.stop(signal.SIGKILL)


class Scratch(unittest.TestCase):
    """A test with a scratch folder of its own, self.scratch, which it leaves empty-handed."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="pyrometer-e2e-")
        self.addCleanup(folder.cleanup)
        self.scratch = pathlib.Path(folder.name)

    def assert_one_line(self, result, code, *parts):
        """Exit code, and one line on stderr that says what is wrong (each of `parts`); nothing on stdout."""
        lines = result.stderr.strip().splitlines()
        self.assertEqual(result.returncode, code, result)
        self.assertEqual(len(lines), 1, result)
        self.assertTrue(lines[0].startswith("pyrometer: "), lines)
        for part in parts:
            self.assertIn(part, lines[0])


_doctor = None


def doctor():
    """Feature name -> state, as this binary finds it here."""
    global _doctor
    if _doctor is None:
        reply = run("doctor", "--json")
        if reply.returncode != 0:
            raise AssertionError(f"doctor failed: {reply}")
        _doctor = {item["name"]: item["state"] for item in json.loads(reply.stdout)["features"]}
    return _doctor


def need_root(test):
    if os.geteuid() != 0:
        test.skipTest("needs root")


def need_bpf(test):
    """Skips where this machine or user may not load probes, naming the feature."""
    need_root(test)
    for feature in ("bpf_perf_event", "ring_buffer", "tp_btf"):
        if doctor().get(feature) != "ok":
            test.skipTest(f"pyrometer doctor: {feature} is {doctor().get(feature)} here")


def need_program(test, *names):
    for name in names:
        if shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is None:
            test.skipTest(f"needs the program {name} (scripts/bootstrap --dev installs it)")


def need_runc(test):
    need_root(test)
    need_program(test, "runc")
    probe = command("runc", "--root", "/run/pyrometer-e2e-runc", "list")
    if probe.returncode != 0:
        test.skipTest(f"runc does not work here: {probe.stderr.strip()}")


class Container:
    """A runc container with one static program of ours and nothing else; removed on exit.

    output() is what the program printed so far; wait() waits for its own end. `resources` is that part of the runtime's
    config: {"cpu": {"quota": 10000, "period": 100000}}.
    """

    def __init__(self, name, binary, *arguments, network=None, stdin=subprocess.DEVNULL, resources=None):
        self.name = name
        self._folder = tempfile.TemporaryDirectory(prefix="pyrometer-e2e-runc-")
        self.folder = pathlib.Path(self._folder.name)
        rootfs = self.folder / "rootfs"
        for part in ("bin", "proc", "sys", "dev", "tmp", "lib", "lib64"):
            (rootfs / part).mkdir(parents=True)
        binary = pathlib.Path(binary)
        shutil.copy2(binary, rootfs / "bin" / binary.name)
        # A program that is not static brings its libraries along.
        for library in re.findall(r"(/\S+) \(0x", command("ldd", binary).stdout):
            target = rootfs / library.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(library, target)
        command("runc", "spec", cwd=self.folder)
        config = json.loads((self.folder / "config.json").read_text())
        config["process"].update(terminal=False, args=[f"/bin/{binary.name}", *[str(a) for a in arguments]], cwd="/")
        config["process"]["rlimits"] = []
        config["root"]["readonly"] = False
        config["linux"].setdefault("resources", {}).update(resources or {})
        if network:
            for namespace in config["linux"]["namespaces"]:
                if namespace["type"] == "network":
                    namespace["path"] = network
        (self.folder / "config.json").write_text(json.dumps(config))
        self._log = self.folder / "output"
        with self._log.open("wb") as log:
            done = subprocess.run(["runc", "--root", self.folder / "state", "run", "-d", "--pid-file",
                                   self.folder / "pid", "--bundle", self.folder, name],
                                  stdin=stdin, stdout=log, stderr=subprocess.STDOUT, timeout=60, check=False)
        if done.returncode != 0:
            text = self.output()
            self._folder.cleanup()
            raise AssertionError(f"runc run failed: {text}")
        self.pid = int((self.folder / "pid").read_text())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def output(self):
        return self._log.read_text(errors="replace")

    def running(self):
        state = command("runc", "--root", self.folder / "state", "state", self.name)
        return state.returncode == 0 and json.loads(state.stdout)["status"] == "running"

    def wait(self, seconds):
        wait_for(lambda: not self.running(), seconds, f"the end of container {self.name}: {self.output()}")

    def stop(self):
        if not self.folder.exists():
            return
        command("runc", "--root", self.folder / "state", "delete", "--force", self.name)
        self._folder.cleanup()


@contextlib.contextmanager
def background(*arguments):
    """A program beside the test, killed at the end."""
    process = subprocess.Popen([str(a) for a in arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, preexec_fn=die_with_parent)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def http_error(url):
    """Status and body of a request that must fail."""
    try:
        return 200, get(url)
    except urllib.error.HTTPError as error:
        return error.code, error.read()
