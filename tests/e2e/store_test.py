"""A store's folder: checked, backed up, restored, refused when it is older; and tenants that do not see each other."""

import json
import re
import signal
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter

import junit_unittest
from harness import Daemon, Scratch, WORKLOADS, background, free_port, get_json, http_error, need_bpf, run, wait_for


class Store(Scratch):
    def setUp(self):
        super().setUp()
        self.grpc, self.http = free_port(), free_port()

    def store(self, *arguments, data="data"):
        daemon = Daemon("store", "--data", self.scratch / data, "--http", f"127.0.0.1:{self.http}", "--grpc",
                        f"127.0.0.1:{self.grpc}", *arguments)
        self.addCleanup(daemon.stop)
        daemon.wait_for_line("http://")
        return daemon

    def status(self):
        return get_json(f"http://127.0.0.1:{self.http}/api/v1/status")["store"]

    def agent(self, *arguments):
        need_bpf(self)
        daemon = Daemon("agent", "--store", f"127.0.0.1:{self.grpc}", "--node", "n1", "--spool", self.scratch / "spool",
                        *arguments)
        self.addCleanup(daemon.stop)
        return daemon

    def types(self, *arguments):
        reply = run("series", "--store", f"127.0.0.1:{self.grpc}", *arguments, "cpu", "--from", "-1h", "--json")
        self.assertEqual(reply.returncode, 0, reply)
        return json.loads(reply.stdout)["series"]

    def test_fsck_backup_restore(self):
        store = self.store("--backup", self.scratch / "running", "--backup-every", "1s")
        with background(WORKLOADS / "spin_fp", "0"):
            agent = self.agent()
            wait_for(lambda: self.status()["batches"] >= 2, 60, "two batches")
            self.assertEqual(agent.stop(signal.SIGTERM), 0, agent.output())
        before = self.status()

        busy = run("store", "fsck", "--data", self.scratch / "data")
        self.assert_one_line(busy, 1, "in use by another pyrometer store", f"process {store.pid}")
        busy = run("store", "backup", "--data", self.scratch / "data", "--to", self.scratch / "backup")
        self.assert_one_line(busy, 1, "in use by another pyrometer store")
        self.assertEqual(store.stop(), 0, store.output())
        self.assertRegex(run("store", "restore", "--from", self.scratch / "running", "--list").stdout, r"backup 1 of \d{4}-")

        checked = run("store", "fsck", "--data", self.scratch / "data", "--json")
        self.assertEqual(checked.returncode, 0, checked)
        report = json.loads(checked.stdout)
        self.assertEqual((report["problems"], report["samples"]), (0, before["samples"]))

        made = run("store", "backup", "--data", self.scratch / "data", "--to", self.scratch / "backup")
        self.assertEqual(made.returncode, 0, made)
        refused = run("store", "restore", "--from", self.scratch / "backup", "--data", self.scratch / "data")
        self.assert_one_line(refused, 1, "not empty")
        restored = run("store", "restore", "--from", self.scratch / "backup", "--data", self.scratch / "restored")
        self.assertEqual(restored.returncode, 0, restored)
        self.store(data="restored")
        after = self.status()
        for key in ("batches", "samples", "series", "stacks"):
            self.assertEqual(after[key], before[key], key)

    def test_the_terminal_shows_what_files_hold(self):
        """Files are made of all stacks, the terminal's tables and trees of what the store merged: equal numbers."""
        self.store()
        with background(WORKLOADS / "spin_fp", "0"):
            agent = self.agent()
            wait_for(lambda: self.status()["batches"] >= 2, 60, "two batches")
            self.assertEqual(agent.stop(signal.SIGTERM), 0, agent.output())
        where = ("--store", f"127.0.0.1:{self.grpc}", "cpu", "--from", "-1h")

        def ask(*arguments):
            result = run(*arguments)
            self.assertEqual(result.returncode, 0, result)
            return result.stdout

        folded = ask("export", *where, "-o", "-", "--format", "folded")
        self.assertEqual(ask("flame", *where, "-o", "-", "--format", "folded"), folded)
        own, total, boxes = Counter(), Counter(), Counter()
        for line in folded.splitlines():
            stack, value = line.rsplit(" ", 1)
            names = [re.sub(r"_\[[kij]\]$", "", name) for name in stack.split(";") if name != "[no stack]"]
            if names:
                own[names[-1]] += int(value)
            for name in set(names):
                total[name] += int(value)
            for depth in range(len(names) + 1):
                boxes[tuple(names[:depth])] += int(value)
        whole = boxes[()]
        self.assertTrue([name for name in own if name.startswith("hot_a")], folded[:2000])

        top = json.loads(ask("top", *where, "-n", "0", "--json"))
        self.assertEqual(top["total"], whole)
        found = Counter()
        for row in top["functions"]:
            found[row["name"]] += row["self"]
        self.assertEqual(+found, +own)
        once = Counter(row["name"] for row in top["functions"])
        for row in top["functions"]:
            if once[row["name"]] == 1:  # in no two modules
                self.assertEqual(row["total"], total[row["name"]], row)
        few = json.loads(ask("top", *where, "-n", "3", "--total", "--json"))["functions"]
        self.assertEqual([row["total"] for row in few], sorted((row["total"] for row in top["functions"]), reverse=True)[:3])
        tables = ask("top", *where, "--by", "comm")
        self.assertRegex(tables, r'(?m)^\{comm="spin_fp"\}: .* of all$')

        for least in (0, 5):
            shown, times, at = Counter(), Counter(), []
            for line in ask("flame", *where, "--min-percent", str(least)).split("\n\n", 1)[1].splitlines():
                # Deep boxes are not indented further, but numbered.
                match = re.match(r".{12} +([\d.]+)%  ( *)(?:\((\d+)\) )?(.*?)(?: \[kernel\])?(?:  \(self [\d.]+%\))?$", line)
                self.assertTrue(match, line)
                at = at[:int(match[3] or len(match[2]))] + [match[4]]
                shown[tuple(at[1:])] += float(match[1])
                times[tuple(at[1:])] += 1
            seen = {path: share for path, share in shown.items() if not re.search(r"\(\d+ smaller\)$", "".join(path[-1:]))}
            for path, share in seen.items():
                # A name may stand in several binaries, each share rounded, of which the small ones are hidden.
                self.assertLess(share - 100 * boxes[path] / whole, 0.06 * times[path], path)
                self.assertGreater(share, least - 0.06, path)
            if least == 0:
                self.assertEqual(set(seen), set(boxes))
                for path, value in boxes.items():
                    self.assertAlmostEqual(seen[path], 100 * value / whole, delta=0.06 * times[path], msg=path)
            self.assertEqual(len(shown) > len(seen), least > 0, "what is smaller is counted")

    def test_fsck_names_damage(self):
        self.store().stop()
        manifest = next((self.scratch / "data").glob("MANIFEST-*"))
        data = bytearray(manifest.read_bytes())
        data[len(data) // 2] ^= 1
        manifest.write_bytes(data)
        checked = run("store", "fsck", "--data", self.scratch / "data")
        self.assertEqual(checked.returncode, 1, checked)
        self.assertIn("affects: the store does not open", checked.stdout)
        self.assert_one_line(run("store", "--data", self.scratch / "data"), 1, "restore a backup")

    def test_tools_want_their_folders(self):
        self.assert_one_line(run("store", "fsck", "--data", self.scratch / "absent"), 1, "there is no store in")
        self.assert_one_line(run("store", "backup", "--data", self.scratch / "absent", "--to", self.scratch / "b"), 1,
                             "there is no data folder")
        self.assert_one_line(run("store", "restore", "--from", self.scratch / "absent"), 1, "there is no folder")
        self.assertFalse((self.scratch / "absent").exists())

    def test_limits_are_read(self):
        for arguments, part in ((("--max-series", "many"), "--max-series: 'many' is not a number"),
                                (("--retention-bytes", "x"), "--retention-bytes: 'x' is not a size"),
                                (("--limit", "red"), "write TENANT:NAME=VALUE"),
                                (("--limit", "red:speed=1"), "no limit 'speed'; known are retention"),
                                (("--limit", "r d:max-series=1"), "no tenant name"),
                                (("--backend", "mysql://x/y"), "it begins with clickhouse://"),
                                (("--backend", "clickhouse://a,b/db"), "?cluster=NAME"),
                                (("--backend", "clickhouse://a/db", "--backup", "b"), "--backup is for profiles in"),
                                (("--query-timeout", "0"), "--query-timeout")):
            with self.subTest(arguments=arguments):
                self.assert_one_line(run("store", "--data", self.scratch / "data", *arguments), 2, part)
        self.assertFalse((self.scratch / "data").exists())

    def test_a_backend_that_is_not_there(self):
        port = free_port()
        refused = run("store", "--data", self.scratch / "data", "--backend", f"clickhouse://127.0.0.1:{port}/db")
        self.assert_one_line(refused, 1, f"127.0.0.1:{port}")
        self.assertIn("is it running", refused.stderr)

    def test_tokens_of_tenants_are_read(self):
        for name in ("all", "red"):
            (self.scratch / name).write_text(f"token-of-{name}\n")
        all_, red = ("--token-file", self.scratch / "all"), ("--tenant-token", f"red:{self.scratch}/red")
        for arguments, part in (((*all_, "--tenant-token", "red"), "write TENANT:FILE"),
                                ((*all_, "--tenant-token", f"r d:{self.scratch}/red"), "write TENANT:FILE"),
                                ((*all_, "--tenant-token", f"red:{self.scratch}/all"), "which opens all"),
                                ((*all_, *red, "--tenant-token", f"blue:{self.scratch}/red"), "of tenant 'red'")):
            with self.subTest(arguments=arguments):
                self.assert_one_line(run("store", "--data", self.scratch / "data", *arguments), 2, part)
        absent = run("store", "--data", self.scratch / "data", *all_, "--tenant-token", "red:/absent")
        self.assert_one_line(absent, 1, "/absent")
        self.assertFalse((self.scratch / "data").exists())
        self.assert_one_line(run("store", "--data", self.scratch / "data", *red), 1, "needs --token-file")

    def test_a_token_opens_its_tenant(self):
        for name in ("all", "red", "blue"):
            (self.scratch / name).write_text(f"token-of-{name}\n")
        self.store("--token-file", self.scratch / "all", "--tenant-token", f"red:{self.scratch}/red", "--tenant-token",
                   f"blue:{self.scratch}/blue")

        def get(path, name):
            request = urllib.request.Request(f"http://127.0.0.1:{self.http}{path}",
                                             headers={"Authorization": f"Bearer token-of-{name}"})
            with urllib.request.urlopen(request, timeout=30) as reply:
                return json.load(reply)

        with background(WORKLOADS / "spin_fp", "0"):
            # Names no tenant: that of the token is meant.
            agent = self.agent("--token-file", self.scratch / "red")
            wait_for(lambda: get("/api/v1/status", "all")["store"]["batches"] >= 1, 60, "a batch")
            self.assertEqual(agent.stop(signal.SIGTERM), 0, agent.output())
        self.assertEqual([node["node"] for node in get("/api/v1/nodes", "red")["nodes"]], ["n1"])
        self.assertEqual(get("/api/v1/nodes", "blue")["nodes"], [])
        self.assertEqual([tenant["tenant"] for tenant in get("/api/v1/tenants", "red")["tenants"]], ["red"])
        for path in ("/api/v1/flame?tenant=red", "/api/v1/peers?tenant=red", "/metrics"):
            with self.assertRaises(urllib.error.HTTPError) as refused:
                get(path, "blue")
            self.assertEqual(refused.exception.code, 403, path)
        self.assertNotEqual(self.types("--token-file", self.scratch / "red"), [])
        self.assertEqual(self.types("--token-file", self.scratch / "blue"), [])
        other = run("series", "--store", f"127.0.0.1:{self.grpc}", "--token-file", self.scratch / "blue", "--tenant",
                    "red", "cpu", "--json")
        self.assert_one_line(other, 1, "does not open 'red'")

    def test_tenants_and_their_limits(self):
        self.store("--limit", "red:max-series=1")
        with background(WORKLOADS / "spin_fp", "0"):
            agent = self.agent("--tenant", "red")
            wait_for(lambda: self.status()["batches"] >= 1, 60, "a batch")
            wait_for(lambda: "the store says" in agent.output(), 30, "the notice")
            self.assertEqual(agent.stop(signal.SIGTERM), 0, agent.output())
        self.assertIn("--max-series", agent.output())
        self.assertEqual(self.types(), [])
        self.assertNotEqual(self.types("--tenant", "red"), [])
        url = f"http://127.0.0.1:{self.http}/api/v1/nodes"
        self.assertEqual(get_json(url)["nodes"], [])
        self.assertEqual([node["node"] for node in get_json(url + "?tenant=red")["nodes"]], ["n1"])
        self.assertEqual(http_error(url + "?tenant=no%20name")[0], 400)

    def test_fifty_times_a_second_is_visible(self):
        """Busy for 20 ms, idle for 20 ms: a 20 ms heat map of the API shows it."""
        self.store()
        # Before others: what else runs must not change when it does.
        with background("nice", "-n", "-19", WORKLOADS / "on_off", "20"):
            agent = self.agent("--frequency", "499")
            wait_for(lambda: self.status()["batches"] >= 3, 90, "three batches")
            self.assertEqual(agent.stop(signal.SIGTERM), 0, agent.output())
        query = urllib.parse.quote('cpu{comm="on_off"}')
        url = f"http://127.0.0.1:{self.http}/api/v1/heatmap?query={query}&from=-10m"
        reply = get_json(url + "&step=1s&cell=20ms")
        self.assertGreater(reply["samples"], 1000, reply)
        self.assertEqual(reply["timed"], reply["samples"])
        self.assertEqual({len(column["cells"]) for column in reply["columns"]}, {50})
        self.assertEqual(sum(sum(column["cells"]) for column in reply["columns"]), reply["timed"])
        on = sum(sum(column["cells"][0::2]) for column in reply["columns"])
        off = sum(sum(column["cells"][1::2]) for column in reply["columns"])
        # A little spills over where the kernel lets it run late.
        self.assertGreater(on, 9 * off, f"{on} samples in the cells where it runs, {off} where it sleeps")
        # Not only in sum: nearly each single busy cell of 20 ms has samples, nearly no idle one has.
        whole = [column["cells"] for column in reply["columns"] if sum(column["cells"]) > 150]
        self.assertGreater(len(whole), 10)
        busy = [cell for cells in whole for cell in cells[0::2]]
        idle = [cell for cells in whole for cell in cells[1::2]]
        self.assertGreater(sum(cell > 0 for cell in busy) / len(busy), 0.9)
        self.assertLess(sum(cell > 1 for cell in idle) / len(idle), 0.2)
        self.assertEqual(http_error(url + "&cell=500us")[0], 400)
        self.assertEqual(http_error(url + "&step=1s&cell=30ms")[0], 400)


if __name__ == "__main__":
    junit_unittest.main()
