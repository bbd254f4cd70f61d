"""--help, man pages and completions name the same commands and flags."""

import pathlib
import re
import shutil
import unittest

import junit_unittest
from harness import command, run

TOP = pathlib.Path(__file__).resolve().parents[2]
COMPLETIONS = {name: (TOP / "scripts/completions" / name).read_text()
               for name in ("pyrometer.bash", "_pyrometer", "pyrometer.fish")}


def subcommands(help_text):
    part = re.search(r"^Subcommands:\n((?:.*\n?)*)", help_text, re.M)
    return re.findall(r"^  ([a-z]+)\s", part[1].split("\n\n")[0], re.M) if part else []


def flags(help_text):
    """Every -x and --long of an "Options:" list; not those that only the text mentions."""
    found = []
    for line in help_text.splitlines():
        match = re.match(r"^(?:  ){1,2}((?:-\w|--[\w-]+)(?:,\s?--[\w-]+)*)", line)
        if match:
            found += re.split(r",\s?", match[1])
    return sorted(set(found) - {"-h"})


def all_commands():
    """(words, help) of every command that can be run."""
    commands = []
    for name in subcommands(run("--help").stdout):
        text = run(name, "--help").stdout
        inner = subcommands(text)
        # `store` runs by itself and has subcommands too: then the usage has them in brackets.
        if not inner or "[SUBCOMMAND]" in text:
            commands.append(((name,), text))
        commands += [((name, sub), run(name, sub, "--help").stdout) for sub in inner]
    return commands


class CommandLine(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.commands = all_commands()

    def test_the_contract(self):
        names = [" ".join(words) for words, _ in self.commands]
        for wanted in ("up", "agent", "store", "store fsck", "store backup", "store restore", "record", "session start",
                       "session list", "session stop", "top", "flame", "series", "net", "export", "syscalls", "waits",
                       "convert", "symbols upload", "doctor", "ci run", "ci record", "ci compare", "ci check"):
            self.assertIn(wanted, names)

    def test_every_help_has_an_example_that_parses(self):
        for words, text in self.commands:
            with self.subTest(command=words):
                self.assertIn("Example", text)
                self.assertIn("pyrometer " + " ".join(words), text)

    def test_version(self):
        self.assertRegex(run("--version").stdout, r"^(pyrometer )?\d+\.\d+\.\d+\n$")

    def test_man_pages(self):
        for words, text in self.commands:
            page = (TOP / "docs/man" / f"pyrometer-{words[0]}.1").read_text().replace("\\-", "-")
            for flag in flags(text):
                with self.subTest(command=words, flag=flag):
                    self.assertRegex(page, rf"\\fB{re.escape(flag)}\\fP")
            # And nothing that is not there.
            if len(words) == 1 and not any(other[:-1] == words for other, _ in self.commands):
                for flag in re.findall(r"^\\fB(--[\w-]+)\\fP|, \\fB(--[\w-]+)\\fP", page, re.M):
                    with self.subTest(command=words, man=flag):
                        self.assertIn(flag[0] or flag[1], flags(text))
        overview = (TOP / "docs/man/pyrometer.1").read_text().replace("\\-", "-")
        for words, _ in self.commands:
            self.assertIn(f"pyrometer-{words[0]} (1)", overview)

    def test_man_pages_format(self):
        if shutil.which("groff") is None:
            self.skipTest("needs groff")
        for page in sorted((TOP / "docs/man").glob("*.1")):
            result = command("groff", "-man", "-Kutf8", "-Tutf8", "-ww", "-z", page)
            self.assertEqual(result.stderr, "", page)

    def test_zsh_and_fish_completions(self):
        zsh = COMPLETIONS["_pyrometer"]
        fish = COMPLETIONS["pyrometer.fish"]
        for words, text in self.commands:
            label = " ".join(words)
            quoted = f"'{label}'" if len(words) > 1 else label
            block = re.search(rf"^    {re.escape(quoted)}\)\n((?:.*\n)*?)      ;;", zsh, re.M)
            self.assertIsNotNone(block, f"zsh: {label}")
            condition = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in words)
            lines = "\n".join(line for line in fish.splitlines() if f"'{condition}'" in line)
            for flag in flags(text):
                with self.subTest(command=label, flag=flag):
                    self.assertRegex(block[1], rf"['{{,]{re.escape(flag)}[\[,}}]")
                    option = f"-l {flag[2:]} " if flag.startswith("--") else f"-s {flag[1:]} "
                    self.assertIn(option, lines)

    def test_bash_completion_as_bash_runs_it(self):
        def complete(*words):
            script = ('source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _pyrometer; '
                      'printf "%s\\n" "${COMPREPLY[@]}"')
            result = command("bash", "-c", script, "bash", TOP / "scripts/completions/pyrometer.bash", "pyrometer", *words)
            self.assertEqual(result.stderr, "")
            return result.stdout.split()

        self.assertEqual(complete("rec"), ["record"])
        self.assertEqual(complete("session", "st"), ["start", "stop"])
        self.assertEqual(complete("store", "re"), ["restore"])
        self.assertIn("--max-series", complete("store", "--"))
        self.assertEqual(complete("store", "restore", "--i"), ["--id"])
        self.assertEqual(complete("record", "--format", "sp"), ["speedscope"])
        self.assertEqual(sorted(set(complete("")) - {"--help", "--version"}), sorted({w[0] for w, _ in self.commands}))
        for words, text in self.commands:
            with self.subTest(command=words):
                self.assertEqual(sorted(set(complete(*words, "-"))), flags(text))


if __name__ == "__main__":
    junit_unittest.main()
