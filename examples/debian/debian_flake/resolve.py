"""Decide which packages a set needs and which dependencies become references. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from debian_flake.apt import Package
from debian_flake.errors import Failure

Graph = dict[str, tuple[str, ...]]

# Needed only by maintainer scripts (postinst and the like), which nothing runs here.
MAINTAINER_ONLY = frozenset(
    [
        "adduser",
        "base-files",
        "base-passwd",
        "cdebconf",
        "debconf",
        "debconf-2.0",
        "debianutils",
        "default-logind",
        "dpkg",
        "init-system-helpers",
        "install-info",
        "libpam-systemd",
        "logind",
        "lsb-base",
        "passwd",
        "sensible-utils",
        "sysvinit-utils",
        "tzdata-legacy",
        "ucf",
        "update-inetd",
    ]
)
# Dependencies of single packages that the use they have here does not need.
LEFT_OUT = {
    "git": {"perl", "liberror-perl"},  # `git add -p` and `git send-email`
    "nix-bin": {"perl", "libdbd-sqlite3-perl", "libwww-curl-perl"},  # gone since Nix 2.0
    "ca-certificates": {"openssl"},  # only `update-ca-certificates` calls it
    "libc6-dev": {"rpcsvc-proto"},
}
# The C library comes first in every graph: it depends on nothing, whatever Debian says, because
# libgcc and libcrypt need it themselves.
FIRST = ("libc6",)


def resolve(wanted: Iterable[str], index: Mapping[str, Package]) -> Graph:
    """Return the dependency closure of the wanted packages, as an acyclic graph by name."""
    providers = _providers(index)
    graph: Graph = {}
    todo = sorted(set(wanted), reverse=True)
    chosen = set(todo)
    for name in todo:
        if name not in index:
            raise Failure(f"package {name} not found", "check the name with `apt-cache policy`")
    while todo:
        package = index[todo.pop()]
        found = _depends(package, index, providers, chosen)
        graph[package.name] = found
        new = [name for name in found if name not in chosen]
        chosen.update(new)
        todo += reversed(new)
    return cut_cycles(graph)


def _providers(index: Mapping[str, Package]) -> dict[str, list[str]]:
    providers: dict[str, list[str]] = {}
    for name in sorted(index):
        for virtual in index[name].provides:
            providers.setdefault(virtual, []).append(name)
    return providers


def _depends(
    package: Package,
    index: Mapping[str, Package],
    providers: Mapping[str, list[str]],
    chosen: set[str],
) -> tuple[str, ...]:
    if package.name in FIRST:
        return ()
    found: dict[str, None] = {}
    for alternatives in package.depends:
        skipped = MAINTAINER_ONLY | LEFT_OUT.get(package.name, set())
        if any(name in skipped for name in alternatives):
            continue
        options = [o for name in alternatives for o in _options(name, index, providers)]
        if not options:
            names = " or ".join(alternatives)
            raise Failure(
                f"package {package.name} depends on {names}, which apt's lists do not offer",
                "run `apt-get update`, or leave the package out",
            )
        # What is in the set already comes before Debian's first choice, as in apt itself.
        best = next((o for o in options if o in chosen), options[0])
        if best != package.name:
            found[best] = None
    return tuple(sorted(found))


def _options(
    name: str, index: Mapping[str, Package], providers: Mapping[str, list[str]]
) -> list[str]:
    return [name] if name in index else providers.get(name, [])


def cut_cycles(graph: Mapping[str, tuple[str, ...]]) -> Graph:
    """Return the graph without cycles, the same edges cut every time.

    A library's edge back to a program goes first (it is there for maintenance, not for linking);
    then whatever closes a cycle in a walk by name.
    """
    kept = {
        name: tuple(
            other
            for other in edges
            if not (_is_library(name) and not _is_library(other) and _reaches(graph, other, name))
        )
        for name, edges in graph.items()
    }
    return _drop_back_edges(kept)


def _is_library(name: str) -> bool:
    return name.startswith("lib")


def _reaches(graph: Mapping[str, tuple[str, ...]], start: str, goal: str) -> bool:
    seen, todo = {start}, [start]
    while todo:
        name = todo.pop()
        if name == goal:
            return True
        new = set(graph[name]) - seen
        seen |= new
        todo += new
    return False


def _drop_back_edges(graph: Mapping[str, tuple[str, ...]]) -> Graph:
    done: Graph = {}
    for start in sorted(graph):
        if start not in done:
            _walk(start, graph, done)
    return {name: done[name] for name in sorted(done)}


def _walk(start: str, graph: Mapping[str, tuple[str, ...]], done: Graph) -> None:
    """Walk depth first from one package; an edge to a package on the way down is dropped."""
    on_path = {start}
    stack = [(start, iter(graph[start]), list[str]())]
    while stack:
        name, edges, kept = stack[-1]
        other = next((edge for edge in edges if edge not in on_path), None)
        if other is None:
            done[name] = tuple(kept)
            on_path.discard(name)
            stack.pop()
            continue
        kept.append(other)
        if other not in done:
            on_path.add(other)
            stack.append((other, iter(graph[other]), []))
