"""What people get wrong: one clear line, the right exit code, nothing half-written left behind."""

import gzip
import os
import pathlib
import signal
import subprocess
import threading
import time

import junit_unittest
from harness import (BINARY, Container, Daemon, Scratch, WORKLOADS, background, command, free_port, need_bpf, need_root,
                     need_runc, run, wait_for)

NOBODY = 65534


class Usage(Scratch):
    def test_unknown_flag(self):
        self.assert_one_line(run("record", "--frobnicate"), 2, "--frobnicate", "pyrometer record --help")

    def test_unknown_command(self):
        self.assert_one_line(run("frobnicate"), 2, "--help")

    def test_no_command(self):
        self.assert_one_line(run(), 2, "--help")

    def test_two_targets(self):
        self.assert_one_line(run("record", "--all", "--pid", "1"), 2)

    def test_a_command_and_a_target(self):
        self.assert_one_line(run("record", "--pid", "1", "--", "true"), 2, "own target")

    def test_zero_and_broken_durations(self):
        for duration in ("0s", "10 parsecs", "-5s", ""):
            with self.subTest(duration=duration):
                self.assertEqual(run("record", f"--duration={duration}", timeout=5).returncode, 2)

    def test_frequency_out_of_range(self):
        self.assert_one_line(run("record", "-F", "0"), 2, "--frequency", "50000")
        self.assert_one_line(run("record", "-F", "1000000"), 2, "--frequency")

    def test_unknown_probe(self):
        self.assert_one_line(run("record", "--probes", "cpu,heap"), 2, "heap", "syscalls")
        self.assert_one_line(run("session", "start", "--probes", "cpu,heap"), 2, "heap", "off-cpu")
        self.assert_one_line(run("session", "start", "--probes", "tcp"), 2, "a session has cpu and waits")
        self.assert_one_line(run("agent", "--probes", "heap"), 2, "heap", "off-cpu")

    def test_unknown_format(self):
        result = run("record", "-d", "1s", "-o", self.scratch / "profile.docx")
        self.assert_one_line(result, 2, ".pb.gz")

    def test_output_folder_absent(self):
        result = run("record", "-d", "1s", "-o", self.scratch / "no" / "profile.html")
        self.assert_one_line(result, 1, "no/profile.html")

    def test_malformed_selector_points_at_the_character(self):
        result = run("top", "cpu{service'shop'}")
        self.assertEqual(result.returncode, 2)
        lines = result.stderr.splitlines()
        caret = next(line for line in lines if line.strip() == "^")
        text = next(line for line in lines if line.endswith("cpu{service'shop'}"))
        self.assertEqual(text[caret.index("^")], "'", result.stderr)

    def test_malformed_regular_expression(self):
        self.assertEqual(run("top", '{service=~"("}').returncode, 2)

    def test_range_backwards(self):
        self.assert_one_line(run("series", "cpu", "--from", "now", "--to", "-5m"), 2, "not before")


class Stores(Scratch):
    def store(self, *arguments):
        return run("store", "--data", self.scratch / "data", "--http", f"127.0.0.1:{free_port()}", "--grpc",
                   f"127.0.0.1:{free_port()}", *arguments, timeout=20)

    def test_nobody_answers(self):
        self.assert_one_line(run("top", "--store", f"127.0.0.1:{free_port()}"), 1, "127.0.0.1:", "pyrometer")

    def test_port_taken(self):
        port = free_port()
        with Daemon("store", "--data", self.scratch / "one", "--http", f"127.0.0.1:{port}", "--grpc",
                    f"127.0.0.1:{free_port()}") as first:
            first.wait_for_line("http://")
            result = run("store", "--data", self.scratch / "two", "--http", f"127.0.0.1:{port}", "--grpc",
                         f"127.0.0.1:{free_port()}", timeout=20)
            self.assert_one_line(result, 1, f"127.0.0.1:{port}", "--http")

    def test_grpc_port_taken(self):
        port = free_port()
        with Daemon("store", "--data", self.scratch / "one", "--http", f"127.0.0.1:{free_port()}", "--grpc",
                    f"127.0.0.1:{port}") as first:
            first.wait_for_line("http://")
            result = run("store", "--data", self.scratch / "two", "--http", f"127.0.0.1:{free_port()}", "--grpc",
                         f"127.0.0.1:{port}", timeout=20)
            self.assert_one_line(result, 1, f"127.0.0.1:{port}", "--grpc")

    def test_data_folder_in_use(self):
        with Daemon("store", "--data", self.scratch / "data", "--http", f"127.0.0.1:{free_port()}", "--grpc",
                    f"127.0.0.1:{free_port()}") as first:
            first.wait_for_line("http://")
            self.assert_one_line(self.store(), 1, "in use", "--data")

    def test_data_folder_is_a_file(self):
        (self.scratch / "data").write_text("hello")
        result = self.store()
        self.assertEqual(result.returncode, 1)
        self.assertIn(str(self.scratch / "data"), result.stderr)
        self.assertEqual((self.scratch / "data").read_text(), "hello")

    def test_data_folder_not_writable(self):
        need_root(self)
        (self.scratch / "data").mkdir(mode=0o755)
        os.chmod(self.scratch, 0o755)
        binary = self.scratch / "pyrometer"
        binary.write_bytes(pathlib.Path(BINARY).read_bytes())
        binary.chmod(0o755)
        result = command("setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", binary, "store", "--data",
                         self.scratch / "data", "--http", f"127.0.0.1:{free_port()}", "--grpc",
                         f"127.0.0.1:{free_port()}", timeout=20)
        self.assert_one_line(result, 1, "not writable", "--data")
        self.assertEqual(list((self.scratch / "data").iterdir()), [])

    def test_other_addresses_than_loopback_are_refused(self):
        result = run("store", "--data", self.scratch / "data", "--http", f"0.0.0.0:{free_port()}", "--grpc",
                     f"127.0.0.1:{free_port()}", timeout=20)
        self.assert_one_line(result, 1, "--tls-cert")

    def test_the_http_port_by_mistake(self):
        port = free_port()
        with Daemon("store", "--data", self.scratch / "data", "--http", f"127.0.0.1:{port}", "--grpc",
                    f"127.0.0.1:{free_port()}") as store:
            store.wait_for_line("http://")
            self.assert_one_line(run("top", "--store", f"127.0.0.1:{port}"), 1, f"127.0.0.1:{port}")

    def test_nothing_matches(self):
        port = free_port()
        with Daemon("store", "--data", self.scratch / "data", "--http", f"127.0.0.1:{free_port()}", "--grpc",
                    f"127.0.0.1:{port}") as store:
            store.wait_for_line("http://")
            self.assert_one_line(run("top", "--store", f"127.0.0.1:{port}", '{service="nobody"}'), 1, "nothing matches")

    def test_session_without_a_node(self):
        port = free_port()
        with Daemon("store", "--data", self.scratch / "data", "--http", f"127.0.0.1:{free_port()}", "--grpc",
                    f"127.0.0.1:{port}") as store:
            store.wait_for_line("http://")
            self.assert_one_line(run("session", "start", "--store", f"127.0.0.1:{port}"), 1, "no node", "pyrometer agent")
            self.assert_one_line(run("session", "start", "--store", f"127.0.0.1:{port}", "--node", "web-3"), 1, "web-3")
            self.assert_one_line(run("session", "stop", "--store", f"127.0.0.1:{port}", "beef"), 1, "beef")


class Convert(Scratch):
    def convert(self, content, name="in.pb.gz"):
        (self.scratch / name).write_bytes(content)
        return run("convert", self.scratch / name, self.scratch / "out.folded")

    def assert_refused(self, result):
        self.assert_one_line(result, 1, "cannot convert")
        self.assertEqual(sorted(p.name for p in self.scratch.iterdir() if p.name.startswith("out")), [])

    def test_absent(self):
        self.assert_refused(run("convert", self.scratch / "absent.pb.gz", self.scratch / "out.folded"))

    def test_empty(self):
        self.assert_refused(self.convert(b""))

    def test_not_a_profile(self):
        self.assert_refused(self.convert(bytes(range(256)) * 40))

    def test_gzip_cut_short(self):
        whole = gzip.compress(b"\x0a\x04\x08\x01\x10\x02" * 2000)
        self.assert_refused(self.convert(whole[: len(whole) // 2]))

    def test_pprof_that_points_outside_of_its_tables(self):
        # sample_type {type: 1000, unit: 1000} with a string table of one entry.
        self.assert_refused(self.convert(gzip.compress(b"\x0a\x06\x08\xe8\x07\x10\xe8\x07\x32\x00")))

    def test_json_of_somebody_else(self):
        self.assert_refused(self.convert(b'{"hello": [1, 2, 3]}', "in.json"))

    def test_good_in_unknown_out(self):
        (self.scratch / "in.folded").write_text("main;work 3\n")
        self.assert_one_line(run("convert", self.scratch / "in.folded", self.scratch / "out.exe"), 2, ".folded")

    def test_formats_that_are_only_written(self):
        self.assert_refused(self.convert(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "in.svg"))


class Recording(Scratch):
    def test_no_such_process(self):
        need_root(self)
        gone = subprocess.Popen(["true"])
        gone.wait()
        self.assert_one_line(run("record", "--pid", gone.pid, "-d", "1s", "-o", self.scratch / "x.html"), 1, str(gone.pid))
        self.assertEqual(list(self.scratch.iterdir()), [])

    def test_no_such_command(self):
        result = run("record", "-o", self.scratch / "x.html", "--", "/no/such/program")
        self.assertEqual(result.returncode, 1)
        self.assertIn("/no/such/program", result.stderr)
        self.assertEqual(list(self.scratch.iterdir()), [])

    def test_no_such_container(self):
        need_bpf(self)
        result = run("record", "--container", "no-such-shop", "-d", "1s", "-o", self.scratch / "x.html")
        self.assert_one_line(result, 1, "no-such-shop")
        self.assertEqual(list(self.scratch.iterdir()), [])

    def test_no_such_cgroup(self):
        need_bpf(self)
        self.assert_one_line(run("record", "--cgroup", "/no/such", "-d", "1s"), 1, "/no/such")

    def test_a_target_that_exits_at_once(self):
        need_bpf(self)
        result = run("record", "-o", self.scratch / "x.folded", "--", "true")
        self.assertEqual(result.returncode, 0, result)
        self.assertTrue((self.scratch / "x.folded").exists())

    def test_a_command_that_fails_is_told(self):
        need_bpf(self)
        result = run("record", "--", "sh", "-c", "exit 3")
        self.assertEqual(result.returncode, 0, result)
        self.assertIn("exit code 3", result.stderr)

    def test_a_process_that_ends_before_the_time_is_up(self):
        need_bpf(self)
        with background(WORKLOADS / "spin_fp", "1") as spinner:
            threading.Thread(target=spinner.wait, daemon=True).start()  # or it would stay as a zombie
            started = time.monotonic()
            result = run("record", "--pid", spinner.pid, "-d", "60s", "-o", self.scratch / "x.folded", timeout=90)
            self.assertEqual(result.returncode, 0, result)
            self.assertIn("hot_a", (self.scratch / "x.folded").read_text())
            self.assertLess(time.monotonic() - started, 30, "it waits for a process that is gone")

    def test_container_that_ends_meanwhile(self):
        need_bpf(self)
        need_runc(self)
        with Container("pyrometer-e2e-brief", WORKLOADS / "spin_fp_static", "2"):
            result = run("record", "--container", "pyrometer-e2e-brief", "-d", "5s", "-o", self.scratch / "x.folded")
            self.assertEqual(result.returncode, 0, result)
            self.assertIn("hot_b", (self.scratch / "x.folded").read_text())


class FullDisk(Scratch):
    """A file system of 256 KiB, in a mount namespace of its own: nothing outside sees it, and it goes with it."""

    def setUp(self):
        super().setUp()
        need_root(self)

    def on_small_disk(self, size, script, timeout=60):
        text = f'mount -t tmpfs -o size={size} tmpfs "$1" && shift && cd "$1" && shift && {script}'
        probe = command("unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", self.scratch)
        if probe.returncode != 0:
            self.skipTest(f"cannot mount a small file system here: {probe.stderr.strip()}")
        return command("unshare", "-m", "sh", "-c", text, "sh", self.scratch, self.scratch, os.path.abspath(BINARY),
                       timeout=timeout)

    def test_while_recording(self):
        need_bpf(self)
        result = self.on_small_disk("64k", '"$1" record -d 1s --all -o x.html; code=$?; ls -A; exit $code')
        self.assertEqual(result.returncode, 1, result)
        self.assertIn("No space left", result.stderr)
        self.assertEqual(result.stdout.split(), [], "a partial file was left behind")

    def test_while_converting(self):
        script = ('i=0; while [ $i -lt 400 ]; do echo "main;work_$i;inner_function_number_$i $i"; i=$((i+1)); done > in.folded; '
                  '"$1" convert in.folded x.html; code=$?; ls -A; exit $code')
        result = self.on_small_disk("32k", script)
        self.assertEqual(result.returncode, 1, result)
        self.assertEqual(result.stdout.split(), ["in.folded"])

    def test_store_on_a_full_disk(self):
        result = self.on_small_disk("64k", f'"$1" store --data data --http 127.0.0.1:{free_port()} '
                                           f'--grpc 127.0.0.1:{free_port()}', timeout=30)
        self.assertEqual(result.returncode, 1, result)
        self.assertIn("space", result.stderr)
        self.assertEqual(len(result.stderr.strip().splitlines()), 1, result)


class Signals(Scratch):
    def test_interrupt_ends_a_recording_early_and_writes_it(self):
        need_bpf(self)
        with background(WORKLOADS / "spin_fp", "0"), Daemon("record", "-d", "60s", "-o", self.scratch / "x.folded") as rec:
            time.sleep(4)
            self.assertEqual(rec.stop(signal.SIGINT, 15), 0, rec.output())
        self.assertIn("hot_a", (self.scratch / "x.folded").read_text())

    def test_a_reader_that_goes_away(self):
        result = command("sh", "-c", f"'{BINARY}' --help | head -1")
        self.assertEqual(result.returncode, 0)
        self.assertEqual(result.stderr, "")


if __name__ == "__main__":
    junit_unittest.main()
