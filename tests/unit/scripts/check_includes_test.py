"""scripts/check-includes finds every kind of forbidden edge, and only those."""

import pathlib
import subprocess
import tempfile
import unittest

import junit_unittest

TOP = pathlib.Path(__file__).resolve().parents[3]
SCRIPT = TOP / "scripts" / "check-includes"


class CheckIncludes(unittest.TestCase):
    def run_on(self, files):
        with tempfile.TemporaryDirectory() as folder:
            for name, text in files.items():
                path = pathlib.Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            run = subprocess.run([SCRIPT, folder], capture_output=True, text=True, check=False)
            self.assertEqual(run.stderr, "")
            return run.returncode, run.stdout.splitlines()

    def assert_forbidden(self, name, include, part):
        code, lines = self.run_on({name: f"// text\n#include {include}\n"})
        self.assertEqual((code, len(lines)), (1, 1), lines)
        self.assertTrue(lines[0].startswith(f"{name}:2: "), lines)
        self.assertIn(part, lines[0])

    def test_the_tree_itself_is_clean(self):
        run = subprocess.run([SCRIPT], capture_output=True, text=True, check=False)
        self.assertEqual((run.returncode, run.stdout), (0, ""))

    def test_allowed_edges(self):
        code, lines = self.run_on({
            "userspace/agent/a.cc": '#include "userspace/base/x.h"\n#include "ui-export/formats/f.h"\n#include <map>\n',
            "userspace/kernel/k.cc": '#include <bpf/libbpf.h>\n#include "bpf/cpu_sampler.skel.h"\n#include "bpf/abi/a.h"\n',
            "userspace/process/p.h": '#include "bpf/abi/process_event.h"\n#include "userspace/process/q.h"\n',
            "userspace/rpc/r.cc": '#include <grpcpp/grpcpp.h>\n#include "proto/pyrometer/v1/pyrometer.pb.h"\n',
            "userspace/store/s.cc": "#include <rocksdb/db.h>\n",
            "ui-export/formats/f.cc": '  #  include "proto/pprof/profile.pb.h"\n#include "userspace/profile/p.h"\n',
            "bpf/probes/p.bpf.c": '#include "bpf/lib/owner.h"\n#include <bpf/bpf_helpers.h>\n',
        })
        self.assertEqual((code, lines), (0, []))

    def test_a_room_may_not_include_a_later_one(self):
        self.assert_forbidden("userspace/store/s.cc", '"userspace/agent/spool.h"', "store comes before agent")
        self.assert_forbidden("userspace/base/b.h", '"userspace/elf/e.h"', "base comes before elf")
        self.assert_forbidden("userspace/query/q.cc", '"ui-export/formats/f.h"', "query comes before formats")
        self.assert_forbidden("ui-export/formats/f.cc", '"userspace/rpc/r.h"', "formats comes before rpc")

    def test_libbpf_belongs_to_kernel(self):
        for header in ("<bpf/libbpf.h>", "<bpf/bpf.h>", '"bpf/cpu_sampler.skel.h"', "<linux/bpf.h>"):
            self.assert_forbidden("userspace/process/p.cc", header, "only the room kernel")

    def test_probe_internals_belong_to_kernel(self):
        self.assert_forbidden("userspace/agent/a.cc", '"bpf/lib/owner.h"', "only bpf/abi is shared")

    def test_database_grpc_and_generated_code_have_one_owner_each(self):
        self.assert_forbidden("userspace/query/q.cc", "<rocksdb/db.h>", "only the room store")
        self.assert_forbidden("userspace/server/s.cc", "<grpcpp/server.h>", "only the room rpc")
        self.assert_forbidden("userspace/agent/a.cc", '"proto/pyrometer/v1/pyrometer.pb.h"', "only the room rpc")
        self.assert_forbidden("userspace/agent/a.cc", '"proto/pprof/profile.pb.h"', "only ui-export/formats")

    def test_bpf_includes_nothing_of_userspace(self):
        self.assert_forbidden("bpf/probes/p.bpf.c", '"userspace/base/types.h"', "both worlds")

    def test_unknown_rooms_are_named(self):
        self.assert_forbidden("userspace/cellar/c.cc", "<map>", "no place in the order")
        self.assert_forbidden("userspace/cli/c.cc", '"userspace/cellar/c.h"', "unknown room")


if __name__ == "__main__":
    junit_unittest.main()
