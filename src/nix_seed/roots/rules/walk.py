"""The graph of trust roots, stop by stop: what each was built from, and what it went into.

A graph of many thousand derivations is too large for a page. What is left out is counted: kept are
the ways from the image to what matters most, and then what is nearest to the image.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from nix_seed.formats.nix.store_path import Derivation, StorePath
from nix_seed.roots.rules.roots import Roots


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
