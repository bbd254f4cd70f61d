#!/usr/bin/env python3
"""Makes the first inputs of the fuzz targets here from small programs; what fuzzing finds is added by hand.

    tests/fuzz/unwind/make_seeds.py [FILE.unwind]      (a table file of pyrometer's cache)

Needs gcc and binutils.
"""
import os
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
SOURCE = """
#include <alloca.h>
#include <string.h>
#include <stdlib.h>
__attribute__((noinline)) int big(int n) { char* p = alloca(n); memset(p, n, n); return p[n / 2]; }
__attribute__((noinline, force_align_arg_pointer)) int aligned(int n) {
  char b[64] __attribute__((aligned(64))); memset(b, n, 64); return b[n & 63] + big(n); }
static int order(const void* a, const void* b) { return *(const int*)a - *(const int*)b; }
int main(int argc, char** argv) { int v[4] = {4, 3, 2, argc}; qsort(v, 4, 4, order); return aligned(argc) + v[0]; }
"""


def main():
    for name in ("cfi", "elf", "table"):
        (HERE / f"corpus_{name}").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        source = pathlib.Path(work) / "a.c"
        source.write_text(SOURCE)
        for name, flags in {"pie": ["-O2"], "static_frames": ["-O0", "-fno-omit-frame-pointer", "-no-pie"],
                            "shared": ["-Os", "-shared", "-fPIC"]}.items():
            program = f"{work}/{name}"
            subprocess.run(["gcc", *flags, "-Wl,-z,noseparate-code", "-s", "-o", program, source], check=True)
            (HERE / "corpus_elf" / name).write_bytes(pathlib.Path(program).read_bytes())
            section = f"{work}/section"
            subprocess.run(["objcopy", "-O", "binary", "--only-section", ".eh_frame", program, section], check=True)
            (HERE / "corpus_cfi" / f"{name}.eh_frame").write_bytes(b"\0" + pathlib.Path(section).read_bytes())
        subprocess.run(["gcc", "-O2", "-g", "-c", "-fno-asynchronous-unwind-tables", "-o", f"{work}/d.o", source], check=True)
        subprocess.run(["objcopy", "-O", "binary", "--only-section", ".debug_frame", "--set-section-flags",
                        ".debug_frame=alloc", f"{work}/d.o", f"{work}/section"], check=True)
        (HERE / "corpus_cfi" / "debug_frame").write_bytes(b"\1" + pathlib.Path(f"{work}/section").read_bytes())
    for path in sys.argv[1:]:
        table = pathlib.Path(path).read_bytes()
        (HERE / "corpus_table" / os.path.basename(path)).write_bytes(bytes(range(256)) + table)


if __name__ == "__main__":
    main()
