"""Progress on a terminal, a line per step in CI, nothing where neither fits."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from nix_seed.cli.say import say
from nix_seed.flows.events import OnEvent, Stage, ignore
from nix_seed.ground.harmless import harmless_line

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["progress"]


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
        say(f"nix-seed: {harmless_line(event.text)}", err=True)


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
        from nix_seed.flows.assemble import LayerFinished, LayerStarted

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
        self._task = self._bar.add_task(harmless_line(stage.text), total=stage.steps, note="")
