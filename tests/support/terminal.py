"""A terminal of a given width: what a command shows on it, and when."""

from __future__ import annotations

import fcntl
import itertools
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from dataclasses import dataclass

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Shown:
    """What was shown: *chunks* with the seconds at which each came, and the *code* at the end."""

    chunks: tuple[tuple[float, str], ...]
    code: int

    @property
    def text(self) -> str:
        """All of it, with what steers the terminal."""
        return "".join(text for _, text in self.chunks)

    @property
    def plain(self) -> str:
        """All of it as text; what was drawn over is still there."""
        return _ANSI.sub("", self.text).replace("\r", "")

    @property
    def lines(self) -> list[str]:
        """Each line that was ever shown, as text."""
        return [_ANSI.sub("", line) for line in re.split(r"[\r\n]|\x1b\[J", self.text)]

    def longest_silence(self, words: str = "") -> float:
        """Return the seconds of the longest wait between two of the chunks that hold *words*."""
        times = [when for when, text in self.chunks if words in text]
        return max(later - earlier for earlier, later in itertools.pairwise(times))


def in_terminal(
    command: Sequence[str],
    columns: int = 80,
    env: dict[str, str] | None = None,
    *,
    narrowed: tuple[float, int] | None = None,
) -> Shown:
    """Run *command* on a terminal of *columns*, its standard output and error both there.

    *narrowed* is after how many seconds somebody makes it how wide.
    """
    parent, child = pty.openpty()

    def resize(columns: int) -> None:
        fcntl.ioctl(parent, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    resize(columns)
    chosen = {name: value for name, value in os.environ.items() if name not in ("CI", "COLUMNS")}
    start = time.monotonic()
    process = subprocess.Popen(
        command,
        stdin=child,
        stdout=child,
        stderr=child,
        env=chosen | {"TERM": "xterm"} | (env or {}),
        start_new_session=True,
    )
    os.close(child)
    chunks = []
    while True:
        try:
            data = os.read(parent, 1 << 16)
        except OSError:
            break  # the other end has gone (EIO)
        if not data:
            break
        chunks.append((time.monotonic() - start, data.decode("utf-8", "replace")))
        if narrowed is not None and chunks[-1][0] >= narrowed[0]:
            resize(narrowed[1])
            narrowed = None
    os.close(parent)
    return Shown(tuple(chunks), process.wait())


def python(code: str) -> list[str]:
    """Return the command that runs *code*."""
    return [sys.executable, "-c", code]
