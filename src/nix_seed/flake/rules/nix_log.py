"""What Nix tells while it works, by ``--log-format internal-json`` (Nix 2.4 and newer).

A line is ``@nix`` and an object: an *activity* starts and stops, and has results in between. The
numbers are those of Nix's ``logging.hh``; what is unknown is passed over.
"""

import json
import re
from collections import deque
from collections.abc import Iterator
from typing import Any

from nix_seed.core.values import dataclass

# Kinds of activities, and of results.
_UNKNOWN = 0
_COPY, _TRANSFER, _PATHS, _BUILDS, _BUILD, _SUBSTITUTE, _TREE = 100, 101, 103, 104, 105, 108, 112
_LINE, _PROGRESS, _EXPECTED = 101, 105, 106
_PREFIX = b"@nix "
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_STORE_NAME = re.compile(r"/nix/store/[0-9a-z]{32}-([^/'\s]+)")
# What our own Nix code says (``default.nix``).
_EVALUATES = re.compile(r"trace: nix-seed evaluates ?(.*)")
# A whole tree that evaluation makes a path of its own of; Nix before 2.20 does not tell.
_COPIES = re.compile(r"copying '(/nix/store/[^/']+|«[^»]+»)/?' to the store")
_KEPT = 400  # lines of a builder's log


@dataclass(frozen=True, slots=True)
class NixWork:
    """What Nix is at: counts of builds and paths as (done, of), bytes fetched, and what runs now.

    *of* grows while Nix finds out what there is to do.
    """

    builds: tuple[int, int]
    paths: tuple[int, int]
    fetched: tuple[int, int]
    running: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NixSaid:
    """A line from Nix itself, or from the log of the builder of *name*."""

    text: str
    name: str = ""


@dataclass(slots=True)
class _Activity:
    """One that runs; *lines* is a builder's log."""

    kind: int
    text: str
    subject: str
    lines: deque[str]


class NixLog:
    """Reads such lines, in order, and keeps what an error needs to be understood."""

    def __init__(self) -> None:
        self._running: dict[int, _Activity] = {}
        self._counts: dict[int, tuple[int, int]] = {}
        self._bytes: dict[int, dict[int, tuple[int, int]]] = {_TRANSFER: {}, _COPY: {}}
        self._expected: dict[int, dict[int, int]] = {_TRANSFER: {}, _COPY: {}}
        self._said: list[str] = []
        self._logs: dict[str, deque[str]] = {}
        self._evaluating = ""

    def read(self, line: bytes) -> Iterator[NixWork | NixSaid]:
        """Take in a *line* of Nix's standard error; yield what is worth telling."""
        if not line.startswith(_PREFIX):
            # A hook's or a library's own words.
            yield from self._say(line.decode("utf-8", "replace"))
            return
        try:
            value = json.loads(line[len(_PREFIX) :])
            action, number = value["action"], int(value.get("id", 0))
            fields = list(value.get("fields") or ())
        except (
            LookupError,
            TypeError,
            ArithmeticError,
            ValueError,
            AttributeError,
            RecursionError,
        ):
            return
        if action == "msg":
            yield from self._say(str(value.get("msg", "")))
        elif action == "start":
            self._start(number, value.get("type", 0), str(value.get("text", "")), fields)
            yield self.work
        elif action == "stop":
            self._running.pop(number, None)
            yield self.work
        elif action == "result":
            yield from self._result(number, value.get("type"), fields)

    @property
    def work(self) -> NixWork:
        """What Nix is at."""
        moved = {kind: _sum(self._bytes[kind], self._expected[kind]) for kind in self._bytes}
        fetching = any(each.kind in (_COPY, _SUBSTITUTE) for each in self._running.values())
        shown = [f"evaluating {self._evaluating}"] if self._evaluating else []
        shown += [
            _shown(each)
            for each in self._running.values()
            # The download of a path says nothing that fetching the path does not.
            if each.kind != _TRANSFER or not fetching
        ]
        return NixWork(
            self._counts.get(_BUILDS, (0, 0)),
            self._counts.get(_PATHS, (0, 0)),
            max(moved.values(), key=lambda pair: pair[1]),
            tuple(dict.fromkeys(filter(None, shown))),
        )

    @property
    def error(self) -> str:
        """All that Nix said of what went wrong, after the log of each builder that it blames."""
        lines = (line for text in self._said for line in text.splitlines())
        # An option of Nix's own, which nobody who reads this has typed.
        words = "\n".join(line for line in lines if "--show-trace" not in line).strip()
        logs = [
            f"log of {_name(drv)}:\n" + "\n".join(f"  {line}" for line in lines)
            for drv, lines in self._logs.items()
            if lines and drv in words
        ]
        return "\n".join([*logs, words])

    def _say(self, text: str) -> Iterator[NixWork | NixSaid]:
        text = _ANSI.sub("", text).rstrip()
        if found := _EVALUATES.fullmatch(text):
            self._evaluating = found[1]
            yield self.work
            return
        self._said.append(text)
        yield NixSaid(text)

    def _start(self, number: int, kind: int, text: str, fields: list[Any]) -> None:
        subject = str(fields[0]) if fields else ""
        lines: deque[str] = deque(maxlen=_KEPT)
        self._running[number] = _Activity(kind, text, subject, lines)
        if kind == _BUILD:
            self._logs[subject] = lines

    def _result(self, number: int, kind: object, fields: list[Any]) -> Iterator[NixWork | NixSaid]:
        activity = self._running.get(number)
        if activity is None or not fields:
            return
        if kind == _LINE and activity.kind == _BUILD:
            text = _ANSI.sub("", str(fields[0]))
            activity.lines.append(text)
            yield NixSaid(text, _name(activity.subject))
        elif kind == _PROGRESS and len(fields) > 1 and _are_counts(fields):
            if activity.kind in (_BUILDS, _PATHS):
                self._counts[activity.kind] = (fields[0], max(fields[0], fields[1]))
            elif activity.kind in self._bytes:
                self._bytes[activity.kind][number] = (fields[0], fields[1])
            yield self.work
        elif kind == _EXPECTED and len(fields) > 1 and _are_counts(fields):
            self._expected.setdefault(fields[0], {})[number] = fields[1]


def _are_counts(fields: list[Any]) -> bool:
    return all(isinstance(each, int) and each >= 0 for each in fields)


def _sum(moved: dict[int, tuple[int, int]], expected: dict[int, int]) -> tuple[int, int]:
    done = sum(each for each, _ in moved.values())
    return done, max(done, sum(expected.values()), sum(each for _, each in moved.values()))


def _name(path: str) -> str:
    """Return ``zlib-1.3`` of a derivation's or output's path."""
    found = _STORE_NAME.search(path)
    return (found[1] if found else path).removesuffix(".drv")


def _shown(activity: _Activity) -> str:
    """Say in a word or two what an activity does, where people want to know."""
    if activity.kind == _BUILD:
        return f"building {_name(activity.subject)}"
    if activity.kind in (_COPY, _SUBSTITUTE):
        return f"fetching {_name(activity.subject)}"
    if activity.kind == _UNKNOWN and (found := _COPIES.fullmatch(activity.text)):
        return f"copying all of {found[1]}"
    return _ANSI.sub("", activity.text) if activity.kind in (_TRANSFER, _TREE) else ""
