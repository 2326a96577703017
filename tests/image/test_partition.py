from __future__ import annotations

import random
import re
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from nix_seed.core.digests import NarHash
from nix_seed.core.errors import InputError
from nix_seed.formats.nix.store_path import PathInfo, StorePath
from nix_seed.image.rules.partition.assign import Atom, bars, build_index, contract, members
from nix_seed.image.rules.partition.plan import Group, divide, partition

sys.path.insert(0, str(Path(__file__).parents[2]))
from bench.baselines import by_popularity, by_size
from bench.closures import (
    Closure,
    Package,
    Packages,
    closure_of,
    realise,
    roots_of,
    synthetic,
    updated,
)

Tiers = list[tuple[str, list[StorePath]]]


def store_path(name: str) -> StorePath:
    return StorePath(f"{'0' * 32}-{name}")


def info(name: str, *references: str, size: int = 1) -> PathInfo:
    paths = tuple(store_path(reference) for reference in references)
    return PathInfo(store_path(name), NarHash.of(name.encode()), size, paths)


def plan_input(packages: Packages, tiers: int = 1) -> tuple[Closure, Tiers]:
    """Deal the roots of *packages* out to as many tiers, by name, so that additions move none."""
    infos = realise(packages)
    dealt: Tiers = [(f"tier{n}", []) for n in range(tiers)]
    for root in sorted(roots_of(packages)):
        dealt[sum(root.encode()) % tiers][1].append(infos[root].path)
    return closure_of(infos.values()), dealt


def weight(groups: Sequence[Group], closure: Closure) -> int:
    index = build_index(closure)
    total = 0
    for group in groups:
        union = 0
        for path in group.paths:
            union |= index.closures[index.number[path]]
        total += sum(closure[path].nar_size for path in group.paths) * union.bit_count()
    return total


def bound(closure: Closure) -> int:
    return weight([Group("", (path,)) for path in closure], closure)


# Made once: hypothesis finds out anew what each strategy that is made can draw.
_SIZES = st.integers(0, 30).map(lambda e: 3**e // 7 + e)
_VERSIONS = st.sampled_from(["1.0", "2.0"])


@cache
def _some_of(count: int) -> st.SearchStrategy[set[str]]:
    return st.sets(st.sampled_from(sorted(f"p{i}" for i in range(count))), max_size=4)


@st.composite
def packages(draw: st.DrawFn, most: int = 40) -> Packages:
    result: Packages = {}
    for i in range(draw(st.integers(1, most))):
        needs = draw(_some_of(i)) if i else set()
        size, version = draw(_SIZES), draw(_VERSIONS)
        # A few names with the same package under several versions.
        result[f"p{i}"] = Package(size, tuple(sorted(needs)), version)
    return result


class TestInvariants:
    @given(packages(), st.integers(1, 4), st.integers(4, 12))
    def test_every_path_once_in_its_first_tier_within_budget(
        self, graph: Packages, tiers: int, budget: int
    ) -> None:
        closure, roots = plan_input(graph, tiers)
        groups = partition(closure, roots, budget=budget)
        assert len(groups) <= budget
        assert sorted(p for g in groups for p in g.paths) == sorted(closure)
        assert all(g.paths == tuple(sorted(g.paths)) and g.paths for g in groups)
        index = build_index(closure)
        for group in groups:
            for path in group.paths:
                bit = 1 << index.number[path]
                first = next(
                    name
                    for name, own in roots
                    if any(index.closures[index.number[root]] & bit for root in own)
                )
                assert group.tier == first
        order = [name for name, _ in roots]
        assert [order.index(g.tier) for g in groups] == sorted(order.index(g.tier) for g in groups)

    @pytest.mark.slow
    @given(packages(), st.integers(1, 3), st.integers(3, 12), st.randoms(use_true_random=False))
    def test_input_order_does_not_matter(
        self, graph: Packages, tiers: int, budget: int, rng: random.Random
    ) -> None:
        closure, roots = plan_input(graph, tiers)
        before = partition(closure, roots, budget=budget)
        infos = [
            PathInfo(
                i.path, i.nar_hash, i.nar_size, tuple(rng.sample(i.references, len(i.references)))
            )
            for i in closure.values()
        ]
        rng.shuffle(infos)
        shuffled = [(name, rng.sample(own, len(own))) for name, own in roots]
        assert partition(closure_of(infos), shuffled, budget=budget) == before

    @given(packages(), st.integers(1, 3), st.integers(3, 12))
    def test_its_own_partition_as_base_changes_nothing(
        self, graph: Packages, tiers: int, budget: int
    ) -> None:
        closure, roots = plan_input(graph, tiers)
        groups = partition(closure, roots, budget=budget)
        assert partition(closure, roots, budget=budget, base=groups) == groups

    @given(packages(), packages(), st.integers(1, 3), st.integers(3, 12), st.integers(3, 12))
    def test_any_base_gives_a_valid_plan_and_is_settled_at_once(
        self, old: Packages, new: Packages, tiers: int, old_budget: int, budget: int
    ) -> None:
        base = partition(*plan_input(old, tiers), budget=old_budget)
        closure, roots = plan_input(new, tiers)
        groups = partition(closure, roots, budget=budget, base=base)
        assert len(groups) <= budget
        assert sorted(p for g in groups for p in g.paths) == sorted(closure)
        assert partition(closure, roots, budget=budget, base=groups) == groups

    @given(packages(), st.data())
    def test_with_a_base_an_update_moves_no_package(
        self, graph: Packages, data: st.DataObject
    ) -> None:
        closure, roots = plan_input(graph)
        base = partition(closure, roots, budget=8)
        name = data.draw(st.sampled_from(sorted(graph)))
        groups = partition(*plan_input(updated(graph, name, "3.0")), budget=8, base=base)
        by_package = [{p.package for p in g.paths} for g in groups]
        assert by_package == [{p.package for p in g.paths} for g in base]


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(60, 300))
def test_with_a_base_unchanged_layers_stay_whatever_comes_and_goes(seed: int, count: int) -> None:
    rng = random.Random(seed)
    graph = synthetic(count, seed)
    closure, roots = plan_input(graph)
    base = partition(closure, roots, budget=48)
    later = updated(graph, rng.choice(sorted(graph)))
    later["new"] = Package(rng.randrange(1, 10**8), tuple(rng.sample(sorted(graph), 3)))
    closure, roots = plan_input(later)
    groups = partition(closure, roots, base=base)
    unchanged = [group for group in base if all(path in closure for path in group.paths)]
    assert set(unchanged) <= set(groups)
    places = {path.package: n for n, g in enumerate(base) for path in g.paths}
    for group in groups:
        old = {places[path.package] for path in group.paths if path.package in places}
        assert len(old) <= 1


def test_a_base_without_anything_in_common_is_no_base() -> None:
    closure, roots = plan_input(synthetic(120))
    foreign = [Group(roots[0][0], (store_path("foreign"),)), Group("gone", tuple(closure))]
    assert partition(closure, roots, base=foreign) == partition(closure, roots)
    assert partition(closure, roots, base=[]) == partition(closure, roots)


def test_vanished_packages_drop_out_of_their_layer() -> None:
    both = closure_of([info("a", size=10), info("b", size=10)])
    tiers = [("t", [store_path("a"), store_path("b")])]
    (base,) = partition(both, tiers)
    assert base.paths == (store_path("a"), store_path("b"))
    (left,) = partition(closure_of([info("a", size=10)]), [("t", [store_path("a")])], base=[base])
    assert left.paths == (store_path("a"),)


def test_what_is_new_prefers_a_layer_that_changes_anyway() -> None:
    base = [Group("t", (store_path("a-1"),)), Group("t", (store_path("b-1"),))]
    closure = closure_of([info("a-1", size=10), info("b-2", size=10), info("c-1", size=10)])
    groups = partition(closure, [("t", list(closure))], base=base)
    assert [[path.name for path in group.paths] for group in groups] == [["a-1"], ["b-2", "c-1"]]


def test_several_paths_of_one_package_each_keep_their_layer() -> None:
    base = [
        Group("t", (store_path("gcc-12"),)),
        Group("t", (store_path("gcc-13"),)),
        Group("t", (store_path("gcc-13-lib"),)),
    ]
    names = ("gcc-12", "gcc-14", "gcc-14-lib")
    closure = closure_of([info(name, size=10) for name in names])
    groups = partition(closure, [("t", list(closure))], base=base)
    assert [group.paths[0].name for group in groups] == list(names)


def test_a_smaller_budget_unites_kept_layers_inside_their_tier() -> None:
    closure, roots = plan_input(synthetic(200), tiers=2)
    base = partition(closure, roots, budget=40)
    groups = partition(closure, roots, budget=20, base=base)
    assert len(groups) <= 20
    for group in base:
        assert any(set(group.paths) <= set(other.paths) for other in groups)


class TestLocality:
    """Without a base: how many layers move that need not."""

    def test_an_update_moves_no_other_layer(self) -> None:
        graph = synthetic(300)
        closure, roots = plan_input(graph)
        before = {frozenset(p.package for p in g.paths) for g in partition(closure, roots)}
        for name in random.Random(1).sample(sorted(graph), 15):
            groups = partition(*plan_input(updated(graph, name)))
            assert {frozenset(p.package for p in g.paths) for g in groups} == before

    def test_an_added_package_rarely_moves_another_layer(self) -> None:
        rng = random.Random(2)
        graph = synthetic(200)
        before = set(partition(*plan_input(graph)))
        moved = []
        for n in range(40):
            needs = tuple(rng.sample(sorted(graph), rng.randint(1, 6)))
            more = {**graph, f"added{n}": Package(int(rng.lognormvariate(12.5, 2)), needs)}
            groups = partition(*plan_input(more))
            added = [g for g in groups if g not in before]
            holds = sum(any(p.package == f"added{n}" for p in g.paths) for g in added)
            moved.append(len(added) - holds)
        # Half of them stand for megabytes, which open a layer and may draw a neighbour over.
        assert moved.count(0) >= 20
        assert sum(moved) <= 48


class TestQuality:
    def test_near_the_bound_with_64_layers(self) -> None:
        closure, roots = plan_input(synthetic(173))
        groups = partition(closure, roots)
        assert 40 <= len(groups) <= 64
        assert weight(groups, closure) * 10 <= bound(closure) * 11

    @pytest.mark.parametrize("count", [173, 600])
    def test_better_than_popularity_and_size(self, count: int) -> None:
        closure, roots = plan_input(synthetic(count))
        ours = weight(partition(closure, roots), closure)
        assert 3 * ours < weight(by_popularity(closure, 64), closure)
        assert 10 * ours < 9 * weight(by_size(closure, 64), closure)

    def test_bounds_of_tiny_closures(self) -> None:
        closure = closure_of([info("libc", size=10**8), info("app", "libc", size=10**8)])
        groups = partition(closure, [("t", [store_path("app")])])
        assert weight(groups, closure) == bound(closure) == 3 * 10**8

    def test_what_reaches_least_comes_first(self) -> None:
        closure = closure_of(
            [
                info("a-app", "m-lib", size=10**8),
                info("m-lib", "z-libc", size=10**8),
                info("z-libc", size=10**8),
            ]
        )
        groups = partition(closure, [("t", [store_path("a-app")])])
        assert [g.paths[0].name for g in groups] == ["z-libc", "m-lib", "a-app"]

    def test_almost_free_merges_are_made_below_the_budget(self) -> None:
        closure = closure_of([info("a", "b"), info("b", "c"), info("c")])
        assert len(partition(closure, [("t", [store_path("a")])])) == 1


def test_the_first_tier_does_not_depend_on_the_others() -> None:
    graph = synthetic(300)
    infos = realise(graph)
    first = sorted(graph)[:3]
    rest = [infos[root].path for root in roots_of(graph)]
    both = divide(
        closure_of(infos.values()), [("base", [infos[n].path for n in first]), ("b", rest)], 64
    )
    base = [g for g in both if g.tier == "base"]
    other = infos[sorted(graph)[100]].path
    index = build_index(closure_of(infos.values()))
    reached = index.closures[index.number[other]]
    for name in first:
        reached |= index.closures[index.number[infos[name].path]]
    small = {index.paths[i]: closure_of(infos.values())[index.paths[i]] for i in members(reached)}
    run = divide(small, [("base", [infos[n].path for n in first]), ("app", [other])], 64)
    assert [g for g in run if g.tier == "base"] == base


class TestBadInput:
    def test_reference_out_of_the_closure(self) -> None:
        closure = closure_of([info("a", "b")])
        message = f"{store_path('a')} refers to {store_path('b')}, which is not in the closure"
        with pytest.raises(InputError, match=re.escape(message)):
            partition(closure, [("t", [store_path("a")])])

    def test_withheld_reference_may_be_absent(self) -> None:
        closure = closure_of([info("a", "b")])
        groups = partition(closure, [("t", [store_path("a")])], absent=frozenset([store_path("b")]))
        assert groups == (Group("t", (store_path("a"),)),)

    def test_self_reference_is_fine(self) -> None:
        closure = closure_of([info("a", "a")])
        assert len(partition(closure, [("t", [store_path("a")])])) == 1

    def test_cycle(self) -> None:
        closure = closure_of([info("a", "b"), info("b", "a")])
        with pytest.raises(InputError, match="refer to each other in a cycle"):
            partition(closure, [("t", [store_path("a")])])

    def test_path_that_no_tier_reaches(self) -> None:
        closure = closure_of([info("a"), info("c"), info("b")])
        # Always the same one, whatever the order they are found in.
        message = f"no tier reaches {store_path('b')} (2 such paths in the closure)"
        with pytest.raises(InputError, match=re.escape(message)):
            partition(closure, [("t", [store_path("a")])])

    def test_root_that_is_not_in_the_closure(self) -> None:
        with pytest.raises(InputError, match=f"{store_path('b')}, a root of tier 't', is not in"):
            partition(closure_of([info("a")]), [("t", [store_path("b")])])

    def test_tier_given_twice(self) -> None:
        with pytest.raises(InputError, match="tier 't' is given twice"):
            partition(closure_of([info("a")]), [("t", [store_path("a")]), ("t", [])])

    def test_budget_below_the_tiers(self) -> None:
        closure = closure_of([info("a"), info("b")])
        tiers = [("x", [store_path("a")]), ("y", [store_path("b")])]
        with pytest.raises(InputError, match=r"a budget of 1 layers cannot hold 2 tiers \(x, y\)"):
            partition(closure, tiers, budget=1)
        assert len(partition(closure, tiers, budget=2)) == 2

    def test_nothing_gives_nothing(self) -> None:
        assert partition({}, [("t", [])]) == ()


def test_members_lists_the_set_bits() -> None:
    for bits in (0, 1, 2, 0b1011, 1 << 200 | 5):
        assert members(bits) == [i for i in range(201) if bits >> i & 1]


def test_bars_fall_and_end_at_what_a_layer_is_worth() -> None:
    grid = bars(1000, 10**12)
    assert grid == sorted(set(grid), reverse=True)
    assert grid[0] >= 10**12
    assert grid[-1] == 16 * 1024 * 1024
    assert bars(1, 0) == [16 * 1024]


def test_contraction_keeps_every_path_and_merges_the_nearest() -> None:
    line = [
        Atom(0, (i,), 1000, bits, bits.bit_count(), (str(i), "", ""))
        for i, bits in enumerate([0b1, 0b11, 0b1110000, 0b11110000])
    ]
    atoms = contract(line, 2)
    assert [atom.members for atom in atoms] == [(0, 1), (2, 3)]
    assert contract(line, 4) == line
