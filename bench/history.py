"""Ten successive states of a real closure, and what each policy has consumers pull again.

The closure is that of build tools in Debian: bookworm, its security and other updates, packages
added and removed, some of trixie's, all of trixie's, at last sid's. Names, sizes, versions and
dependencies are those of the package lists; nothing is built. A store path changes with anything
it reaches, as in Nix. A consumer of one state pulls those layers of the next that it does not
have. *Small ones* leaves out the updates that change half of the closure or more, a new C library
for instance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from bench.baselines import by_popularity, by_size
from bench.closures import (
    DEBIAN_ROOTS,
    Closure,
    Package,
    Packages,
    available,
    debian,
    own_packages,
    realise,
)
from bench.context import Context, absent
from bench.table import Section, Verdict
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.image.rules.partition.plan import Group, divide
from support.apt import available as suite_list

__all__ = ["rows", "states"]

_LAYERS = (16, 32, 64, 100)
_TIERS = ("base", "toolchain", "packages", "devShells")

Tiers = list[tuple[str, list[StorePath]]]
World = Mapping[str, Package]


@dataclass(frozen=True, slots=True)
class State:
    """A closure at one time, its roots by tier, and what happened before."""

    what: str
    closure: Closure
    tiers: Tiers


Policy = Callable[[State, Sequence[Group] | None, int], tuple[Group, ...]]

_POLICIES: dict[str, Policy] = {
    "ours, on the previous image": lambda s, base, n: divide(s.closure, s.tiers, n, base),
    "ours, from nothing each time": lambda s, _, n: divide(s.closure, s.tiers, n),
    "size": lambda s, _, n: by_size(s.closure, n),
    "popularity": lambda s, _, n: by_popularity(s.closure, n),
}
_OURS = next(iter(_POLICIES))


def states(suite: Callable[[str], World]) -> Iterator[State]:
    """Yield the ten states; *suite* returns a suite's packages by name."""
    stable, updates, testing = suite("bookworm"), suite("bookworm-updates"), suite("trixie")
    world: dict[str, Package] = dict(stable)
    roots = {tier: list(names) for tier, names in DEBIAN_ROOTS.items()}
    yield _state("bookworm", world, roots)
    world |= {name: package for name, package in updates.items() if name in world}
    yield _state("its updates", world, roots)
    roots["packages"] += ["libcurl4-openssl-dev", "protobuf-compiler"]
    yield _state("two libraries added", world, roots)
    roots["devShells"].remove("golang-go")
    yield _state("Go removed", world, roots)
    _take(world, testing, ("git", "git-man", "cmake", "cmake-data"))
    yield _state("git and CMake upgraded", world, roots)
    _take(world, testing, ("libssl-dev", "openssl", "ca-certificates", "libcurl4-openssl-dev"))
    yield _state("OpenSSL's and curl's headers, and certificates, upgraded", world, roots)
    roots["devShells"] += ["rustc"]
    yield _state("Rust added", world, roots)
    _take(world, testing, [name for name in world if name.startswith(("python3-", "imagemagick"))])
    yield _state("Python's packages and ImageMagick upgraded", world, roots)
    yield _state("all of trixie", testing, roots)
    yield _state("all of sid", suite("sid"), roots)


def _take(world: dict[str, Package], newer: World, names: Sequence[str]) -> None:
    world |= {name: newer[name] for name in names if name in newer}


def _state(what: str, world: World, roots: Mapping[str, Sequence[str]]) -> State:
    wanted = {tier: [name for name in roots[tier] if name in world] for tier in _TIERS}
    packages: Packages = debian([name for names in wanted.values() for name in names], world)
    infos = realise(packages)
    tiers = [(tier, [infos[name].path for name in names]) for tier, names in wanted.items()]
    return State(what, {info.path: info for info in infos.values()}, tiers)


def _pulled(policy: Policy, history: Sequence[State], layers: int) -> list[int]:
    """Bytes pulled at each state after the first."""
    pulled: list[int] = []
    have: tuple[Group, ...] | None = None
    for state in history:
        groups = policy(state, have, layers)
        if have is not None:
            known = {group.paths for group in have}
            fresh = (group for group in groups if group.paths not in known)
            pulled.append(sum(state.closure[p].nar_size for group in fresh for p in group.paths))
        have = groups
    return pulled


def _bound(history: Sequence[State]) -> list[int]:
    return [
        sum(info.nar_size for path, info in new.closure.items() if path not in old.closure)
        for old, new in pairwise(history)
    ]


def rows(context: Context) -> Section:
    """Replay the history under every policy at every number of layers."""
    missing: list[str] = []
    history: list[State] = []
    if context.quick:
        history = list(states(_made_up))
    else:
        with absent("the history", context.say, missing):
            history = list(states(_suite))
    table = tuple(_rows(context, history)) if history else ()
    return Section(
        title="What consumers pull again, over ten states of a closure",
        intro=(__doc__ or "").split("\n\n", 1)[1].replace("\n", " "),
        columns=("policy", *(f"{n} layers" for n in _LAYERS)),
        rows=table,
        verdicts=tuple(_verdicts(history)) if history and not context.quick else (),
        notes=(*_notes(history), *missing),
    )


def _suite(name: str) -> Packages:
    # This machine's own lists are bookworm with its updates and security updates.
    if name == "bookworm-updates":
        return own_packages()
    return available(suite_list(name))


def _made_up(name: str) -> Packages:
    """A world of a few packages, in which every suite has newer versions than the one before."""
    number = ("bookworm", "bookworm-updates", "trixie", "sid").index(name)
    names = ["libc6", *(name for names in DEBIAN_ROOTS.values() for name in names)]
    names += ["libcurl4-openssl-dev", "protobuf-compiler", "rustc"]
    chosen = list(dict.fromkeys(names))
    return {
        name: Package(
            1000 * (n + 1), ("libc6",) if n else (), f"{number if n % 2 or number > 1 else 0}"
        )
        for n, name in enumerate(chosen)
    }


def _rows(context: Context, history: Sequence[State]) -> Iterator[tuple[str, ...]]:
    bound, small = _bound(history), _small(history)
    every = range(len(bound))
    for name, policy in _POLICIES.items():
        pulled = [_pulled(policy, history, layers) for layers in _LAYERS]
        context.say(f"  {name}: {_ratio(pulled[2], bound, every):.2f} × the bound at 64 layers")
        yield (name, *(f"{_ratio(one, bound, every):.2f} ×" for one in pulled))
        yield (f"{name}; small ones", *(f"{_ratio(one, bound, small):.2f} ×" for one in pulled))
    yield ("the bound: every path a layer", *(_megabytes(sum(bound)) for _ in _LAYERS))
    part = sum(bound[n] for n in small)
    yield ("the bound; small ones", *(_megabytes(part) for _ in _LAYERS))


def _small(history: Sequence[State]) -> list[int]:
    """The updates that changed less than half of the closure: the usual ones."""
    total = [sum(info.nar_size for info in state.closure.values()) for state in history[1:]]
    return [n for n, size in enumerate(_bound(history)) if 2 * size < total[n]]


def _ratio(pulled: Sequence[int], bound: Sequence[int], which: Sequence[int]) -> float:
    return sum(pulled[n] for n in which) / max(1, sum(bound[n] for n in which))


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"


def _verdicts(history: Sequence[State]) -> Iterator[Verdict]:
    bound, small = _bound(history), _small(history)
    pulled = _pulled(_POLICIES[_OURS], history, 64)
    for what, which in (("", range(len(bound))), (", small updates only", small)):
        ratio = _ratio(pulled, bound, which)
        yield Verdict(
            f"re-pull over a history of updates, 64 layers{what}",
            "the bound: every path a layer",
            f"{ratio:.2f} ×",
            "1.1 ×",
            ratio <= 1.1,
            _why(history, pulled, bound, which),
        )


def _why(
    history: Sequence[State], pulled: Sequence[int], bound: Sequence[int], which: Sequence[int]
) -> str:
    worst = sorted(which, key=lambda n: bound[n] - pulled[n])[:2]
    named = " and ".join(
        f"*{history[n + 1].what}* ({_megabytes(pulled[n])} where {_megabytes(bound[n])} changed)"
        for n in worst
    )
    return (
        f"most is lost at {named}: packages upgraded by themselves lie in layers with others that "
        "need the same things, which is where an update as likely for one path as for any other "
        "costs least. Half a dozen chosen packages are not such an update."
    )


def _notes(history: Sequence[State]) -> Iterator[str]:
    if not history:
        return
    bound, pulled = _bound(history), _pulled(_POLICIES[_OURS], history, 64)
    first = history[0]
    size = sum(info.nar_size for info in first.closure.values()) / 1e6
    yield (
        f"It starts with {len(first.closure)} store paths, {size:,.0f} MB. "
        + "; ".join(
            f"{state.what}: {old / 1e6:,.0f} MB changed, ours {new / 1e6:,.0f}"
            for state, old, new in zip(history[1:], bound, pulled, strict=True)
        )
        + " (64 layers)."
    )
