"""Progress on a terminal, a line per step in CI, nothing where neither fits.

Progress of blobs on their way: bars on a terminal, a line per blob in CI.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from nix_seed.cli.say import say
from nix_seed.core.events import OnEvent, Stage, ignore
from nix_seed.core.safe_text import safe_line
from nix_seed.core.words import human_size
from nix_seed.registry.transfer import BlobDone, BlobProgress, TagMoved

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from nix_seed.core.digests import Digest


@contextmanager
def progress(*, quiet: bool) -> Iterator[OnEvent]:
    """Yield what flows report to; everything goes to standard error."""
    if quiet:
        yield ignore
    elif sys.stderr.isatty() and not os.environ.get("CI"):
        yield from _terminal()
    else:
        yield _line


def _line(event: Any) -> None:
    """Print one line a stage: what a log of CI should hold, and no more."""
    if isinstance(event, Stage):
        say(f"nix-seed: {safe_line(event.text)}", err=True)


def _terminal() -> Iterator[OnEvent]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        yield _Bars(bar)


class _Bars:
    """One bar for the stage at work; layers that finish move it."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task: TaskID | None = None
        self._layers = 0

    def __call__(self, event: Any) -> None:
        """Show *event*, if it is one that people want to see."""
        from nix_seed.image.assemble import LayerFinished, LayerStarted

        if isinstance(event, Stage):
            self._next(event)
        elif isinstance(event, LayerStarted) and self._task is not None:
            self._layers += 1
            self._bar.update(self._task, note=f"{self._layers} written")
        elif isinstance(event, LayerFinished) and self._task is not None:
            self._bar.advance(self._task)

    def _next(self, stage: Stage) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(safe_line(stage.text), total=stage.steps, note="")


_WORDS = {"moved": "done", "linked": "linked", "present": "already there"}


@contextmanager
def transfer_progress(*, quiet: bool) -> Iterator[OnEvent]:
    """Yield what the flow reports to; everything goes to standard error."""
    if quiet:
        yield ignore
    elif sys.stderr.isatty() and not os.environ.get("CI"):
        yield from _blobs_on_terminal()
    else:
        yield Lines(sys.stderr)


class Lines:
    """Writes one line a finished blob, stage and tag to *stream*."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, event: Any) -> None:
        """Write *event*'s line, if it has one."""
        if isinstance(event, Stage):
            self._line(event.text)
        elif isinstance(event, BlobDone):
            tier = event.blob.annotations.get("io.nix-seed.tier", "config")
            size = human_size(event.blob.size)
            self._line(f"{event.blob.digest.hex[:12]}  {tier}  {size}  {_WORDS[event.how]}")
        elif isinstance(event, TagMoved):
            self._line(f"{event.tag} is {event.digest}")

    def _line(self, text: str) -> None:
        print(f"nix-seed: {safe_line(text)}", file=self._stream, flush=True)


def _blobs_on_terminal() -> Iterator[OnEvent]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    bars = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bars:
        yield _BlobBars(bars)


class _BlobBars:
    """A bar for each blob on its way, gone once it is there."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[Digest, TaskID] = {}

    def __call__(self, event: Any) -> None:
        """Show *event*, if it is one that people want to see."""
        if isinstance(event, Stage):
            self._bars.console.print(safe_line(event.text), markup=False, highlight=False)
        elif isinstance(event, BlobProgress):
            digest = event.blob.digest
            if digest not in self._tasks:
                tier = event.blob.annotations.get("io.nix-seed.tier", "config")
                self._tasks[digest] = self._bars.add_task(
                    f"{safe_line(tier)} {digest.hex[:12]}", total=event.blob.size
                )
            self._bars.update(self._tasks[digest], completed=event.done)
        elif isinstance(event, BlobDone) and event.blob.digest in self._tasks:
            self._bars.remove_task(self._tasks.pop(event.blob.digest))
