"""What tests/bench/unwind_quality records: how each workload starts, how long it warms up, what its stacks look like."""

import dataclasses
import http.server
import os
import pathlib
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable

from stack_tools import CannotRun, binary


@dataclasses.dataclass
class Workload:
    name: str
    # Arguments of the program, given the scratch folder; runs until killed.
    command: Callable[[pathlib.Path], list]
    programs: tuple = ()  # needed on the PATH or by absolute path
    package: str = ""  # the Debian package that brings them
    warmup: float = 0.7
    # Work done beside it, against it: called with the scratch folder, returns what to stop (an object with .stop()).
    load: Callable | None = None
    # Function names that end a stack although no unwind information says so.
    ends: str | None = None
    # What root-first names, joined by ";", match when no frame is missing and none is wrong.
    chain: str | None = None
    # Stacks with frames of a JIT compiler are not counted: their frames are out of scope.
    native_only: bool = False
    # Why whole stacks cannot be asked for.
    no_tables: str = ""
    # The last function that has unwind information: with its caller the stack is whole, as far as can be asked.
    last_with_tables: str = ""


class Background:
    def __init__(self, arguments, environment=None):
        self.process = subprocess.Popen([str(a) for a in arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL, env={**os.environ, **(environment or {})})

    def stop(self):
        self.process.kill()
        self.process.wait()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for_port(port, seconds=20):
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise CannotRun(f"nothing listens on port {port} after {seconds} s") from None
            time.sleep(0.1)


PYTHON = """
import re, json, collections
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
text = json.dumps([{"a%d" % i: list(range(i % 9))} for i in range(500)])
while True:
    fib(15); json.loads(text); sorted(range(2000), key=lambda x: -x % 97); re.sub(r"(a\\d+)", lambda m: m[1].upper(), text[:5000])
"""
PERL = r"""
sub fib { my $n = shift; return $n < 2 ? $n : fib($n-1) + fib($n-2) }
my $t = join ",", map { "k$_" } 1..2000;
while (1) { fib(12); my @s = sort { $a cmp $b } split /,/, $t; (my $u = $t) =~ s/k(\d+)/$1 % 7/ge; }
"""
SQL = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000000)
SELECT sum(length(hex(i)) * (i % 7)), group_concat(DISTINCT substr(i, 1, 1)), max(printf('%05d', i)) FROM n;
"""
JAVA = """
import java.util.*;
public class Churn {
  public static void main(String[] arguments) throws Exception {
    for (int t = 0; t < 2; ++t) {
      new Thread(() -> { while (true) { Map<Integer, byte[]> m = new HashMap<>();
        for (int i = 0; i < 20000; ++i) m.put(i, new byte[i % 500]); } }).start();
    }
  }
}
"""
NODE = """
const zlib = require('zlib'), crypto = require('crypto');
const data = Buffer.alloc(300000, 'some text that compresses well, and some that does not: ' + Math.random());
function squeeze() { zlib.gzip(data, (error, packed) => zlib.gunzip(packed, squeeze)); }
function derive() { crypto.pbkdf2('secret', data.subarray(0, 16), 20000, 32, 'sha256', derive); }
squeeze(); derive();
setInterval(() => JSON.parse(JSON.stringify([...Array(3000).keys()].map(i => ({i, s: 'x' + i})))), 20);
"""
PAGE = b"""<!doctype html><title>load</title><style>p { border: 1px solid; border-radius: 9px; box-shadow: 2px 2px 9px }</style>
<body><script>
let n = 0;
setInterval(() => { document.body.innerHTML = ''; for (let i = 0; i < 400; ++i) { const p = document.createElement('p');
  p.textContent = 'line ' + n++ + ' ' + 'word '.repeat(i % 40); document.body.append(p); } document.body.offsetHeight; }, 10);
</script>"""


def python(scratch):
    return ["/usr/bin/python3", "-c", PYTHON]


def openssl(scratch):
    return ["sh", "-c", "while :; do openssl speed -seconds 1 rsa2048 ecdsap256 sha256 aes-128-cbc ghash; done"]


def sqlite(scratch):
    return ["sh", "-c", 'while :; do sqlite3 :memory: "$0"; done', SQL]


class Nginx:
    def __init__(self):
        self.port = free_port()

    def command(self, scratch):
        for folder in ("html", "logs", "tmp"):
            (scratch / folder).mkdir(exist_ok=True)
        (scratch / "html/index.html").write_text("x" * 5000)
        (scratch / "nginx.conf").write_text(f"""
            daemon off; worker_processes 1; user root; pid {scratch}/nginx.pid; error_log {scratch}/error.log;
            events {{ worker_connections 256; }}
            http {{ access_log {scratch}/access.log; gzip on; gzip_types *; gzip_comp_level 5;
              client_body_temp_path {scratch}/tmp; proxy_temp_path {scratch}/tmp; fastcgi_temp_path {scratch}/tmp;
              uwsgi_temp_path {scratch}/tmp; scgi_temp_path {scratch}/tmp;
              server {{ listen 127.0.0.1:{self.port}; root {scratch}/html; }} }}""")
        return ["/usr/sbin/nginx", "-p", scratch, "-c", scratch / "nginx.conf"]

    def load(self, scratch):
        wait_for_port(self.port)
        return Background(["wrk", "-t1", "-c8", "-d600s", "-H", "Accept-Encoding: gzip", f"http://127.0.0.1:{self.port}/"])


class Postgres:
    """A cluster of its own in the scratch folder, owned by nobody: postgres refuses to run as root."""

    def __init__(self):
        self.port = free_port()
        found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/postgres"))
        self.bin = found[-1].parent if found else pathlib.Path("/usr/lib/postgresql/bin")
        self.as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]

    def command(self, scratch):
        data = scratch / "pg"
        data.mkdir()
        os.chown(data, 65534, 65534)
        scratch.chmod(0o755)
        done = subprocess.run([*self.as_nobody, self.bin / "initdb", "-D", data, "-U", "bench", "--no-sync"],
                              capture_output=True, text=True, check=False, cwd="/")
        if done.returncode != 0:
            raise CannotRun(f"initdb: {done.stderr.strip().splitlines()[-1:]}")
        return [*self.as_nobody, self.bin / "postgres", "-D", data, "-p", self.port, "-k", data, "-c", "fsync=off",
                "-c", "listen_addresses=127.0.0.1"]

    def load(self, scratch):
        wait_for_port(self.port)
        place = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "bench"]
        done = subprocess.run([self.bin / "pgbench", *place, "-i", "-s", "5", "postgres"], capture_output=True, text=True,
                              check=False)
        if done.returncode != 0:
            raise CannotRun(f"pgbench -i: {done.stderr.strip().splitlines()[-1:]}")
        return Background([self.bin / "pgbench", *place, "-c", "2", "-T", "600", "-S", "postgres"])


class Java:
    def command(self, scratch):
        (scratch / "Churn.java").write_text(JAVA)
        return ["java", "-XX:+UseParallelGC", "-Xmx128m", scratch / "Churn.java"]


def java_start(scratch):
    return ["sh", "-c", "while :; do java -Xshare:off -version; done"]


class Chromium:
    """Draws a page that changes a hundred times a second; the page comes from this process, over loopback."""

    def __init__(self):
        page = PAGE

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(page)

            def log_message(self, *_):
                pass

        self.make = lambda: http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def command(self, scratch):
        self.server = self.make()
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return ["/usr/lib/chromium/chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
                "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update",
                "--disable-sync", "--remote-debugging-port=0", f"--user-data-dir={scratch}/profile",
                f"http://127.0.0.1:{self.server.server_port}/"]

    def load(self, scratch):
        class Stopper:
            def stop(_):
                self.server.shutdown()
                self.server.server_close()
        return Stopper()


# Below main, or in a library that main calls.
DEEP = r"main((;descend_even;descend_odd)*(;descend_even)?(;bottom)?|(;(?!descend|bottom)[^;]*)*)$"
GO_ENDS = r"^(runtime\.(goexit|mstart|mstart0|mcall|systemstack|rt0_go|sigreturn|clone)(\.abi0|\.\d+)?|_rt0_amd64_linux)$"


def all_workloads(folder, quick=False):
    """`folder`: where the build put the workloads."""
    def shape(name, *arguments, **named):
        program = arguments[0] if arguments and str(arguments[0]).startswith("=") else "=" + name
        rest = arguments[1:] if arguments and str(arguments[0]).startswith("=") else arguments
        path = folder / program[1:]
        return Workload(name, lambda _: [path, *rest, "0"], programs=(path,), **named)

    nginx, postgres, chromium = Nginx(), Postgres(), Chromium()
    return [
        shape("deep 30, no frame pointers", "=deep_nofp", "30", chain=DEEP),
        shape("deep 60", "=deep_nofp", "60", chain=DEEP),
        shape("deep 120", "=deep_nofp", "120", chain=DEEP),
        shape("deep 300", "=deep_nofp", "300", chain=DEEP),
        shape("deep 30, frame pointers", "=deep_fp", "30", chain=DEEP),
        shape("deep 30, static-pie", "=deep_static_pie", "30", chain=DEEP),
        shape("deep 30, static, no PIE", "=deep_static", "30", chain=DEEP),
        shape("deep 30, dynamic, no PIE", "=deep_no_pie", "30", chain=DEEP),
        shape("deep 30, musl", "=deep_musl", "30", chain=DEEP, package="musl-tools", last_with_tables="main",
              no_tables="Debian's libc.so of musl has no unwind information: whole is to main and its caller; and "
                        "musl-gcc links programs without .eh_frame_hdr, only with .eh_frame"),
        shape("deep 30, musl static", "=deep_musl_static", "30", chain=DEEP, package="musl-tools",
              last_with_tables="main", no_tables="as above, of musl's libc.a"),
        shape("callbacks of libc and libstdc++", "=callbacks",
              chain=r"main(;(by_qsort|by_std_sort|by_function\(\)?|by_function|by_destructor|[^;]*)[^;]*.*)?$"),
        shape("calls through the PLT", "=plt_churn", chain=r"main(;hop((;[^;]*plt_\d+[^;]*)|;_dl_[^;]*|;[^;]*@plt|;)*)?$"),
        shape("signal handlers", "=signals", chain=r"main(;.*)?$"),
        shape("threads", "=threads", chain=r"(main|posix_entry|std_entry|short_entry|clone3?|start_thread)"),
        shape("dlopen and dlclose", "=dlopen_churn", folder / "libplt_library.so", chain=r"main;turn"),
        shape("vdso", "=vdso", chain=r"main(;ask(;.*)?|;[^;]*)?$"),
        shape("alloca, realigned frames", "=frames",
              chain=r"main((;with_alloca;aligned)*(;with_alloca)?(;small)?|(;(?!with|aligned|small)[^;]*)*)$"),
        shape("exceptions", "=exceptions", chain=r"main(;attempt[^;]*(;climb[^;]*)*(;.*)?)?$"),
        # glibc's information for this place says that it was called.
        shape("coroutines", "=coroutine", chain=r"(__start_context;)?(main|body(;step)*)", ends=r"^__start_context$"),
        shape("vfork and exec", "=vfork_exec"),
        shape("assembly without tables, frame pointers", "=asm_frames",
              chain=r"main(;outer(;through_asm(;inner(;through_asm(;innermost)?)?)?|;asm_leaf)?|;[^;]*)?$"),
        shape("Rust, release", "=rust_release", package="rustc"),
        shape("Go, release", "=go_release", package="golang-go", ends=GO_ENDS),
        Workload("openssl speed", openssl, ("openssl",), "openssl"),
        Workload("python3", python, ("/usr/bin/python3",), "python3"),
        Workload("perl", lambda _: ["/usr/bin/perl", "-e", PERL], ("/usr/bin/perl",), "perl"),
        Workload("sqlite3", sqlite, ("sqlite3",), "sqlite3"),
        Workload("nginx", nginx.command, ("/usr/sbin/nginx", "wrk"), "nginx-light wrk", load=nginx.load),
        Workload("postgres", postgres.command, (postgres.bin / "postgres", "setpriv"), "postgresql", 1.5,
                 load=postgres.load),
        Workload("node, native side", lambda _: ["node", "-e", NODE], ("node",), "nodejs", 1.5, native_only=True),
        Workload("openjdk, native side: collector", Java().command, ("java", "javac"), "openjdk-17-jdk-headless", 4,
                 native_only=True),
        Workload("openjdk, native side: start", java_start, ("java",), "openjdk-17-jre-headless", 1, native_only=True),
        Workload("chromium, native side", chromium.command, ("/usr/lib/chromium/chromium",), "chromium", 4,
                 load=chromium.load, native_only=True,
                 no_tables="chromium ships unwind information for 4 % of its functions and omits frame pointers in some"),
    ]


def absent(workload):
    """Why it cannot run here, "" when it can."""
    missing = [str(p) for p in workload.programs if not (os.path.exists(p) or shutil.which(str(p)))]
    if not missing:
        return ""
    return f"{', '.join(missing)} is not there" + (f" (package {workload.package})" if workload.package else "; build it")


def twin_names(program):
    """[(offset in the file, name)] of a stripped program, from its twin with symbols beside it; [] without one."""
    twin = pathlib.Path(f"{program}.symbols")
    if not twin.exists():
        return []
    text = subprocess.run(["nm", "-n", twin], capture_output=True, text=True, check=False).stdout
    place = binary(str(program)).to_offset
    return [(place(int(a, 16)), name) for a, name in re.findall(r"^([0-9a-f]+) [tT] (\S+)", text, re.MULTILINE)]
