"""Progress: a few lines that are redrawn on a terminal, a line a step in CI and in pipes.

Everything goes to standard error. The clock ticks by a signal, not by a thread: a process with
threads may not fork workers.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nix_seed.cli.say import Manner, manner
from nix_seed.core.events import OnEvent, ignore, listening

if TYPE_CHECKING:
    from nix_seed.cli.progress_lines import Lines, StatusLines


@contextmanager
def progress(*, quiet: bool = False) -> Iterator[OnEvent]:
    """Yield what flows report to. Off a terminal, *quiet* leaves out what is not asked for."""
    asked = manner()
    terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    redrawn = terminal and not os.environ.get("CI")
    if asked.quiet or (quiet and not asked.verbose and not redrawn):
        yield ignore
        return
    shown = _shown(asked, redrawn)
    asked.clear = shown.clear
    try:
        with listening(shown), _ticking(shown.tick, shown.period):
            yield shown
        shown.end()
    finally:
        shown.clear()
        asked.clear = None


def _shown(asked: Manner, redrawn: bool) -> StatusLines | Lines:
    from nix_seed.cli.progress_lines import Lines, StatusLines

    return StatusLines(asked) if redrawn else Lines(sys.stderr, asked)


@contextmanager
def _ticking(tick: Callable[[], None], period: float) -> Iterator[None]:
    """Call *tick* every *period* seconds, whatever the main thread waits for."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, lambda *_: tick())
    signal.setitimer(signal.ITIMER_REAL, period, period)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
