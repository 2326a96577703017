from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from nix_seed.core.errors import InputError
from nix_seed.formats.nix.store_path import PathInfo, StorePath
from nix_seed.image.rules.partition.plan import MAX_BUDGET, MIN_BUDGET, Group, divide
from support.specs import path_info, store_path

TIERS = ("base", "toolchain", "inputs", "packages", "apps", "checks", "devShells")
Closure = dict[StorePath, PathInfo]
Tiers = list[tuple[str, list[StorePath]]]


def chain(prefix: str, length: int, below: str | None = None) -> list[PathInfo]:
    """Paths that each refer to the one before."""
    infos = []
    for n in range(length):
        infos.append(path_info(f"{prefix}{n}", 1000 * (n + 1), *([below] if below else [])))
        below = f"{prefix}{n}"
    return infos


def example(packages: int, *, checks: bool = True) -> tuple[Closure, Tiers]:
    infos = chain("base", 9) + chain("tool", 40, "base8") + chain("pkg", packages, "tool20")
    tiers = [
        ("base", [store_path("base8")]),
        ("toolchain", [store_path("tool39"), store_path("base3")]),
        ("packages", [store_path(f"pkg{packages - 1}")]),
    ]
    if checks:
        infos += chain("check", 5, "pkg1")
        tiers.append(("checks", [store_path("check4"), store_path("tool2")]))
    return {info.path: info for info in infos}, tiers


def of(groups: tuple[Group, ...], *tiers: str) -> list[Group]:
    return [group for group in groups if group.tier in tiers]


@pytest.mark.parametrize("budget", [MIN_BUDGET, 16, 40, 64, MAX_BUDGET])
def test_what_lies_above_does_not_move_base_and_toolchain(budget: int) -> None:
    lower = [of(divide(*example(count), budget), "base", "toolchain") for count in (2, 30, 90)]
    lower.append(of(divide(*example(2, checks=False), budget), "base", "toolchain"))
    assert lower[0]
    assert all(groups == lower[0] for groups in lower)


@pytest.mark.parametrize("budget", [MIN_BUDGET, 9, 16, 40, 64, MAX_BUDGET])
def test_each_path_lies_in_one_layer_within_the_budget(budget: int) -> None:
    closure, tiers = example(60)
    groups = divide(closure, tiers, budget)
    laid = [path for group in groups for path in group.paths]
    assert sorted(laid) == sorted(closure)
    assert len(groups) <= budget
    names = [group.tier for group in groups]
    assert names == sorted(names, key=[name for name, _ in tiers].index)


@pytest.mark.parametrize("budget", [-1, 0, MIN_BUDGET - 1, MAX_BUDGET + 1])
def test_a_budget_out_of_bounds_is_refused(budget: int) -> None:
    with pytest.raises(InputError, match=f"{budget} layers cannot be asked for") as caught:
        divide(*example(2), budget)
    assert f"from {MIN_BUDGET} to {MAX_BUDGET} (--layers)" in (caught.value.hint or "")


def test_the_smallest_budget_serves_every_tier() -> None:
    infos = [info for tier in TIERS for info in chain(tier, 3)]
    tiers = [(tier, [store_path(f"{tier}2")]) for tier in TIERS]
    groups = divide({info.path: info for info in infos}, tiers, MIN_BUDGET)
    assert {group.tier for group in groups} == set(TIERS)
    assert len(groups) <= MIN_BUDGET


def test_divided_by_itself_nothing_moves() -> None:
    closure, tiers = example(60)
    groups = divide(closure, tiers, 40)
    assert divide(closure, tiers, 40, groups) == groups


def test_a_closure_is_exactly_the_tiers() -> None:
    closure, tiers = example(5)
    with pytest.raises(InputError, match=r"no tier reaches /nix/store/.*-stray"):
        divide({**closure, store_path("stray"): path_info("stray", 1)}, tiers, 16)
    with pytest.raises(
        InputError, match=r"-gone, a root of tier 'packages', is not in the closure"
    ):
        divide(closure, [*tiers[:2], ("packages", [store_path("gone"), *tiers[2][1]])], 16)
    lacking = {path: info for path, info in closure.items() if path.name != "base0"}
    with pytest.raises(InputError, match=r"refers to .*-base0, which is not in the closure"):
        divide(lacking, tiers, 16)


@settings(max_examples=30)
@given(st.data())
def test_any_closure_is_divided(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 20))
    infos = [
        path_info(f"n{n}", data.draw(st.integers(0, 10**9)), *_below(data, n)) for n in range(size)
    ]
    closure = {info.path: info for info in infos}
    spread: Tiers = [(tier, []) for tier in TIERS]
    for info in infos:
        data.draw(st.sampled_from(spread))[1].append(info.path)
    budget = data.draw(st.integers(MIN_BUDGET, 30))
    groups = divide(closure, spread, budget)
    assert sorted(path for group in groups for path in group.paths) == sorted(closure)
    assert len(groups) <= budget
    shuffled = {path: closure[path] for path in data.draw(st.permutations(list(closure)))}
    assert divide(shuffled, spread, budget) == groups


def _below(data: st.DataObject, n: int) -> list[str]:
    return [f"n{m}" for m in data.draw(st.sets(st.integers(0, n - 1), max_size=3))] if n else []
