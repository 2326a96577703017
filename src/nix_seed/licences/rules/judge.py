"""Who says under which licence each store path is, where ``meta`` says nothing of it itself.

In this order, the first that knows:

1. The recipe's policy, by licence or by name.
2. ``meta.license`` of the derivation that makes the path.
   Failing that, what all other derivations of the same name and version state: the stages of a
   bootstrap differ in what they are built with, not in what they are.
3. A fetched file: what those derivations state that are built from it; all of them apply.
4. A derivation that states nothing and fetches nothing (a wrapper, a hook, a tree of links): the
   licences of its inputs, but for its builder and its stdenv, which run and are not copied, and of
   the files that evaluation added for it, but for scripts that build stated packages as well.
   Where nobody could read its ``meta``, added files may be anything: it is unknown.
5. A flake input's source tree: its own licence text. Other files that evaluation added lie in one
   of these trees: the licences of them all.

Then a derivation that may be passed on by its own word, but is built from a fetched file that may
not, be it packed out by one that states nothing, contradicts itself: that is for someone to decide,
and named.

What an image lacks for its licence, and whether the user has accepted the licences of that.
"""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field

from nix_seed.core.declared import at
from nix_seed.core.errors import InputError
from nix_seed.core.values import dataclass
from nix_seed.flake.rules.licence import UNSTATED, Fact, Licence, LicencePolicy, is_licence, join
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.roots.rules.roots import End, Inputs, Roots


@dataclass(frozen=True, slots=True)
class Judged:
    """A store path, its licence, the derivation that makes it and where its source comes from.

    ``declared`` is the licence that the derivation's own ``meta`` states, empty if it states none;
    *accepted*, whether the recipe accepts it by name.
    """

    path: StorePath
    licence: Licence
    derivation: StorePath | None = None
    url: str = ""
    declared: str = ""
    accepted: bool = False


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
    facts: Mapping[str, Fact],
    trees: Mapping[StorePath, tuple[str, Licence]],
    policy: LicencePolicy,
) -> Judgement:
    """Judge *paths*, an image's, whose derivations and sources are *roots*.

    *facts* are by derivation; *trees* are flake inputs' source trees, by name and own licence.
    """
    judging = _Judging(roots, facts, trees, policy)
    judged = {path: judging.path(path) for path in sorted(set(paths))}
    others = {*roots.makers, *judging.ends} - judged.keys()
    elsewhere = sorted(path for path in others if judging.licence(path).status == "withheld")
    return Judgement(
        judged,
        tuple(map(judging.path, elsewhere)),
        tuple(judging.conflicts(judged)),
    )


@dataclass
class _Judging:
    roots: Roots
    facts: Mapping[str, Fact]
    trees: Mapping[StorePath, tuple[str, Licence]]
    policy: LicencePolicy
    stated: dict[StorePath, Licence] = field(default_factory=dict)
    known: dict[StorePath, Licence] = field(default_factory=dict)
    holds: dict[StorePath, StorePath] = field(default_factory=dict)
    """The withheld fetched file that a derivation is, or only unpacks."""

    def __post_init__(self) -> None:
        self.ends = {end.path: end for end in self.roots.ends}
        self.fetchers = {drv: end.path for end in self.roots.ends for drv in end.derivations}
        self.any_tree = join(licence for _, licence in self.trees.values())
        by_name = _by_name(self.facts)
        self.stated = {drv: self._stated(drv, by_name) for drv in self.roots.via}
        self.scripts = {
            script
            for drv, inputs in self.roots.inputs.items()
            if self.stated[drv].name
            for script in inputs.scripts
        }
        self.copied = {drv: self._copied(each) for drv, each in self.roots.inputs.items()}
        self.users: dict[StorePath, list[StorePath]] = {}
        for drv, copied in self.copied.items():
            for path in {self.fetchers[item] for item in copied if item in self.fetchers}:
                self.users.setdefault(path, []).append(drv)

    def path(self, path: StorePath) -> Judged:
        drv, end = self._origin(path)
        url = "" if drv is None else self._url(drv) if end is None else next(iter(end.urls), "")
        declared = next(filter(None, map(self._declared, self._makers(path))), "")
        return Judged(path, self.licence(path), drv, url, declared, self._is_accepted(path))

    def licence(self, path: StorePath) -> Licence:
        drv, end = self._origin(path)
        if drv is not None:
            licence = self._built(drv) if end is None else self._fetched(end)
        elif path in self.trees:
            licence = self.trees[path][1]
        else:
            licence = self.any_tree
        return self._apply(licence, path)

    def _origin(self, path: StorePath) -> tuple[StorePath | None, End | None]:
        """Return who makes *path*; with the end that it is, if it was fetched; None if added."""
        if path in self.roots.makers:
            return self.roots.makers[path], None
        end = self.ends.get(path)
        if path in self.trees or end is None or end.derivation is None:
            return None, None
        return end.derivation, end

    def _apply(self, licence: Licence, path: StorePath) -> Licence:
        if self.policy.accept or self.policy.withhold:
            return self.policy.apply(licence, *self._names(path))
        return licence

    def _names(self, path: StorePath) -> tuple[str, ...]:
        tree = self.trees.get(path)
        inputs = () if tree is None else (tree[0], f"input:{tree[0]}")
        return (path.name, path.package, *inputs)

    def _is_accepted(self, path: StorePath) -> bool:
        return not {*self.policy.accept}.isdisjoint(self._names(path))

    def _declared(self, drv: StorePath) -> str:
        fact = self.facts.get(str(drv))
        return fact.licence.name if fact and is_licence(fact.licence.name) else ""

    def _stated(self, drv: StorePath, by_name: Mapping[str, Licence]) -> Licence:
        fact = self.facts.get(str(drv))
        made = StorePath(drv.base_name.removesuffix(".drv"))
        licence = UNSTATED if fact is None else fact.licence
        if not licence.name:
            licence = by_name.get(made.name, UNSTATED)
        return self._apply(licence, made)

    def _fetched(self, end: End) -> Licence:
        own = [self.stated[drv] for drv in end.derivations]
        if not all(licence.name for licence in own):
            own += [self.stated[drv] for drv in self.users.get(end.path, ())]
        return join(licence for licence in own if licence.name)

    def _built(self, root: StorePath) -> Licence:
        """Find the licence of a derivation, its inputs' first: chains are deeper than the stack."""
        stack, opened = [root], set()
        while stack:
            drv = stack[-1]
            if drv in self.known:
                stack.pop()
            elif drv in self.fetchers:
                self._take_fetched(drv, self.ends[self.fetchers[drv]])
            elif self.stated[drv].name:
                self.known[drv] = self.stated[drv]
            else:
                waiting = [item for item in self.copied[drv] if item not in self.known]
                waiting = [item for item in waiting if item not in opened]
                if drv in opened or not waiting:
                    self._inherit(drv)
                opened.add(drv)
                stack += waiting
        return self.known[root]

    def _take_fetched(self, drv: StorePath, end: End) -> None:
        self.known[drv] = self.stated[drv] if self.stated[drv].name else self._fetched(end)
        if self._apply(self._fetched(end), end.path).status == "withheld":
            self.holds[drv] = end.path

    def _inherit(self, drv: StorePath) -> None:
        copied = self.copied[drv]
        self.known[drv] = join(
            [*(self.known.get(item, UNSTATED) for item in copied), *self._added(drv)]
        )
        within = next((self.holds[item] for item in copied if item in self.holds), None)
        if within is not None:
            self.holds[drv] = within

    def _added(self, drv: StorePath) -> list[Licence]:
        """Return the licences of the files that evaluation added for a derivation's content."""
        inputs = self.roots.inputs[drv]
        files = [file for file in inputs.files if file not in self.scripts]
        files = [file for file in files if self._origin(file)[0] is None]
        return [self.licence(file) if str(drv) in self.facts else UNSTATED for file in files]

    def _copied(self, inputs: Inputs) -> tuple[StorePath, ...]:
        """Return the input derivations whose content the output may hold."""
        tools = {drv for path in inputs.tools for drv in self._makers(path)}
        named = (drv for path in inputs.files for drv in self._makers(path)[:1])
        return tuple(drv for drv in (*inputs.derivations, *named) if drv not in tools)

    def _makers(self, path: StorePath) -> tuple[StorePath, ...]:
        drv, end = self._origin(path)
        return end.derivations if end is not None else () if drv is None else (drv,)

    def _url(self, drv: StorePath) -> str:
        """Say where a package comes from: its source's URL, else its homepage."""
        sources = (self.ends[self.fetchers[i]] for i in self.copied[drv] if i in self.fetchers)
        urls = [end.urls[0] for end in sources if end.urls]
        fact = self.facts.get(str(drv))
        return urls[0] if urls else fact.homepage if fact else ""

    def conflicts(self, judged: Mapping[StorePath, Judged]) -> Iterable[Conflict]:
        for path, item in judged.items():
            drv = item.derivation
            if drv is None or drv in self.fetchers or item.accepted:
                continue
            if item.licence.status != "redistributable":
                continue
            for used in self.copied[drv]:
                self._built(used)
            held = [self.holds[used] for used in self.copied[drv] if used in self.holds]
            for file in dict.fromkeys(held):
                others = [drv for drv in self.users[file] if self.stated[drv].status == "withheld"]
                yield Conflict(path, file, self.licence(file).name, tuple(sorted(others)))


def _by_name(facts: Mapping[str, Fact]) -> dict[str, Licence]:
    """Return by name the licence that every derivation of that name states, if it has a version."""
    found: dict[str, set[Licence]] = {}
    for drv, fact in facts.items():
        name = drv.rpartition("/")[2][33:].removesuffix(".drv")
        if fact.licence.name and any(map(str.isdigit, name)):
            found.setdefault(name, set()).add(fact.licence)
    return {name: next(iter(each)) for name, each in found.items() if len(each) == 1}


@dataclass(frozen=True, slots=True)
class Withheld:
    """A store path that the image lacks because its licence forbids passing it on."""

    path: StorePath
    name: str
    licence: str
    derivation: str
    url: str = field(default="", metadata=at(omit=True))


@dataclass(frozen=True, slots=True)
class UnknownLicence:
    """A store path of the image that nobody says may be passed on; *licence* is empty if unstated.

    Only what the recipe does not let pass: it keeps the image out of others' registries.
    """

    path: StorePath
    licence: str = field(default="", metadata=at(omit=True))


def check_accepted(image: str, withheld: Iterable[Withheld], accepted: Sequence[str]) -> None:
    """Raise ``InputError`` unless every licence of what *image* withholds is *accepted*.

    By the licence's name, or by the package's.
    """
    missing = [
        item
        for item in withheld
        if not {item.licence, item.name, item.path.package} & set(accepted)
    ]
    if missing:
        options = " ".join(
            f"--accept-licence {shlex.quote(name)}"
            for name in sorted({item.licence for item in missing})
        )
        raise InputError(
            f"the image {image} lacks what it must not pass on ({len(missing)} in all);"
            " that comes from its vendors, once you accept their licences",
            detail="\n".join(map(_line, missing)),
            hint=f"read the licences, then: {options}",
        )


def _line(item: Withheld) -> str:
    source = f", from {item.url}" if item.url else ""
    return f"{item.name}: licence {item.licence}{source}"
