"""Profilers run on one target, and their stacks in one common form. Used by the benchmarks of this folder.

    with Target(["sleep", "9"], scratch) as target:
        for tool in (Pyrometer(binary), PerfDwarf(8192), PerfFp(), Bpftrace()):
            result = tool.record(target, seconds=5, rate=399, scratch=scratch)
            whole = sum(s.count for s in result.stacks if is_whole(s))

A stack is whole when its outermost user frame lies in code that nothing called: the entry point of an ELF file
(`_start` of the program or of ld.so), or code whose unwind information says that there is no return address (clone,
clone3, __start_context), or a function that the caller names (Go's goexit has no unwind information). Frames are
compared by address, so stripped files are judged alike.
"""

import bisect
import collections
import functools
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import time

Frame = collections.namedtuple("Frame", "name file offset kind")  # offset: in the file; kind: native jit unknown cut
Stack = collections.namedtuple("Stack", "count comm user kernel")  # user and kernel: leaf first; kernel: names
# Stacks of one recording; what the tool lost or dropped; its own CPU seconds; bytes it wrote; remarks.
Result = collections.namedtuple("Result", "stacks lost cpu_seconds output_bytes notes")

ENTRY_BYTES = 0x60  # _start is at most 0x30 bytes long; ld.so's _start is followed by _dl_start_user
# A user process without user frames is right only while it has no user memory: before, in and after exec and exit.
KERNEL_ONLY = re.compile(r"ret_from_fork|execve|bprm|do_exit|do_group_exit|kthread|schedule_tail|exit_mmap")


class CannotRun(Exception):
    """A tool or workload that does not work here; the text says why."""


class Binary:
    """What is needed of an ELF file: where code is that has no caller."""

    def __init__(self, path):
        header = subprocess.run(["readelf", "-hlW", path], capture_output=True, text=True, check=False).stdout
        self.segments = [tuple(int(x, 16) for x in m) for m in re.findall(
            r"LOAD\s+(0x[0-9a-f]+)\s+(0x[0-9a-f]+)\s+0x[0-9a-f]+\s+(0x[0-9a-f]+)", header)]
        entry = re.search(r"Entry point address:\s+(0x[0-9a-f]+)", header)
        self.ranges = []
        if entry and int(entry[1], 16) and self.segments:
            self.ranges.append((int(entry[1], 16), int(entry[1], 16) + ENTRY_BYTES))
        # Only libc has more of them; decoding the tables of everything would take minutes.
        if re.search(r"/(libc|libpthread|ld)[-.][^/]*$", str(path)):
            self.ranges += self._undefined_return_addresses(path)
        self.ranges = [(self.to_offset(a), self.to_offset(a) + b - a) for a, b in self.ranges]

    @staticmethod
    def _undefined_return_addresses(path):
        text = subprocess.run(["readelf", "--debug-dump=frames", path], capture_output=True, text=True, check=False).stdout
        found = []
        for record in text.split("\n\n"):
            span = re.search(r"FDE .*pc=([0-9a-f]+)\.\.([0-9a-f]+)", record)
            if span and "DW_CFA_undefined: r16" in record:
                found.append((int(span[1], 16), int(span[2], 16)))
        return found

    def to_offset(self, address):
        for offset, start, size in self.segments:
            if start <= address < start + size:
                return address - start + offset
        return address

    def is_outermost(self, offset):
        # Return addresses are given with or without the 1 that makes them point into the call.
        return any(start - 1 <= offset <= end for start, end in self.ranges)


_binaries = {}


def known(path):
    """True when `path` can be read, or could be: what was asked for once is remembered beyond the file's end."""
    return path in _binaries or os.path.isfile(path)


def binary(path):
    if path not in _binaries:
        _binaries[path] = Binary(path)
    return _binaries[path]


def is_whole(stack, ends=None):
    """`ends`: a compiled pattern of functions that end a stack besides those that the files tell."""
    if not stack.user:
        return any(KERNEL_ONLY.search(name) for name in stack.kernel)
    outer = stack.user[-1]
    if ends and outer.name and ends.search(outer.name):
        return True
    return bool(outer.file and outer.offset is not None and known(outer.file)
                and binary(outer.file).is_outermost(outer.offset))


def descendants(pid):
    """pid and everything below it, now."""
    parents = collections.defaultdict(list)
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                parents[parent].append(int(entry.name))
            except (OSError, IndexError):
                continue
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        todo += parents[found[-1]]
    return found


class Maps:
    """Executable mappings of processes, kept after they ended: virtual address -> (file, offset)."""

    def __init__(self):
        self.ranges = collections.defaultdict(list)

    def read(self, pids):
        for pid in pids:
            try:
                lines = pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines()
            except OSError:
                continue
            for line in lines:
                fields = line.split(None, 5)
                if "x" not in fields[1]:
                    continue
                start, end = (int(x, 16) for x in fields[0].split("-"))
                name = fields[5] if len(fields) > 5 else ""
                bisect.insort(self.ranges[pid], (start, end, int(fields[2], 16), name))

    def find(self, pid, address):
        """(file, offset); ("", None) for executable memory without a file; None outside of all."""
        for start, end, offset, name in self.ranges.get(pid, ()):
            if start <= address < end:
                return (name, address - start + offset) if name.startswith("/") else (name, None)
        return None


class Target:
    """A program in a cgroup of its own (where cgroup2 is mounted), killed with all its descendants at the end."""

    def __init__(self, arguments, scratch, environment=None):
        mount = re.search(r"^\S+ (\S+) cgroup2 ", pathlib.Path("/proc/mounts").read_text(), re.MULTILINE)
        self.cgroup = pathlib.Path(mount[1]) / f"pyrometer-bench-{os.getpid()}" if mount else None
        if self.cgroup:
            self.cgroup.mkdir(exist_ok=True)
        self.output = open(os.path.join(scratch, "target.log"), "wb")

        def enter():
            os.setsid()
            if self.cgroup:
                (self.cgroup / "cgroup.procs").write_text("0")

        self.process = subprocess.Popen([str(a) for a in arguments], stdin=subprocess.DEVNULL, stdout=self.output,
                                        stderr=subprocess.STDOUT, cwd=scratch, preexec_fn=enter,
                                        env={**os.environ, **(environment or {})})
        self.pid = self.process.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for _ in range(50):
            pids = self.pids()
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            self.process.poll()
            if not self.cgroup and self.process.returncode is not None:
                break
            if self.cgroup:
                try:
                    self.cgroup.rmdir()
                    break
                except OSError:
                    pass
            time.sleep(0.1)
        self.process.wait()
        self.output.close()

    def pids(self):
        if self.cgroup:
            return [int(x) for x in (self.cgroup / "cgroup.procs").read_text().split()]
        return descendants(self.pid) if self.process.poll() is None else []

    def check(self):
        if self.process.poll() is not None:
            text = pathlib.Path(self.output.name).read_text(errors="replace").strip().splitlines()
            raise CannotRun(f"it ended with {self.process.returncode}: {text[-1] if text else 'no output'}")


def run_for(arguments, seconds, stop=None, limit=180, **named):
    """Runs a tool; after `seconds` sends it `stop` (None: it ends by itself). (exit code, output, CPU seconds)."""
    if shutil.which(str(arguments[0])) is None:
        raise CannotRun(f"{arguments[0]} is not installed")
    # SIGINT must work: a shell may have told its background children to ignore it.
    process = subprocess.Popen([str(a) for a in arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, errors="replace",
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler), **named)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        if stop is not None:
            try:
                output, _ = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                process.send_signal(stop)
                output, _ = process.communicate(timeout=limit)
        else:
            output, _ = process.communicate(timeout=seconds + limit)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise CannotRun(f"{arguments[0]} did not end within {limit} s") from None
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return process.returncode, output, cpu


class Pyrometer:
    """The program under test."""

    def __init__(self, path, name="pyrometer"):
        self.path, self.name = path, name

    def record(self, target, seconds, rate, scratch):
        output = os.path.join(scratch, "pyrometer.json")
        arguments = [self.path, "record", "--pid", target.pid, "-d", f"{seconds}s", "-F", rate, "--top", 0, "-o", output]
        code, text, cpu = run_for(arguments, seconds)
        if code != 0:
            raise CannotRun(f"pyrometer record ended with {code}: {text.strip().splitlines()[-1:]}")
        stacks, accounting = self.read(output)
        stops = accounting["stopReasons"]
        notes = ", ".join(f"{reason} {count}" for reason, count in sorted(stops.items(), key=lambda x: -x[1]))
        return Result(stacks, sum(accounting["dropped"].values()), cpu, os.path.getsize(output), f"stops: {notes}")

    @staticmethod
    def alias(path, original):
        """A file that is gone: `original` has the same content."""
        _binaries[path] = binary(original)

    @staticmethod
    def read(path):
        """(stacks, accounting) of a pyrometer-profile (docs/formats/json.md)."""
        profile = json.loads(pathlib.Path(path).read_text())
        number = lambda row, key: int(row.get(key, 0))
        text = profile["strings"]
        files = [text[number(m, "file")].removesuffix(" (deleted)") for m in profile["mappings"]]
        names = [text[number(f, "name")] for f in profile["functions"]]
        frames = []
        for frame in profile["frames"]:
            lines = frame.get("lines", [])
            name = names[int(lines[-1]["function"])] if lines and int(lines[-1].get("function", 0)) else ""
            file, kind = files[number(frame, "mapping")], frame.get("kind", "unknown")
            offset = None
            if kind == "native" and file.startswith("/") and known(file):
                offset = binary(file).to_offset(number(frame, "address"))
            frames.append(Frame(name, file, offset, {"synthetic": "cut"}.get(kind, kind)))
        parents, of = profile["stacks"]["parent"], profile["stacks"]["frame"]

        @functools.lru_cache(maxsize=None)
        def listed(stack):  # leaf first
            found = []
            while stack:
                found.append(frames[int(of[stack])])
                stack = int(parents[stack])
            return found

        stacks = []
        labels, rows, values = profile["labelSets"], profile["samples"], profile["samples"]["values"]
        for position, stack in enumerate(rows["stack"]):
            all_frames = listed(int(stack))
            stacks.append(Stack(int(values[0][position]), labels[int(rows["labels"][position])].get("comm", ""),
                                [f for f in all_frames if f.kind != "kernel"],
                                [f.name for f in all_frames if f.kind == "kernel"]))
        return stacks, profile["accounting"]


class Perf:
    """perf record with one kind of call graph. `--no-inline`: physical frames, as the others count them."""

    def __init__(self, name, call_graph):
        self.name, self.call_graph = name, call_graph

    def record(self, target, seconds, rate, scratch):
        data = os.path.join(scratch, "perf.data")
        # Room for many threads' buffers is limited: smaller ones then. And a process may end while perf opens it.
        for pages in ("8M", "1M", "128K", "128K", "128K"):
            before = set(target.pids())
            time.sleep(0.3)
            pids = sorted(before & set(target.pids()))
            code, text, cpu = run_for(["perf", "record", "-e", "cpu-clock", "-F", rate, *self.call_graph, "-m", pages,
                                       "-o", data, "-p", ",".join(map(str, pids))], seconds, stop=signal.SIGINT)
            if os.path.exists(data) and os.path.getsize(data) and "failed to mmap" not in text:
                break
        if not os.path.exists(data) or not os.path.getsize(data):
            raise CannotRun(f"perf record ended with {code}: {text.strip().splitlines()[-1:]}")
        size = os.path.getsize(data)
        lost = sum(int(n) for n in re.findall(r"lost (\d+)", text))
        try:
            _, script, _ = run_for(["perf", "script", "-i", data, "--no-inline", "--max-stack", 1024,
                                    "-F", "comm,pid,tid,ip,sym,symoff,dso"], 0)
        finally:
            os.unlink(data)
        return Result(self.parse(script), lost, cpu, size, "")

    @staticmethod
    def parse(text):
        counts = collections.Counter()
        for block in text.split("\n\n"):
            lines = [line for line in block.splitlines() if line.strip()]
            # perf's own warnings come between samples.
            heads = [i for i, line in enumerate(lines) if re.match(r"\S.*\s\d+/\d+\s", line + " ")]
            if not heads:
                continue
            comm = re.match(r"(.*?)\s+\d+/\d+", lines[heads[-1]])[1]
            user, kernel = [], []
            for line in lines[heads[-1] + 1:]:
                match = re.match(r"\s+([0-9a-f]+) (.*?) \((.*)\)$", line)
                if not match:
                    continue
                address, symbol, file = int(match[1], 16), match[2], match[3].replace(" (deleted)", "")
                name = "" if symbol == "[unknown]" else re.sub(r"\+0x[0-9a-f]+$", "", symbol)
                if file.startswith(("[kernel", "[guest")) or (file.startswith("[") and address >= 1 << 63) \
                        or (address >= 1 << 47):
                    kernel.append(name)
                elif file.startswith("/tmp/perf-") or file == "//anon":
                    user.append(Frame(name, file, None, "jit"))
                elif file.startswith("/") or file == "[vdso]":
                    user.append(Frame(name, file, address, "native"))
                else:
                    user.append(Frame(name, file, None, "unknown"))
            counts[comm, tuple(user), tuple(kernel)] += 1
        return [Stack(count, comm, list(user), list(kernel)) for (comm, user, kernel), count in counts.items()]


class Bpftrace:
    """bpftrace's profile probe; frame pointers, at most 127 frames."""

    name = "bpftrace"

    def record(self, target, seconds, rate, scratch):
        if target.cgroup:
            who = f"cgroup == {target.cgroup.stat().st_ino}"
        else:
            who = " || ".join(f"pid == {pid}" for pid in target.pids())
        maps = Maps()
        maps.read(target.pids())
        program = (f"profile:hz:{rate} /{who}/ {{ @[ustack(perf, 127), kstack(perf, 127), pid, comm] = count(); }} "
                   f"interval:s:{max(1, round(seconds))} {{ exit(); }}")
        # It looks up its names at the end: of node or chromium for longer than anybody waits.
        code, text, cpu = run_for(["bpftrace", "-e", program], seconds, limit=60,
                                  env={**os.environ, "BPFTRACE_MAP_KEYS_MAX": "65536"})
        if "Attaching" not in text:
            raise CannotRun(f"bpftrace ended with {code}: {text.strip().splitlines()[-1:]}")
        maps.read(target.pids())
        return Result(self.parse(text, maps), 0, cpu, 0, "")

    @staticmethod
    def parse(text, maps):
        stacks = []
        for match in re.finditer(r"^@\[\n?(.*?)\n?, \n?(.*?)\n?, (\d+), (.*?)\]: (\d+)$", text, re.MULTILINE | re.DOTALL):
            pid, user = int(match[3]), []
            for address, symbol, file in re.findall(r"^\s+([0-9a-f]+) (.*?) \((.*)\)$", match[1], re.MULTILINE):
                place = maps.find(pid, int(address, 16))
                name = "" if symbol.startswith("0x") else re.sub(r"\+\d+$", "", symbol)
                if place is None:
                    kind, path, offset = ("native" if file.startswith("/") else "unknown"), file, None
                else:
                    path, offset = place
                    kind = "native" if offset is not None or path == "[vdso]" else "jit"
                user.append(Frame(name, path, offset, kind))
            kernel = re.findall(r"^\s+[0-9a-f]+ (.*?)(?:\+\d+)?$", match[2], re.MULTILINE)
            stacks.append(Stack(int(match[5]), match[4], user, kernel))
        return stacks


def machine(top):
    cpu = re.search(r"model name\s*:\s*(.*)", pathlib.Path("/proc/cpuinfo").read_text())
    commit = subprocess.run(["git", "-C", top, "-c", f"safe.directory={top}", "rev-parse", "--short", "HEAD"],
                            capture_output=True, text=True, check=False).stdout.strip()
    return f"{os.cpu_count()} × {cpu[1] if cpu else '?'}, Linux {os.uname().release}, commit {commit or '?'}"
