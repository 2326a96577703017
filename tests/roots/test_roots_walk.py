from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from nix_seed.formats.nix.store_path import Derivation, StorePath
from nix_seed.roots.rules.roots import Roots, Stop, Walk, find_roots, walk_roots

GRAPH = {
    "app": ["gcc", "libc"],
    "tool": ["libc"],
    "gcc": ["libc", "seed"],
    "libc": ["seed", "source"],
    "seed": [],
    "source": [],
}
FETCHED = {"seed", "source"}


def path(name: str, suffix: str = "") -> StorePath:
    # Hash parts have no e, o, t or u; what is left of the name is enough to be unique.
    part = "".join(c for c in name if c not in "eotu")
    return StorePath(f"{part:0<32}-{name}{suffix}")


def derive(name: str, inputs: Sequence[str], sources: Sequence[str] = ()) -> Derivation:
    outputs = f'("out","{path(name)}","","")'
    if name in FETCHED:
        outputs = f'("out","{path(name)}","sha256","{"0" * 64}")'
    drvs = ",".join(f'("{path(each, ".drv")}",["out"])' for each in sorted(inputs))
    srcs = ",".join(f'"{path(each)}"' for each in sources)
    builder = path("seed") if inputs else "builtin:fetchurl"
    text = f'Derive([{outputs}],[{drvs}],[{srcs}],"x86_64-linux","{builder}",[],[])'
    return Derivation.parse(text, name)


def world(graph: Mapping[str, Sequence[str]] = GRAPH) -> Roots:
    drvs = {path(name, ".drv"): derive(name, below) for name, below in graph.items()}
    drvs[path("tool", ".drv")] = derive("tool", ["libc"], ["patch"])
    return find_roots([path("app", ".drv"), path("tool", ".drv")], drvs.__getitem__)


def walk(most: int = 100, wanted: Sequence[str] = ()) -> Walk:
    return walk_roots(world(), most, [path(name) for name in wanted])


def names(stops: Sequence[StorePath]) -> list[str]:
    return [stop.name.removesuffix(".drv") for stop in stops]


def stop(found: Walk, name: str) -> Stop:
    [stop] = [each for each in found.stops if each.path.name.removesuffix(".drv") == name]
    return stop


def test_each_stop_knows_its_neighbours_both_ways() -> None:
    found = walk()
    assert (len(found.stops), found.total) == (7, 7)
    assert names(found.tops) == ["app", "tool"]
    libc = stop(found, "libc")
    assert (libc.kind, libc.steps, libc.left) == ("derivation", 2, 0)
    assert names(libc.inputs) == ["seed", "source"]
    assert names(libc.users) == ["app", "gcc", "tool"]
    assert libc.first == path("app", ".drv")
    assert stop(found, "app").first is None
    assert set(found.by_path) == {each.path for each in found.stops}


def test_a_fetched_file_is_one_stop_with_what_fetches_it() -> None:
    seed = stop(walk(), "seed")
    assert (seed.path, seed.kind, seed.inputs) == (path("seed"), "fetched", ())
    assert names(seed.users) == ["gcc", "libc"]
    patch = stop(walk(), "patch")
    assert (patch.kind, names(patch.users)) == ("added", ["tool"])


def test_every_link_leads_to_a_stop_and_back() -> None:
    found = walk()
    for each in found.stops:
        for below in each.inputs:
            assert each.path in found.by_path[below].users
        for above in each.users:
            assert each.path in found.by_path[above].inputs


@pytest.mark.parametrize("most", range(1, 8))
def test_what_is_left_out_is_counted(most: int) -> None:
    found = walk(most)
    assert (len(found.stops), found.total) == (most, 7)
    full = walk()
    for each in found.stops:
        assert len(each.inputs) + each.left == len(full.by_path[each.path].inputs)
    assert len(found.tops) + found.tops_left == len(full.tops) == 2


def test_the_ways_to_what_matters_are_kept() -> None:
    found = walk(3, ["source"])
    assert {each.path.name.removesuffix(".drv") for each in found.stops} == {
        "app",
        "libc",
        "source",
    }
    assert stop(found, "source").first == path("libc", ".drv")
    assert len(walk(2, ["source"]).stops) == 2  # the way is too long for the page


def test_a_page_has_only_so_many_links() -> None:
    roots = world()
    full = walk_roots(roots, 100)
    few = walk_roots(roots, 100, links=4)
    assert sum(len(each.inputs) + each.left for each in full.stops) == 8
    assert sum(len(each.inputs) + each.left for each in few.stops) <= 4
    assert 2 < len(few.stops) < len(full.stops)


def test_a_graph_that_runs_in_a_circle_ends() -> None:
    roots = world({**GRAPH, "libc": ["gcc", "seed"]})
    found = walk_roots(roots, 100)
    assert "libc" in names(stop(found, "gcc").inputs)
    assert "gcc" in names(stop(found, "libc").inputs)
