#!/usr/bin/env python3
"""Makes the first inputs of dwarf_fuzzer and index_fuzzer from real files; what fuzzing finds is added by hand.

    tests/fuzz/symbolize/make_seeds.py [--driver build/bench/tests/bench/symbolizer_driver]

Needs gcc, clang, binutils; with the driver also writes an index file.
"""
import os
import struct
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
SECTIONS = ["info", "types", "abbrev", "line", "str", "line_str", "str_offsets", "addr", "ranges", "rnglists", "cu_index"]
SOURCE = """
static inline __attribute__((always_inline)) int tax(int x) { return x > 9 ? x / 5 : x * 3; }
__attribute__((noinline)) int total(int n) { int s = 0; for (int i = 0; i < n; ++i) { int t = tax(i); s += t ^ tax(s); } return s; }
int main(int argc, char** argv) { if (argc > 100) __builtin_trap(); return total(argc) + tax(argc); }
"""
VARIANTS = {
    "gcc_v2": ["gcc", "-gdwarf-2"], "gcc_v3": ["gcc", "-gdwarf-3"], "gcc_v4": ["gcc", "-gdwarf-4"],
    "gcc_v5": ["gcc", "-gdwarf-5"], "gcc_types": ["g++", "-gdwarf-4", "-fdebug-types-section", "-x", "c++"],
    "clang_v4": ["clang", "-gdwarf-4"], "clang_v5": ["clang", "-gdwarf-5"],
    "gcc_v5_64": ["gcc", "-gdwarf-5", "-gdwarf64"],
    "split_v4": ["gcc", "-gdwarf-4", "-gsplit-dwarf"], "split_v5": ["gcc", "-gdwarf-5", "-gsplit-dwarf"],
}


def section(file, name):
    with tempfile.NamedTemporaryFile() as out:
        done = subprocess.run(["objcopy", "-O", "binary", "--only-section", name, "--set-section-flags",
                               f"{name}=alloc", file, out.name], capture_output=True)
        return open(out.name, "rb").read() if done.returncode == 0 else b""


def pack(file, tail=""):
    parts = []
    for name in SECTIONS:
        parts.append(section(file, f".debug_{name}" + ("" if name == "cu_index" else tail)))
    return b"".join(struct.pack("<I", len(part)) + part for part in parts)


def main():
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "shop.c")
        open(source, "w").write(SOURCE)
        for name, command in VARIANTS.items():
            program = os.path.join(folder, name)
            subprocess.run(command + ["-O2", "-nostartfiles", "-Wl,-e,main", "shop.c", "-o", program], cwd=folder,
                           check=True)
            open(os.path.join(HERE, "corpus_dwarf", name), "wb").write(pack(program))
            dwo = [f for f in os.listdir(folder) if f.endswith(".dwo")]
            if name.startswith("split"):
                open(os.path.join(HERE, "corpus_dwarf", name + "_dwo"), "wb").write(
                    pack(os.path.join(folder, dwo[0]), ".dwo"))
            for file in dwo:
                os.unlink(os.path.join(folder, file))
        program = os.path.join(folder, "gcc_v5")
        open(os.path.join(HERE, "corpus_elf", "dwarf_v5"), "wb").write(open(program, "rb").read())
        subprocess.run(["objcopy", "--compress-debug-sections=zlib", program, program + "_z"], check=True)
        open(os.path.join(HERE, "corpus_elf", "dwarf_v5_compressed"), "wb").write(open(program + "_z", "rb").read())
        if len(sys.argv) == 3 and sys.argv[1] == "--driver":
            subprocess.run([os.path.abspath(sys.argv[2]), program, "--index",
                            os.path.join(HERE, "corpus_index", "small.psym")], stdin=subprocess.DEVNULL, check=True,
                           stderr=subprocess.DEVNULL)


main()
