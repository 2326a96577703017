"""``nix-seed shell`` as a person uses it: on a terminal, with a prompt and a pager."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support import built, engines
from support.distribution import nix_env

FLAKE = """{ outputs = { self }: { packages.x86_64-linux.default = derivation {
  name = "greeting"; system = "x86_64-linux"; builder = "/bin/sh";
  args = [ "-c" "echo hello > $out" ]; }; }; }"""
PROMPT = "seed:/src$ "
WAIT = 60.0


class Terminal:
    """A person at a terminal: types, and reads until something is there."""

    def __init__(self, master: int) -> None:
        self.master, self.seen = master, ""

    def until(self, words: str) -> str:
        """Read until *words* are shown; return what came, and forget it."""
        end = time.monotonic() + WAIT
        while words not in self.seen:
            ready, _, _ = select.select([self.master], [], [], end - time.monotonic())
            assert ready, f"{words!r} is not in {self.seen!r}"
            self.seen += os.read(self.master, 65536).decode()
        before, _, self.seen = self.seen.partition(words)
        return before

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def ask(self, line: str) -> str:
        """Type a line at the prompt; return what is shown before the next one."""
        self.type(line + "\n")
        return self.until(PROMPT)


@contextmanager
def shell(project: Path, *arguments: str) -> Iterator[tuple[Terminal, subprocess.Popen[bytes]]]:
    env = nix_env() | {"NIX_SEED_CACHE": str(built.workshop() / "cache"), "TERM": "xterm"}
    master, slave = pty.openpty()
    command = ["setsid", "--ctty", "--wait", sys.executable, "-m", "nix_seed", "shell", *arguments]
    subprocess.run(["stty", "rows", "10", "cols", "80"], stdin=slave, check=True)
    process = subprocess.Popen(
        command, cwd=project, env=env, stdin=slave, stdout=slave, stderr=slave
    )
    os.close(slave)
    try:
        yield Terminal(master), process
    finally:
        process.kill()
        process.wait()
        os.close(master)


@pytest.fixture(scope="module")
def layout() -> Path:
    engines.need("bwrap", "bubblewrap")
    return built.layout("seed")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    source = tmp_path / "project"
    source.mkdir()
    (source / "flake.nix").write_text(FLAKE)
    return source


def test_a_session(layout: Path, project: Path) -> None:
    where = ("--image", f"oci:{layout}", "--engine", "bwrap", "--out", str(project / "../out"))
    with shell(project, *where) as (terminal, process):
        assert "is gone when you leave" in terminal.until(PROMPT)
        assert "job control" not in terminal.ask("echo $((6 * 7)) > answer")
        assert "42" in terminal.ask("cat answer")
        # Ctrl-C ends what runs, and not the shell. What it shows was read by it: it does run, and
        # no shell that would forget the signal is about to become it.
        terminal.type("cat -E\n")
        terminal.type("read\n")
        terminal.until("read$")
        terminal.type("\x03")
        terminal.until(PROMPT)
        assert "130" in terminal.ask("echo $?")
        assert "hello" in terminal.ask("nix build && cat result")
        # A pager, though the seed has no less.
        terminal.type("seq 1 30 | $PAGER\n")
        first = terminal.until("-- space: more")
        assert re.findall(r"^\d+", first, re.MULTILINE)[-1] == "9"
        terminal.type("\n")
        assert "10" in terminal.until("-- space: more")
        terminal.type("q")
        assert "30" not in terminal.until(PROMPT)
        terminal.type("false\n")
        terminal.until(PROMPT)
        terminal.type("\x04")
        terminal.until("1 store path brought into")
        assert process.wait(WAIT) == 0
    assert (project / "result").read_text() == "hello\n"
    assert not (project / "answer").exists()


def test_without_a_terminal_it_says_what_to_do(project: Path) -> None:
    command = [sys.executable, "-m", "nix_seed", "shell"]
    done = subprocess.run(
        command, cwd=project, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "needs a terminal" in done.stderr
    assert "nix-seed run -- COMMAND" in done.stderr
