"""`pyrometer up`: how long until the first flame graph, and the page itself in a browser."""

import http.client
import time
import urllib.error

import junit_unittest
from harness import Daemon, Scratch, WORKLOADS, background, command, free_port, get, get_json, need_bpf, need_program, wait_for
from formats_test import CHROMIUM

AIM_SECONDS = 15


class Page(Scratch):
    def setUp(self):
        super().setUp()
        need_bpf(self)
        self.http = free_port()
        self.url = f"http://127.0.0.1:{self.http}"

    def up(self):
        return Daemon("up", "--data", self.scratch / "data", "--http", f"127.0.0.1:{self.http}", "--grpc",
                      f"127.0.0.1:{free_port()}")

    def flame(self):
        try:
            reply = get_json(f"{self.url}/api/v1/flame?query=cpu")
        except (urllib.error.URLError, OSError):
            return None
        return reply if "hot_a" in str(reply["strings"]) else None

    def test_first_flame_graph_and_page(self):
        with background(WORKLOADS / "spin_fp", "0"):
            started = time.monotonic()
            with self.up() as up:
                self.assertEqual(up.wait_for_line(r"^http://\S+")[0], self.url)
                listening = time.monotonic() - started
                wait_for(self.flame, 40, "a flame graph with the workload in it")
                first = time.monotonic() - started
                print(f"  listening after {listening:.1f} s, first flame graph after {first:.1f} s")
                self.assertLess(first, AIM_SECONDS)

                html = get(f"{self.url}/").decode()
                self.assertIn("<script", html)
                self.assertEqual(get(f"{self.url}/some/view"), get(f"{self.url}/"))
                with self.assertRaises(urllib.error.HTTPError) as absent:
                    get(f"{self.url}/no/such/file.js")
                self.assertEqual(absent.exception.code, 404)

                need_program(self, "chromium")
                browser = (*CHROMIUM, f"--user-data-dir={self.scratch}/profile", "--virtual-time-budget=8000")
                overview = command(*browser, "--dump-dom", f"{self.url}/", timeout=120)
                self.assertIn("All probes work", overview.stdout)
                flame = command(*browser, "--dump-dom", f"{self.url}/?view=flame", timeout=120)
                self.assertIn("<canvas", flame.stdout)
                self.assertIn("hot_a", flame.stdout, "the table beside the graph names the functions")
                shot = self.scratch / "shot.png"
                command(*browser, f"--screenshot={shot}", f"{self.url}/?view=flame", timeout=120)
                self.assertGreater(shot.stat().st_size, 15000, "an empty page compresses to less")
                self.assertEqual(up.stop(), 0)
            again = time.monotonic()
            with self.up() as up:  # data of the first run is still there
                up.wait_for_line(r"^http://\S+")
                self.assertTrue(self.flame(), "what was stored before the restart is gone")
                print(f"  restart: {time.monotonic() - again:.1f} s")

    def test_answers_only_to_its_own_name(self):
        with self.up() as up:
            up.wait_for_line(r"^http://\S+")
            connection = http.client.HTTPConnection("127.0.0.1", self.http, timeout=10)
            connection.request("GET", "/api/v1/status", headers={"Host": "evil.example"})
            self.assertIn(connection.getresponse().status, (400, 403, 421))
            connection.close()


if __name__ == "__main__":
    junit_unittest.main()
