"""What may an image rest on? Rules over its trust roots, and which of them it breaks.

::

    executed-seed-max=1KiB   no executed binary that was not built here is larger (0: there is none)
    binary-max=0             nothing fetched or added holds more machine code, archives included
    built-here               every path that was built was built here, none substituted
    no-impure                no derivation may see more than its inputs
    no-host                  no program of the building machine is executed

A rule that cannot be judged, because a file is not here, is neither kept nor broken.

The graph of trust roots, stop by stop: what each was built from, and what it went into.

A graph of many thousand derivations is too large for a page. What is left out is counted: kept are
the ways from the image to what matters most, and then what is nearest to the image.
"""

from __future__ import annotations

import re
import tomllib
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field
from typing import Any, Literal, Self

from nix_seed.core.errors import InputError
from nix_seed.core.values import dataclass
from nix_seed.flake.rules.signatures import Signers
from nix_seed.formats.nix.store_path import Derivation, StorePath
from nix_seed.roots.rules.roots import HostProgram, Impurity, Roots

_UNITS = {"": 1, "b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3}
_UNITS |= {"kib": 1024, "mib": 1024**2, "gib": 1024**3}
_SIZE = re.compile(r"(\d{1,15})\s*([a-z]*)\Z", re.IGNORECASE)
_SIZES = ("executed-seed-max", "binary-max")
_FLAGS = ("built-here", "no-impure", "no-host")


@dataclass(frozen=True, slots=True)
class Binary:
    """Machine code that was not built: a file that is executed, or what holds one (*inside*).

    *size* in bytes and *digest* (SHA-256) are of the *file*, None where it is not in the store.
    """

    path: StorePath
    file: str
    size: int | None
    digest: str | None
    form: str | None
    inside: str = ""
    urls: tuple[str, ...] = ()
    used_by: StorePath | None = None

    def __str__(self) -> str:
        return f"{self.path}/{self.file}" if self.file else str(self.path)


@dataclass(frozen=True, slots=True)
class Substituted:
    """An output that was not built here, and who signed it (nobody: merely copied)."""

    path: StorePath
    signers: Signers


@dataclass(frozen=True, slots=True)
class Findings:
    """What the rules look at.

    *executed* seeds and other *binaries* differ in that the first are run as they are; *unseen*
    are ends whose content is not in the store, *unknown* paths whose origin nobody knows. *unread*
    are builders that are not in the store: they may be scripts, which programs of the *host* run.
    """

    executed: Sequence[Binary] = ()
    binaries: Sequence[Binary] = ()
    unseen: Sequence[StorePath] = ()
    unknown: Sequence[StorePath] = ()
    substituted: Sequence[Substituted] = ()
    absent: Sequence[StorePath] = ()
    host: Sequence[HostProgram] = ()
    unread: Sequence[str] = ()
    impure: Sequence[Impurity] = ()


@dataclass(frozen=True, slots=True)
class RootsJudgement:
    """Sentences: rules that are *broken*, by what; and what could *not* be *judged*."""

    broken: tuple[str, ...] = ()
    unjudged: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RootsPolicy:
    """The rules that are asked for. Sizes in bytes, None: no such rule."""

    executed_seed_max: int | None = None
    binary_max: int | None = None
    built_here: bool = False
    no_impure: bool = False
    no_host: bool = False
    names: tuple[str, ...] = field(default=())

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``executed-seed-max=1KiB,built-here``."""
        values: dict[str, Any] = {}
        for word in filter(None, re.split(r"[,\s]+", text)):
            name, equals, value = word.partition("=")
            values[name] = value if equals else True
        return cls._of(values, "the policy")

    @classmethod
    def parse_file(cls, text: str, label: str) -> Self:
        """Read a TOML file whose table ``[roots]`` has the rules as its keys."""
        try:
            table = tomllib.loads(text).get("roots")
        except (ValueError, RecursionError) as error:  # as for a number of 5,000 digits
            raise InputError(f"{label} is not TOML: {error}") from error
        if not isinstance(table, dict):
            raise InputError(
                f"{label} has no table [roots]",
                hint='write [roots] and below it executed-seed-max = "1KiB"',
            )
        # `built-here = false` is no rule.
        return cls._of({name: value for name, value in table.items() if value is not False}, label)

    @classmethod
    def _of(cls, values: dict[str, Any], label: str) -> Self:
        for name, value in values.items():
            if name not in (*_SIZES, *_FLAGS):
                known = ", ".join((*_SIZES, *_FLAGS))
                raise InputError(f"{label}: there is no rule {name}", hint=f"rules are: {known}")
            if (name in _FLAGS) != (value is True):
                wanted = "takes no value" if name in _FLAGS else "needs a size, such as 1KiB"
                raise InputError(f"{label}: {name} {wanted}")
        if not values:
            raise InputError(
                f"{label} has no rule in it, so nothing could break it",
                hint="name one, such as executed-seed-max=1KiB",
            )
        return cls(
            executed_seed_max=_size(values, "executed-seed-max", label),
            binary_max=_size(values, "binary-max", label),
            built_here="built-here" in values,
            no_impure="no-impure" in values,
            no_host="no-host" in values,
            names=tuple(sorted(values)),
        )


def _size(values: dict[str, Any], name: str, label: str) -> int | None:
    if name not in values:
        return None
    match = _SIZE.match(str(values[name]))
    if match is None or match[2].lower() not in _UNITS:
        raise InputError(f"{label}: {name}: {values[name]!r} is no size", hint="write 512, or 1KiB")
    return int(match[1]) * _UNITS[match[2].lower()]


def evaluate_roots(policy: RootsPolicy, found: Findings) -> RootsJudgement:
    """Hold *found* against every rule of *policy*; nothing is broken: an empty verdict."""
    broken: list[str] = []
    unjudged: list[str] = []
    if policy.executed_seed_max is not None:
        _limit("executed-seed-max", policy.executed_seed_max, found.executed, broken, unjudged)
    if policy.binary_max is not None:
        both = [*found.executed, *found.binaries]
        _limit("binary-max", policy.binary_max, both, broken, unjudged)
        unjudged += [f"binary-max: {path} is not here to be looked at" for path in found.unseen]
    if policy.built_here:
        broken += [
            f"built-here: {item.path} was not built here: {item.signers.words}"
            for item in found.substituted
        ]
        unjudged += [f"built-here: {path} is not here" for path in found.absent]
    if policy.no_impure:
        broken += [f"no-impure: {item.derivation}: {item.reason}" for item in found.impure]
    if policy.no_host:
        broken += [f"no-host: {item.program}, by {item.used_by}" for item in found.host]
        unjudged += [f"no-host: {name} is not here to be looked at" for name in found.unread]
    unjudged += [f"nothing is known of where {path} comes from" for path in found.unknown]
    return RootsJudgement(tuple(broken), tuple(unjudged))


def _limit(
    rule: str, most: int, items: Sequence[Binary], broken: list[str], unjudged: list[str]
) -> None:
    for item in items:
        if item.size is None:
            unjudged.append(f"{rule}: {item} is not here to be looked at")
        elif item.size > most:
            broken.append(f"{rule}: {item} has {item.size} bytes, more than {most}")


@dataclass(frozen=True, slots=True)
class Stop:
    """A derivation, or an end, with its neighbours: those of the walk, and how many are *left* out.

    *steps* counts from the image, whose own inputs are at 1. *inputs* are what it was built from,
    *users* what was built from it; *first* is the next stop towards the image, None at its edge.
    """

    path: StorePath
    kind: Literal["derivation", "fetched", "added"]
    steps: int
    inputs: tuple[StorePath, ...]
    users: tuple[StorePath, ...]
    left: int
    first: StorePath | None


@dataclass(frozen=True, slots=True)
class Walk:
    """Stops by their distance from the image; *total* counts the graph.

    *tops* are those at the image's edge, *tops_left* how many more there are.
    """

    stops: tuple[Stop, ...]
    tops: tuple[StorePath, ...]
    tops_left: int
    total: int
    by_path: Mapping[StorePath, Stop] = field(repr=False)


def walk_roots(
    roots: Roots,
    read: Callable[[StorePath], Derivation],
    most: int,
    wanted: Iterable[StorePath] = (),
    links: int = 3000,
) -> Walk:
    """Return *most* stops of the graph, those on the way to *wanted* first, then the nearest.

    Fewer, if together they were built from more than *links* others. Each derivation is read once.
    """
    graph = _Graph(roots, read)
    steps = graph.distances()
    kept: dict[StorePath, None] = {}
    for way in (*(graph.way(path, steps) for path in wanted), *((path,) for path in steps)):
        new = [path for path in way if path not in kept]
        needs = sum(len(graph.inputs(path)) for path in new)
        if len(kept) + len(new) <= most and needs <= links:
            kept.update(dict.fromkeys(new))
            links -= needs
    users: dict[StorePath, list[StorePath]] = {path: [] for path in kept}
    for path in kept:
        for below in graph.inputs(path):
            if below in users:
                users[below].append(path)
    stops = [_stop(graph, path, steps, users, kept) for path in kept]
    stops.sort(key=lambda stop: (stop.steps, stop.path.name, stop.path))
    tops = tuple(path for path in graph.tops if path in kept)
    left = len(graph.tops) - len(tops)
    return Walk(tuple(stops), tops, left, len(steps), {stop.path: stop for stop in stops})


def _stop(
    graph: _Graph,
    path: StorePath,
    steps: dict[StorePath, int],
    users: dict[StorePath, list[StorePath]],
    kept: dict[StorePath, None],
) -> Stop:
    inputs = graph.inputs(path)
    return Stop(
        path=path,
        kind=graph.kind(path),
        steps=steps[path],
        inputs=tuple(each for each in inputs if each in kept),
        users=tuple(sorted(users[path], key=lambda each: (each.name, each))),
        left=sum(each not in kept for each in inputs),
        first=next((each for each in users[path] if steps[each] < steps[path]), None),
    )


class _Graph:
    """Derivations and ends; a derivation that fetches is the end that it fetches."""

    def __init__(self, roots: Roots, read: Callable[[StorePath], Derivation]) -> None:
        self._roots = roots
        self._read = read
        self._ends = {end.path: end for end in roots.ends}
        self._fetched = {drv: end.path for end in roots.ends for drv in end.derivations}
        self._inputs: dict[StorePath, tuple[StorePath, ...]] = {}
        tops = [self._stop_of(path) for path, above in roots.via.items() if above is None]
        plain = [end.path for end in roots.ends if end.used_by is None and not end.derivation]
        self.tops = tuple(sorted({*tops, *plain}, key=lambda each: (each.name, each)))

    def _stop_of(self, path: StorePath) -> StorePath:
        return self._fetched.get(path, path)

    def kind(self, path: StorePath) -> Literal["derivation", "fetched", "added"]:
        end = self._ends.get(path)
        return "derivation" if end is None else end.kind

    def inputs(self, path: StorePath) -> tuple[StorePath, ...]:
        """Return what *path* was built from, sorted by name; an end is built from nothing."""
        if path in self._ends or path not in self._roots.via:
            return ()
        if path not in self._inputs:
            derivation = self._read(path)
            below = {self._stop_of(each) for each in derivation.input_drvs}
            below |= {each for each in derivation.input_srcs if each in self._ends}
            self._inputs[path] = tuple(sorted(below, key=lambda each: (each.name, each)))
        return self._inputs[path]

    def distances(self) -> dict[StorePath, int]:
        """Return each stop's steps from the image, the nearest first."""
        steps = dict.fromkeys(self.tops, 1)
        queue = deque(self.tops)
        while queue:
            path = queue.popleft()
            for below in self.inputs(path):
                if below not in steps:
                    steps[below] = steps[path] + 1
                    queue.append(below)
        return steps

    def way(self, path: StorePath, steps: dict[StorePath, int]) -> Sequence[StorePath]:
        """Return the shortest way from the image to *path*, as stops."""
        if path not in self._ends and path not in self._roots.makers:
            return ()
        way = [self._stop_of(each) for each in self._roots.why(path)]
        return [each for each in dict.fromkeys(way) if each in steps]
