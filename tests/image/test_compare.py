from __future__ import annotations

from nix_seed.core.digests import NarHash
from nix_seed.flake.rules.names import PackageChange, match_packages
from nix_seed.formats.nix.store_path import PathInfo, StorePath
from nix_seed.image.rules.changes import evaluate_plan
from nix_seed.image.rules.partition.plan import Group

Closure = dict[StorePath, PathInfo]


def path(name: str, hash_letter: str = "0") -> StorePath:
    return StorePath(f"{hash_letter * 32}-{name}")


def closure(*infos: tuple[StorePath, int, tuple[StorePath, ...]], salt: str = "") -> Closure:
    return {
        p: PathInfo(p, NarHash.of(f"{p}{salt}".encode()), size, references)
        for p, size, references in infos
    }


LIBC = path("glibc-2.38")
ZLIB, ZLIB3 = path("zlib-1.2"), path("zlib-1.3", "1")
GIT, GIT3 = path("git-2.40", "0"), path("git-2.40", "1")
MAKE = path("gnumake-4.4")

OLD = closure((LIBC, 100, ()), (ZLIB, 10, (LIBC,)), (GIT, 50, (ZLIB, LIBC)), (MAKE, 5, (LIBC,)))
NEW = closure((LIBC, 100, ()), (ZLIB3, 11, (LIBC,)), (GIT3, 51, (ZLIB3, LIBC)), (MAKE, 5, (LIBC,)))
OLD_PLAN = [Group("base", (LIBC,)), Group("tools", (ZLIB, MAKE)), Group("tools", (GIT,))]
NEW_PLAN = [Group("base", (LIBC,)), Group("tools", (MAKE, ZLIB3)), Group("tools", (GIT3,))]
ZLIB_CHANGE = PackageChange("zlib", ZLIB, ZLIB3)
GIT_CHANGE = PackageChange("git", GIT, GIT3)


def test_nothing_changed() -> None:
    diff = evaluate_plan(OLD_PLAN, OLD_PLAN, OLD, OLD)
    assert diff.pull_bytes == diff.pulled_layers == 0
    assert diff.total_bytes == 165
    assert diff.changes == ()
    assert diff.culprits == ()
    assert all(layer.reused and not layer.changes for layer in diff.layers)
    assert [layer.was for layer in diff.layers] == [0, 1, 2]


def test_a_new_version_drags_its_dependents() -> None:
    diff = evaluate_plan(NEW_PLAN, OLD_PLAN, NEW, OLD)
    assert [layer.reused for layer in diff.layers] == [True, False, False]
    assert [layer.size for layer in diff.layers] == [100, 16, 51]
    assert diff.pull_bytes == 67
    assert diff.changes == (GIT_CHANGE, ZLIB_CHANGE)
    assert diff.layers[1].changes == (ZLIB_CHANGE,)
    assert diff.layers[1].was == 1
    (culprit,) = diff.culprits
    assert culprit.cause is None
    assert not culprit.cause_changed
    assert culprit.roots == (ZLIB_CHANGE,)
    assert culprit.dependents == (GIT_CHANGE,)
    assert culprit.path_bytes == 62
    assert culprit.layers == (1, 2)
    assert culprit.pull_bytes == 67


def test_a_changed_input_is_named_and_gathers_its_roots() -> None:
    make = path("gnumake-4.4", "1")
    new = closure(
        (LIBC, 100, ()), (ZLIB3, 11, (LIBC,)), (GIT3, 51, (ZLIB3, LIBC)), (make, 5, (LIBC,))
    )
    plan = [Group("base", (LIBC,)), Group("tools", (make, ZLIB3)), Group("tools", (GIT3,))]
    causes = {"debian": [GIT3, make], "packages.default": [GIT3]}
    diff = evaluate_plan(plan, OLD_PLAN, new, OLD, causes, changed_causes={"debian"})
    (culprit,) = diff.culprits
    assert (culprit.cause, culprit.cause_changed) == ("debian", True)
    assert {change.package for change in culprit.roots} == {"zlib", "gnumake"}
    assert culprit.dependents == (GIT_CHANGE,)


def test_without_a_changed_cause_the_package_that_reaches_least_is_named() -> None:
    causes = {"packages.big": [GIT3, MAKE], "packages.zlib": [ZLIB3]}
    (culprit,) = evaluate_plan(NEW_PLAN, OLD_PLAN, NEW, OLD, causes).culprits
    assert (culprit.cause, culprit.cause_changed) == ("packages.zlib", False)


def test_causes_that_do_not_reach_a_root_are_not_blamed() -> None:
    causes = {"unrelated": [MAKE]}
    (culprit,) = evaluate_plan(
        NEW_PLAN, OLD_PLAN, NEW, OLD, causes, changed_causes={"unrelated"}
    ).culprits
    assert culprit.cause is None


def test_two_roots_of_change_are_two_culprits_and_share_a_dependent() -> None:
    libc, zlib, git = path("glibc-2.39", "2"), ZLIB3, path("git-2.40", "2")
    new = closure((libc, 100, ()), (zlib, 11, ()), (git, 51, (libc, zlib)), (MAKE, 5, ()))
    old = closure((LIBC, 100, ()), (ZLIB, 10, ()), (GIT, 50, (LIBC, ZLIB)), (MAKE, 5, ()))
    plan = [Group("t", (libc,)), Group("t", (zlib,)), Group("t", (git,)), Group("t", (MAKE,))]
    old_plan = [Group("t", (LIBC,)), Group("t", (ZLIB,)), Group("t", (GIT,)), Group("t", (MAKE,))]
    diff = evaluate_plan(plan, old_plan, new, old)
    assert [(c.roots[0].package, c.pull_bytes) for c in diff.culprits] == [
        ("glibc", 151),
        ("zlib", 62),
    ]
    assert all([d.package for d in c.dependents] == ["git"] for c in diff.culprits)
    assert diff.pull_bytes == 162


def test_an_added_dependency_is_a_root_of_change() -> None:
    curl = path("curl-8")
    new = {**OLD, **closure((curl, 7, (ZLIB,)))}
    diff = evaluate_plan([*OLD_PLAN, Group("tools", (curl,))], OLD_PLAN, new, OLD)
    added = PackageChange("curl", None, curl)
    assert diff.changes == (added,)
    assert diff.culprits[0].roots == (added,)
    assert diff.culprits[0].layers == (3,)
    assert diff.layers[3].was is None
    assert diff.pull_bytes == 7


def test_a_removed_package_answers_for_a_layer_in_which_nothing_came() -> None:
    new = {p: i for p, i in OLD.items() if p != MAKE}
    plan = [Group("base", (LIBC,)), Group("tools", (ZLIB,)), Group("tools", (GIT,))]
    diff = evaluate_plan(plan, OLD_PLAN, new, OLD)
    gone = PackageChange("gnumake", MAKE, None)
    assert diff.changes == diff.layers[1].changes == (gone,)
    (culprit,) = diff.culprits
    assert (culprit.roots, culprit.layers, culprit.pull_bytes) == ((gone,), (1,), 10)


def test_moved_paths_are_pulled_though_no_package_changed() -> None:
    plan = [Group("base", (LIBC,)), Group("tools", (ZLIB,)), Group("tools", (GIT, MAKE))]
    diff = evaluate_plan(plan, OLD_PLAN, OLD, OLD)
    assert diff.pull_bytes == 10 + 55
    assert diff.culprits == ()


def test_a_layer_replaces_one_of_its_own_tier() -> None:
    plan = [Group("base", (LIBC,)), Group("packages", (ZLIB, MAKE)), Group("tools", (GIT,))]
    moved = evaluate_plan(plan, OLD_PLAN, OLD, OLD).layers
    assert [(layer.reused, layer.was) for layer in moved] == [(True, 0), (True, None), (True, 2)]


def test_the_same_path_with_other_bytes_is_a_change() -> None:
    new = {**OLD, **closure((ZLIB, 10, (LIBC,)), salt="another builder")}
    diff = evaluate_plan(OLD_PLAN, OLD_PLAN, new, OLD)
    assert diff.changes == (PackageChange("zlib", ZLIB, ZLIB),)
    assert [layer.reused for layer in diff.layers] == [True, False, True]


def test_withheld_references_are_passed_over() -> None:
    withheld = path("cuda-12")
    new = {**NEW, **closure((MAKE, 5, (LIBC, withheld)))}
    assert evaluate_plan(NEW_PLAN, OLD_PLAN, new, OLD).pull_bytes == 67


def test_packages_with_several_paths_pair_by_full_name_first() -> None:
    old = closure(*((p, 1, ()) for p in (path("gcc-12", "a"), path("gcc-13", "a"))))
    new = closure(*((p, 1, ()) for p in (path("gcc-13", "b"), path("gcc-14", "b"))))
    assert match_packages(new, old) == (
        PackageChange("gcc", path("gcc-13", "a"), path("gcc-13", "b")),
        PackageChange("gcc", path("gcc-12", "a"), path("gcc-14", "b")),
    )


def test_a_long_chain_of_references_is_walked_without_recursion() -> None:
    names = [f"p{n:05d}" for n in range(5000)]
    old = closure(*((path(n), 1, ()) for n in names))
    links = zip([None, *names], names, strict=False)
    new = closure(*((path(b, "1"), 1, (path(a, "1"),) if a else ()) for a, b in links))
    plan = [Group("t", tuple(sorted(new)))]
    (culprit,) = evaluate_plan(plan, [Group("t", tuple(sorted(old)))], new, old).culprits
    assert [root.package for root in culprit.roots] == ["p00000"]
    assert len(culprit.dependents) == 4999
