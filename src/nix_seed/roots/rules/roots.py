"""Trust roots: what a build graph rests on once it is followed to its ends (docs/roots.md).

The ends are what Nix does not build: fetched files (fixed outputs, whose hash is agreed on, so that
whoever fetches them need not be trusted), added files, programs of the host, and derivations that
may see more than their inputs. Everything else is built from these.

The graph, stop by stop: what each was built from, and what it went into. A graph of many thousand
derivations is too large for a page. What is left out is counted: kept are the ways from the image
to what matters most, and then what is nearest to the image.
"""

import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from typing import Any, Literal, TypeAlias

from nix_seed.core import canonical_json
from nix_seed.core.digests import Digest
from nix_seed.core.errors import InputError
from nix_seed.core.values import dataclass
from nix_seed.formats.nix.store_path import Derivation, StorePath

Use = Literal["builder", "argument", "input"]
_RANK: dict[str, int] = {"builder": 0, "argument": 1, "input": 2}
_MENTION = re.compile(r"(/nix/store/[0-9a-z]{32}-[0-9a-zA-Z+\-._?=]+)((?:/[^/\s\"':;,]+)*)")
_DISALLOWED = ("disallowedReferences", "disallowedRequisites")
_UNDONE = ("__noChroot", "__impure")
_Mention: TypeAlias = tuple[StorePath, str, Use, bool]
_LISTS = ("impureEnvVars", "__impureHostDeps", "__propagatedImpureHostDeps", "__sandboxProfile")


@dataclass(frozen=True, slots=True)
class End:
    """A file or tree that came as it is: fetched (*urls* and *hash* known) or added.

    *use* is the strongest way in which a derivation uses it, *files* are those of it (relative,
    ``""`` for itself) that are builders or stand among a builder's arguments, *used_by* is the
    derivation nearest to the image that uses it so (None: the image holds it as it is);
    *derivations* are those that fetch it, the nearest first: one file may have several addresses.
    """

    path: StorePath
    kind: Literal["fetched", "added"]
    use: Use
    files: tuple[tuple[str, Use], ...] = ()
    used_by: StorePath | None = None
    urls: tuple[str, ...] = ()
    hash: str = ""
    derivations: tuple[StorePath, ...] = ()

    @property
    def derivation(self) -> StorePath | None:
        """The nearest derivation that fetches it; None where it was added."""
        return self.derivations[0] if self.derivations else None


@dataclass(frozen=True, slots=True)
class Inputs:
    """What one derivation is built from: outputs of *derivations*, and *files*, added ones mostly.

    *tools* are not copied into what it makes: the paths that its builder and its stdenv lie in,
    which run, and those that it names only to forbid them. *scripts* are those of the files that
    are an argument of the builder by themselves.
    """

    derivations: tuple[StorePath, ...] = ()
    files: tuple[StorePath, ...] = ()
    tools: tuple[StorePath, ...] = ()
    scripts: tuple[StorePath, ...] = ()


@dataclass(frozen=True, slots=True)
class HostProgram:
    """A builder that no input provides: whatever the building machine has there is executed."""

    program: str
    used_by: StorePath


@dataclass(frozen=True, slots=True)
class Impurity:
    """A derivation that may see more than its inputs, and why."""

    derivation: StorePath
    reason: str


@dataclass(frozen=True, slots=True)
class Roots:
    """All ends of a graph of *derivations* (how many), sorted.

    ``via`` leads from each derivation one step towards the image (None: an output of the image),
    ``makers`` from an output to its derivation; fixed outputs are not in ``makers`` but in
    ``ends``. ``builders`` are the programs that derivations start, each with the nearest of these.
    ``inputs`` tells of each derivation that does not fetch what it is built from.
    *evaluated*: by a recipe, the same everywhere; else by what one store recorded of its paths.
    """

    ends: tuple[End, ...]
    host: tuple[HostProgram, ...]
    impure: tuple[Impurity, ...]
    via: Mapping[StorePath, StorePath | None]
    makers: Mapping[StorePath, StorePath]
    builders: Mapping[str, StorePath] = field(default_factory=dict)
    evaluated: bool = True
    inputs: Mapping[StorePath, Inputs] = field(default_factory=dict, repr=False)

    @property
    def derivations(self) -> int:
        """How many derivations the graph has."""
        return len(self.via)

    def why(self, path: StorePath) -> tuple[StorePath, ...]:
        """Return the shortest way from the image to *path*, both included.

        *path* is a derivation, an output, or an end. ``InputError`` if the graph does not hold it.
        """
        end = next((end for end in self.ends if end.path == path), None)
        way = [path] if end is not None or path in self.makers else []
        step = end.used_by if end is not None else self.makers.get(path, path)
        if end is None and step not in self.via:
            raise InputError(
                f"{path} is nothing that this rests on",
                hint="name a derivation, an output or a source of the graph; --json lists the ends",
            )
        while step is not None:
            way.append(step)
            step = self.via[step]
        return tuple(reversed(way))


def find_roots(
    derivations: Iterable[StorePath],
    read: Callable[[StorePath], Derivation],
    plain: Iterable[StorePath] = (),
) -> Roots:
    """Follow *derivations* to their ends; *plain* paths are ends that the image itself holds.

    Each derivation is read once, nearest first, so a hostile graph that runs in a circle ends too.
    """
    walk = _Walk()
    queue: deque[StorePath] = deque()
    for root in sorted(set(derivations)):
        walk.via[root] = None
        queue.append(root)
    while queue:
        path = queue.popleft()
        queue.extend(walk.visit(path, read(path)))
    return walk.finish(sorted(set(plain)))


def roots_digest(roots: Roots) -> Digest:
    """Return the SHA-256 that builders of one image must agree on, whatever machine they use.

    Of the canonical JSON of all ends with their use, host programs and impurities. Whether a path
    was built or substituted, where a file was fetched, and the order of things are no part of it;
    nor is the path of any derivation, which changes with the way a file is fetched, and so with
    Nix's own version: what is impure is named by its outputs.
    """
    outputs: dict[StorePath, list[str]] = {item.derivation: [] for item in roots.impure}
    for output, derivation in roots.makers.items():
        if derivation in outputs:
            outputs[derivation].append(str(output))
    impure = {
        (tuple(sorted(outputs[item.derivation])) or (item.derivation.name,), item.reason)
        for item in roots.impure
    }
    value = {
        "domain": "nix-seed/roots/v1",
        "ends": [
            {"path": str(end.path), "kind": end.kind, "use": end.use, "hash": end.hash}
            for end in roots.ends
        ],
        "host": sorted({item.program for item in roots.host}),
        "impure": [{"outputs": list(of), "reason": reason} for of, reason in sorted(impure)],
    }
    return Digest.of(canonical_json.dumps(value))


class _Walk:
    """The graph so far; paths are kept once, for graphs of many thousand derivations."""

    def __init__(self) -> None:
        self.via: dict[StorePath, StorePath | None] = {}
        self._makers: dict[StorePath, StorePath] = {}
        self._fetched: dict[StorePath, End] = {}
        self._added: dict[StorePath, StorePath] = {}
        self._builders: dict[str, StorePath] = {}
        self._impure: list[Impurity] = []
        self._mentions: dict[StorePath, dict[tuple[str, Use], StorePath]] = {}
        self._inputs: dict[StorePath, Inputs] = {}
        self._paths: dict[StorePath, StorePath] = {}

    def visit(self, path: StorePath, derivation: Derivation) -> list[StorePath]:
        """Take in one derivation; return those it is built from that are new."""
        if derivation.is_fixed_output:
            self._fetch(path, derivation)
            return []
        for output in derivation.outputs.values():
            if output.path is not None:
                self._makers[output.path] = path
        attributes = attributes_of(derivation)
        self._impure += _impurities(path, derivation, attributes)
        if not derivation.builder.startswith("builtin:"):
            self._builders.setdefault(derivation.builder, path)
        mentions = [*_mentions(derivation)]
        for mentioned, file, use, _ in mentions:
            self._mentions.setdefault(mentioned, {}).setdefault((file, use), path)
        inputs = self._inputs_of(derivation, mentions, attributes)
        self._inputs[path] = inputs
        for source in inputs.files:
            self._added.setdefault(source, path)
        new = [item for item in inputs.derivations if item not in self.via]
        self.via.update((item, path) for item in new)
        return new

    def _inputs_of(
        self, derivation: Derivation, mentions: Iterable[_Mention], attributes: Mapping[str, Any]
    ) -> Inputs:
        tools = [path for path, _, use, _ in mentions if use == "builder"]
        stdenv = attributes.get("stdenv")
        tools += [path for path, _, _ in _store_paths(stdenv)] if isinstance(stdenv, str) else []
        tools += _forbidden(derivation.args, attributes)
        alone = {path for path, _, use, whole in mentions if use == "argument" and whole}
        files = self._once(derivation.input_srcs)
        return Inputs(
            derivations=self._once(derivation.input_drvs),
            files=files,
            tools=self._once(tools),
            scripts=tuple(path for path in files if path in alone),
        )

    def _once(self, paths: Iterable[StorePath]) -> tuple[StorePath, ...]:
        return tuple(self._paths.setdefault(path, path) for path in paths)

    def _fetch(self, path: StorePath, derivation: Derivation) -> None:
        urls = _urls(attributes_of(derivation))
        for output in derivation.outputs.values():
            if output.path is None:
                continue
            found = self._fetched.get(output.path)
            if found is None:
                hash_ = f"{output.hash_algorithm}:{output.hash}"
                user = self.via[path]
                found = End(output.path, "fetched", "input", (), user, (), hash_)
            self._fetched[output.path] = replace(
                found,
                urls=tuple(dict.fromkeys([*found.urls, *urls])),
                derivations=(*found.derivations, path),
            )

    def finish(self, plain: Iterable[StorePath]) -> Roots:
        ends = {path: self._used(end) for path, end in self._fetched.items()}
        for path, user in self._added.items():
            # A file may name a source that is also fetched: then its hash is known, and that wins.
            if path not in ends and path not in self._makers:
                ends[path] = self._used(End(path, "added", "input", (), user))
        for path in plain:
            if path not in ends and path not in self._makers:
                ends[path] = End(path, "added", "input")
        given = ends.keys() | self._makers.keys()
        return Roots(
            ends=tuple(ends[path] for path in sorted(ends)),
            host=tuple(
                HostProgram(name, user)
                for name, user in sorted(self._builders.items())
                if store_path_of(name) not in given
            ),
            impure=tuple(sorted(self._impure, key=lambda item: (item.derivation, item.reason))),
            via=self.via,
            makers=self._makers,
            builders=self._builders,
            inputs=self._inputs,
        )

    def _used(self, end: End) -> End:
        """Add how *end* is used: as a builder, an argument, or neither."""
        mentions = self._mentions.get(end.path)
        if not mentions:
            return end
        files = sorted(mentions, key=lambda item: (_RANK[item[1]], item[0]))
        use = files[0][1]
        return replace(end, use=use, files=tuple(files), used_by=mentions[files[0]])


def store_path_of(program: str) -> StorePath | None:
    """Return the store path that *program* lies in; None for one that lies elsewhere."""
    try:
        return StorePath.containing(program)
    except InputError:
        return None


def _mentions(derivation: Derivation) -> Iterator[_Mention]:
    """Yield the store paths that the builder and its arguments name, with the file below each.

    The last of a mention is whether it is all that the argument says.
    """
    use: Use = "builder"
    for text in (derivation.builder, *derivation.args):
        for path, file, whole in _store_paths(text):
            yield path, file, use, whole
        use = "argument"


def _store_paths(text: str) -> Iterator[tuple[StorePath, str, bool]]:
    if "/nix/store/" not in text:
        return
    for found in _MENTION.finditer(text):
        try:
            path = StorePath.parse(found[1])
        except InputError:
            continue
        yield path, found[2].lstrip("/"), found[0] == text


def _forbidden(args: Sequence[str], attributes: Mapping[str, Any]) -> list[StorePath]:
    """Return the paths that an output may not refer to, and that nothing else names."""
    named = [word for name in _DISALLOWED for word in _words(attributes.get(name))]
    if not named:
        return []
    rest = {name: value for name, value in attributes.items() if name not in _DISALLOWED}
    texts = json.dumps([*args, rest])
    return [path for word in named if word not in texts for path, _, _ in _store_paths(word)]


def attributes_of(derivation: Derivation) -> Mapping[str, Any]:
    """Return the attributes as Nix code gave them, whether they are structured or strings."""
    text = derivation.env.get("__json")
    if text is None:
        return derivation.env
    try:
        value = json.loads(text)
    except ValueError:
        return derivation.env
    return value if isinstance(value, dict) else derivation.env


def _words(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(value.split())
    return tuple(map(str, value)) if isinstance(value, list) else ()


def _urls(attributes: Mapping[str, Any]) -> tuple[str, ...]:
    found = [*_words(attributes.get("url")), *_words(attributes.get("urls"))]
    return tuple(dict.fromkeys(found))


def _impurities(
    path: StorePath, derivation: Derivation, attributes: Mapping[str, Any]
) -> Iterator[Impurity]:
    for name in _UNDONE:
        if attributes.get(name) not in (None, "", False, "0"):
            yield Impurity(path, name)
    for name in _LISTS:
        words = _words(attributes.get(name))
        if words:
            yield Impurity(path, f"{name} {' '.join(sorted(words))}")
    if any(output.hash == "impure" for output in derivation.outputs.values()):
        yield Impurity(path, "impure output")


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
    roots: Roots, most: int, wanted: Iterable[StorePath] = (), links: int = 3000
) -> Walk:
    """Return *most* stops of the graph, those on the way to *wanted* first, then the nearest.

    Fewer, if together they were built from more than *links* others.
    """
    graph = _Graph(roots)
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


class _Graph:
    """Derivations and ends; a derivation that fetches is the end that it fetches."""

    def __init__(self, roots: Roots) -> None:
        self._roots = roots
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
        if path not in self._inputs:
            of = self._roots.inputs.get(path, Inputs())
            below = {self._stop_of(each) for each in of.derivations}
            below |= {each for each in of.files if each in self._ends}
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
