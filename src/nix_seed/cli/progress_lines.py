"""What people see of a flow at work: a few lines that are redrawn, or a line a step.

Both know the events of many rooms, so that this is loaded only where something is shown.
"""

import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import suppress
from textwrap import wrap
from typing import Any, TextIO

from nix_seed.cli.say import Manner, columns, unheard
from nix_seed.core.events import Stage, Waiting
from nix_seed.core.safe_text import safe_line
from nix_seed.core.words import human_size, plural
from nix_seed.flake.rules.nix_log import NixSaid, NixWork
from nix_seed.formats.oci.manifest import Descriptor
from nix_seed.registry.transfer import BlobDone, BlobProgress, TagMoved

_WORDS = {"moved": "done", "linked": "linked", "present": "already there"}
_MOST = 3  # lines of what runs now
_ROWS = 6  # of why something is tried again
_FOLD: Any = {
    "initial_indent": "  ",
    "subsequent_indent": "    ",
    "placeholder": "…",
    "break_on_hyphens": False,
}
_NOW = 0.01  # seconds
_SLOW = 30.0  # seconds for one of them


class _Timed:
    """How long Nix was at each thing of one kind, which its log says after the word *doing*."""

    def __init__(self, doing: str) -> None:
        self._word = f"{doing} "
        self._at = ("", 0.0)
        self._took: dict[str, float] = {}

    def learn(self, running: Iterable[str]) -> None:
        """Note how long the thing before took, where what is *running* is another."""
        now = next((text for text in running if text.startswith(self._word)), "")
        before, since = self._at
        if before != now:
            if before:
                self._took[before.removeprefix(self._word)] = time.monotonic() - since
            self._at = (now, time.monotonic())

    def slow(self) -> str:
        """Name what took long, the longest first."""
        self.learn(())
        slow = sorted((-took, name) for name, took in self._took.items() if took >= _SLOW)
        return ", ".join(f"{name} ({_clock(-took)})" for took, name in slow)


class _Work(ABC):
    """What is known of the step at work: its text, since when, and how far it is.

    Whoever shows it writes a ``_line`` that stays, and ``_begun`` follows where a step begins.
    """

    def __init__(self, asked: Manner) -> None:
        self.asked = asked
        self.stage: Stage | None = None
        self.since = time.monotonic()
        self.nix: NixWork | None = None
        self.layers = 0
        self.blobs: dict[str, tuple[str, int, int]] = {}
        self.moved = 0
        # What is asked for once more, and when.
        self.again = ("", 0.0)
        self.timed = (_Timed("evaluating"), _Timed("copying all of"))

    def __call__(self, event: Any) -> None:
        """Show *event*, if it is one that people want to see."""
        if isinstance(event, Stage):
            self.end()
            self.begin(event)
            self._begun(event)
        elif isinstance(event, NixSaid):
            if self.asked.verbose:
                self._line(f"{event.name}> {event.text}" if event.name else event.text)
        else:
            self.learn(event)
            if isinstance(event, TagMoved):
                self._line(f"{event.tag} is {event.digest}")

    def end(self) -> None:
        """Say what the last step took, if that is wanted."""
        if self.stage is not None and (self.asked.verbose or self._matters()):
            self._line(self.head())
        for slow in self.slow():
            self._line(slow)

    @abstractmethod
    def _begun(self, stage: Stage) -> None: ...

    @abstractmethod
    def _line(self, text: str) -> None: ...

    def _matters(self) -> bool:
        return False

    def begin(self, stage: Stage) -> None:
        """Forget the step before."""
        self.stage, self.since = stage, time.monotonic()
        self.timed = (_Timed("evaluating"), _Timed("copying all of"))
        self.nix, self.layers, self.blobs, self.moved = None, 0, {}, 0
        self.again = ("", 0.0)

    def learn(self, event: Any) -> None:
        """Take in what moves the step at work."""
        if isinstance(event, NixWork):
            self.nix = event
            for timed in self.timed:
                timed.learn(event.running)
        elif isinstance(event, Waiting):
            self.again = (event.problem, time.monotonic() + event.seconds)
        elif isinstance(event, BlobProgress):
            name = f"{_tier(event.blob)} {event.blob.digest.hex[:12]}"
            self.blobs[event.blob.digest.hex] = (name, event.done, event.blob.size)
        elif isinstance(event, BlobDone):
            self.moved += event.blob.size if event.how == "moved" else 0
            self.blobs.pop(event.blob.digest.hex, None)
        else:
            from nix_seed.image.assemble import LayerFinished
            from nix_seed.use.hydrate import LayerHydrated

            self.layers += isinstance(event, LayerFinished | LayerHydrated)

    def slow(self) -> Iterator[str]:
        """Say what took long while Nix evaluated, and how to do without."""
        evaluated, copied = (timed.slow() for timed in self.timed)
        if evaluated:
            leave = "--exclude NAME leaves an output out"
            yield f"took long to evaluate: {evaluated}; {leave}"
        if copied:
            instead = (
                '"${nixpkgs}" names the files of an input, as "${pkgs.path}" does, without a copy'
            )
            yield f"took long to copy: {copied}; {instead}"

    @property
    def seconds(self) -> float:
        """How long the step has been at work."""
        return time.monotonic() - self.since

    def head(self) -> str:
        """Return the step in a line: how long, what, how far."""
        text = safe_line(self.stage.text) if self.stage else "working"
        far = ", ".join(self._far())
        return f"{_clock(self.seconds)} {text}{': ' if far else ''}{far}"

    def _far(self) -> Iterator[str]:
        if self.nix is not None:
            for name, (done, of) in (("built", self.nix.builds), ("paths", self.nix.paths)):
                if of:
                    yield f"{done} of {of} {name}"
            if self.nix.fetched[1]:
                yield " of ".join(map(human_size, self.nix.fetched))
        if self.layers:
            steps = self.stage.steps if self.stage else None
            yield f"{self.layers} of {steps}" if steps else plural(self.layers, "layer")
        moving = self.moved + sum(done for _, done, _ in list(self.blobs.values()))
        if moving:
            yield human_size(moving)

    def waiting(self) -> str:
        """Return what is asked for once more and why, empty where nothing is."""
        problem, at = self.again
        left = at - time.monotonic()
        return f"trying again in {left:.1f} s: {safe_line(problem)}" if left > 0 else ""

    def running(self) -> list[str]:
        """Return what runs now, a line each."""
        lines = [
            f"{name}  {human_size(done)} of {human_size(size)}"
            for name, done, size in list(self.blobs.values())
        ]
        lines += [safe_line(each) for each in (self.nix.running if self.nix else ())]
        more = len(lines) - _MOST
        return lines if more <= 0 else [*lines[: _MOST - 1], f"and {more + 1} more"]


def _tier(blob: Descriptor) -> str:
    return safe_line(blob.annotations.get("io.nix-seed.tier", "config"))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class StatusLines(_Work):
    """A few lines at the end of a terminal, drawn again and again, gone at the end."""

    period = 0.25  # seconds

    def __init__(self, asked: Manner) -> None:
        super().__init__(asked)
        self._drawn = [0]  # how long each line is
        self._paused = False
        # A tick comes at any time, in the middle of another drawing too.
        self._busy = False

    def _begun(self, stage: Stage) -> None:
        # From here on the terminal is the command's.
        self._paused = stage.name == "command"
        signal.setitimer(signal.ITIMER_REAL, *((0, 0) if self._paused else (_NOW, self.period)))
        self.clear()
        self.tick()

    def tick(self) -> None:
        """Draw again."""
        if self._paused or self._busy:
            return
        self._busy = True
        width = max(20, self._columns() - 1)
        head, *running = (
            line if len(line) <= width else line[: width - 1] + "…"
            for line in (self.head(), *(f"  {each}" for each in self.running()))
        )
        # Why it waits stands at the end of that, where a cut would take it away.
        lines = [head, *wrap(self.waiting(), width, max_lines=_ROWS, **_FOLD), *running]
        self._write(self._erasure() + "\n".join(lines))
        self._drawn, self._busy = list(map(len, lines)), False

    def clear(self) -> None:
        """Take the lines away: somebody else prints."""
        self._print("")

    def _line(self, text: str) -> None:
        self._print(f"{safe_line(text)}\n")

    def _print(self, line: str) -> None:
        self._busy = True
        self._write(self._erasure() + line)
        self._drawn, self._busy = [0], False

    def _erasure(self) -> str:
        if not any(self._drawn):
            return ""
        # A terminal that became narrower has broken the lines that are too long for it now.
        rows = sum(max(1, -(-length // self._columns())) for length in self._drawn)
        return "\r" + (f"\x1b[{rows - 1}A" if rows > 1 else "") + "\x1b[J"

    def _columns(self) -> int:
        return columns(err=True) or 80

    def _write(self, text: str) -> None:
        # Not by sys.stderr, which is no place to enter twice: a tick may interrupt a print.
        data = text.encode("utf-8", "replace")
        with unheard():
            while data:
                data = data[os.write(2, data) :]


class Lines(_Work):
    """Writes one line a step, blob, layer and tag to *stream*: what a log should hold."""

    period = 30.0  # seconds

    def __init__(self, stream: TextIO, asked: Manner | None = None) -> None:
        super().__init__(asked or Manner())
        self._stream = stream

    def learn(self, event: Any) -> None:
        """Take *event* in, and write the line of a blob or layer that is done."""
        super().learn(event)
        if isinstance(event, BlobDone):
            digest, size = event.blob.digest.hex[:12], human_size(event.blob.size)
            self._line(f"{digest}  {_tier(event.blob)}  {size}  {_WORDS[event.how]}")
        elif not isinstance(event, NixWork):
            self._hydrated(event)

    def tick(self) -> None:
        """Show that the step is at work still: some CI services end what is silent for long."""
        if self.stage is not None and self.stage.name != "command":
            running = list(filter(None, (self.waiting(), *self.running())))
            # Not where the tick interrupts another line.
            with suppress(RuntimeError):
                self._line(self.head() + (f" ({running[0]})" if running else ""))

    def clear(self) -> None:
        """Do nothing: lines of a log stay."""

    def _begun(self, stage: Stage) -> None:
        self._line(stage.text)

    def _matters(self) -> bool:
        """Whether Nix built or fetched in the step."""
        return self.nix is not None and bool(self.nix.builds[0] or self.nix.paths[0])

    def _hydrated(self, event: Any) -> None:
        from nix_seed.use.hydrate import LayerHydrated

        if isinstance(event, LayerHydrated):
            about = f"{plural(event.paths, 'path')}  {human_size(event.fetched)}"
            self._line(f"{event.layer.hex[:12]}  {event.tier}  {about}")

    def _line(self, text: str) -> None:
        with unheard():
            print(f"nix-seed: {safe_line(text)}", file=self._stream, flush=True)
