"""Who says under which licence each store path is, where ``meta`` says nothing of it itself.

In this order, the first that knows:

1. The recipe's policy, by licence or by name.
2. ``meta.license`` of the derivation that makes the path.
   Failing that, what all other derivations of the same name and version state: the stages of a
   bootstrap differ in what they are built with, not in what they are.
3. A fetched file: what those derivations state that are built from it; all of them apply.
4. A derivation that states nothing and fetches nothing (a wrapper, a hook, a tree of links): the
   licences of its inputs, but for its builder and its stdenv, which run and are not copied.
5. A flake input's source tree: its own licence text. Other files that evaluation added lie in one
   of these trees: the licences of them all.

Then a derivation that may be passed on by its own word, but is built from a fetched file that may
not, contradicts itself: that is for someone to decide, and named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from nix_seed.formats.nix.derivation import Derivation
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.rules.licence import UNSTATED, Fact, Licence, LicencePolicy, is_licence, join
from nix_seed.rules.roots import End, Roots

__all__ = ["Conflict", "Judged", "Judgement", "judge"]


@dataclass(frozen=True, slots=True)
class Judged:
    """A store path, its licence, the derivation that makes it and where its source comes from.

    ``declared`` is the licence that the derivation's own ``meta`` states, empty if it states none.
    """

    path: StorePath
    licence: Licence
    derivation: StorePath | None = None
    url: str = ""
    declared: str = ""


@dataclass(frozen=True, slots=True)
class Conflict:
    """*path* may be passed on by its own word; its source, *fetched*, may not, as *others* say."""

    path: StorePath
    fetched: StorePath
    licence: str
    others: tuple[StorePath, ...]


@dataclass(frozen=True, slots=True)
class Judgement:
    """Every path of an image, judged; ``withheld_elsewhere`` are others of the build graph."""

    paths: Mapping[StorePath, Judged]
    withheld_elsewhere: tuple[Judged, ...] = ()
    conflicts: tuple[Conflict, ...] = ()

    @property
    def withheld(self) -> tuple[Judged, ...]:
        """The image's paths that must not be passed on, sorted."""
        return self._of("withheld")

    @property
    def unknown(self) -> tuple[Judged, ...]:
        """The image's paths of which nobody says what is permitted, sorted."""
        return self._of("unknown")

    def _of(self, status: str) -> tuple[Judged, ...]:
        found = (item for item in self.paths.values() if item.licence.status == status)
        return tuple(sorted(found, key=lambda item: item.path))


def judge(
    paths: Iterable[StorePath],
    roots: Roots,
    read: Callable[[StorePath], Derivation],
    facts: Mapping[str, Fact],
    trees: Mapping[StorePath, tuple[str, Licence]],
    policy: LicencePolicy,
) -> Judgement:
    """Judge *paths*, an image's, whose derivations and sources are *roots*.

    *facts* are by derivation; *trees* are flake inputs' source trees, by name and own licence.
    """
    judging = _Judging(roots, read, facts, trees, policy)
    judged = {path: judging.path(path) for path in sorted(set(paths))}
    graph = sorted({*roots.makers, *judging.ends} - judged.keys())
    elsewhere = (judging.path(path) for path in graph)
    return Judgement(
        judged,
        tuple(item for item in elsewhere if item.licence.status == "withheld"),
        tuple(judging.conflicts(judged)),
    )


@dataclass
class _Judging:
    roots: Roots
    read: Callable[[StorePath], Derivation]
    facts: Mapping[str, Fact]
    trees: Mapping[StorePath, tuple[str, Licence]]
    policy: LicencePolicy
    ends: dict[StorePath, End] = field(init=False)
    users: dict[StorePath, list[StorePath]] = field(init=False)
    known: dict[StorePath, Licence] = field(default_factory=dict)
    by_name: dict[str, Licence] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ends = {end.path: end for end in self.roots.ends}
        self.fetchers = {end.derivation: end.path for end in self.roots.ends if end.derivation}
        self.by_name = _by_name(self.facts)
        self.users = {}
        for drv in self.roots.via:
            if drv not in self.fetchers:
                for used in self._copied(drv):
                    self.users.setdefault(used, []).append(drv)

    def path(self, path: StorePath) -> Judged:
        drv = self.roots.makers.get(path)
        end = self.ends.get(path)
        if drv is not None:
            licence = self._of_path(path, self._built(drv))
            return Judged(path, licence, drv, self._url(drv), self._declared(drv))
        if path in self.trees:
            name, licence = self.trees[path]
            return Judged(path, self.policy.apply(licence, name, f"input:{name}", path.name))
        if end is not None and end.kind == "fetched":
            url = end.urls[0] if end.urls else ""
            licence = self._of_path(path, self._fetched(end))
            return Judged(path, licence, end.derivation, url, self._declared(end.derivation))
        licence = join(licence for _, licence in self.trees.values())
        return Judged(path, self.policy.apply(licence, path.name, path.package))

    def _of_path(self, path: StorePath, licence: Licence) -> Licence:
        return self.policy.apply(licence, path.name, path.package)

    def _declared(self, drv: StorePath | None) -> str:
        fact = self.facts.get(str(drv))
        return fact.licence.name if fact and is_licence(fact.licence.name) else ""

    def _stated(self, drv: StorePath) -> Licence:
        fact = self.facts.get(str(drv))
        name = StorePath(drv.base_name.removesuffix(".drv"))
        licence = UNSTATED if fact is None else fact.licence
        if not licence.name:
            licence = self.by_name.get(name.name, UNSTATED)
        return self.policy.apply(licence, name.name, name.package)

    def _fetched(self, end: End) -> Licence:
        own = self._stated(end.derivation) if end.derivation else UNSTATED
        if own.name:
            return own
        stated = [self._stated(drv) for drv in self.users.get(end.derivation or end.path, ())]
        return join(licence for licence in stated if licence.name)

    def _built(self, root: StorePath) -> Licence:
        """Find the licence of a derivation, its inputs' first: chains are deeper than the stack."""
        stack, opened = [root], set()
        while stack:
            drv = stack[-1]
            if drv in self.known:
                stack.pop()
                continue
            stated = self._stated(drv)
            if stated.name:
                self.known[drv] = stated
                continue
            if drv in self.fetchers:
                self.known[drv] = self._fetched(self.ends[self.fetchers[drv]])
                continue
            needed = self._copied(drv)
            waiting = [item for item in needed if item not in self.known and item not in opened]
            if drv in opened or not waiting:
                self.known[drv] = join(self.known.get(item, UNSTATED) for item in needed)
            else:
                opened.add(drv)
                stack += waiting
        return self.known[root]

    def _copied(self, drv: StorePath) -> list[StorePath]:
        """Return the input derivations whose content the output may hold."""
        derivation = self.read(drv)
        tools = f"{derivation.builder} {derivation.env.get('stdenv', '')}"
        return [
            item
            for item, names in derivation.input_drvs.items()
            if not any(path in tools for path in self._outputs(item, names))
        ]

    def _outputs(self, drv: StorePath, names: Iterable[str]) -> list[str]:
        outputs = self.read(drv).outputs
        return [str(outputs[name].path) for name in names if name in outputs and outputs[name].path]

    def _url(self, drv: StorePath) -> str:
        """Say where a package comes from: its source's URL, else its homepage."""
        sources = (self.ends[self.fetchers[i]] for i in self._copied(drv) if i in self.fetchers)
        urls = [end.urls[0] for end in sources if end.urls]
        fact = self.facts.get(str(drv))
        return urls[0] if urls else fact.homepage if fact else ""

    def conflicts(self, judged: Mapping[StorePath, Judged]) -> Iterable[Conflict]:
        for path, item in judged.items():
            if item.derivation is None or item.licence.status != "redistributable":
                continue
            names = {path.name, path.package}
            if names & {*self.policy.accept} or item.derivation in self.fetchers:
                continue
            for used in self._copied(item.derivation):
                end = self.ends.get(self.fetchers.get(used, used))
                licence = UNSTATED if end is None else self._of_path(end.path, self._fetched(end))
                if end is not None and licence.status == "withheld":
                    others = [drv for drv in self.users[used] if drv != item.derivation]
                    yield Conflict(path, end.path, licence.name, tuple(sorted(others)))


def _by_name(facts: Mapping[str, Fact]) -> dict[str, Licence]:
    """Return by name the licence that every derivation of that name states, if it has a version."""
    found: dict[str, set[Licence]] = {}
    for drv, fact in facts.items():
        name = drv.rpartition("/")[2][33:].removesuffix(".drv")
        if fact.licence.name and any(map(str.isdigit, name)):
            found.setdefault(name, set()).add(fact.licence)
    return {name: next(iter(each)) for name, each in found.items() if len(each) == 1}
