from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from hypothesis import given, strategies as st

from nix_seed.flake.rules.frontier import Frontier, FrontierWalk, evaluate_frontier
from nix_seed.formats.nix.store_path import Derivation, Output, StorePath

OWN, FOREIGN = "own-source", "their-source"


def path(name: str) -> StorePath:
    return StorePath(f"{'0' * 32}-{name}")


def drv(*inputs: str, src: str = FOREIGN, fixed: bool = False) -> Derivation:
    """A derivation of these inputs, named ``gcc`` or ``gcc!lib,dev``."""
    pairs = (item.partition("!")[::2] for item in inputs)
    return Derivation(
        outputs={"out": Output(path("out"), "sha256", "00" * 32 if fixed else "")},
        input_drvs={path(name): tuple((used or "out").split(",")) for name, used in pairs},
        input_srcs=(path(src),),
        system="x86_64-linux",
        builder="/bin/sh",
        args=(),
        env={},
    )


def frontier(
    graph: Mapping[str, Derivation], roots: Iterable[str], known: Iterable[str] | None = None
) -> Frontier:
    roots = list(roots)
    read = {path(name): derivation for name, derivation in graph.items()}.__getitem__
    named = frozenset(map(path, roots if known is None else known))
    walk = FrontierWalk(read, path(OWN).__eq__, named)
    return evaluate_frontier({path(root): ["out"] for root in roots}, read, walk)


def names(found: Frontier) -> tuple[dict[str, set[str]], set[str]]:
    wanted = {item.name: set(outputs) for item, outputs in found.derivations.items()}
    return wanted, {item.name for item in found.project}


def test_a_package_rests_on_its_inputs() -> None:
    graph = {"app": drv("gcc", "zlib!dev,lib", src=OWN), "gcc": drv("glibc"), "zlib": drv("gcc")}
    graph["glibc"] = drv()
    assert names(frontier(graph, ["app"])) == ({"gcc": {"out"}, "zlib": {"dev", "lib"}}, {"app"})


def test_what_is_built_from_the_source_is_opened_however_deep() -> None:
    graph = {
        "app": drv("wrapper"),
        "wrapper": drv("inner", "bash"),
        "inner": drv("unnamed", "bash!dev"),
        "unnamed": drv("gcc", src=OWN),
        "gcc": drv(),
        "bash": drv(),
    }
    wanted, project = names(frontier(graph, ["app"]))
    assert wanted == {"bash": {"out", "dev"}, "gcc": {"out"}}
    assert project == {"app", "wrapper", "inner", "unnamed"}


def test_one_source_of_many_is_enough() -> None:
    both = replace(drv("gcc"), input_srcs=(path(FOREIGN), path(OWN)))
    graph = {"app": drv("inner"), "inner": both, "gcc": drv()}
    assert names(frontier(graph, ["app"])) == ({"gcc": {"out"}}, {"app", "inner"})


def test_an_input_in_the_project_gives_way_to_its_own_inputs() -> None:
    graph = {"app": drv("lib", src=OWN), "lib": drv("gcc", src=OWN), "gcc": drv()}
    assert names(frontier(graph, ["app", "lib"])) == ({"gcc": {"out"}}, {"app", "lib"})


def test_a_fixed_output_is_always_wanted() -> None:
    graph = {
        "app": drv("vendored", "download", src=OWN),
        # Its builder changes with the source, its content does not.
        "vendored": drv("fetcher", fixed=True, src=OWN),
        "fetcher": drv(src=OWN),
        "download": drv(fixed=True),
    }
    wanted = {"vendored": {"out"}, "download": {"out"}}
    assert names(frontier(graph, ["app"])) == (wanted, {"app"})
    # Even where an output of the flake names it: a build without a network cannot fetch it.
    assert names(frontier(graph, ["app", "vendored"])) == (wanted, {"app"})


def test_an_app_of_another_flake_is_wanted_itself() -> None:
    graph = {"theirs": drv("gcc"), "gcc": drv(), "app": drv("gcc", src=OWN)}
    assert names(frontier(graph, ["theirs"], known=["app"])) == ({"theirs": {"out"}}, set())
    # One that starts the project's own program, which no output names, is opened.
    assert names(frontier(graph, ["app"], known=[])) == ({"gcc": {"out"}}, {"app"})


def test_an_output_that_has_no_source_is_the_projects_still() -> None:
    graph = {"shell": drv("gcc"), "gcc": drv()}
    assert names(frontier(graph, ["shell"])) == ({"gcc": {"out"}}, {"shell"})


def test_a_chain_of_50000_needs_no_deep_stack() -> None:
    graph = {f"d{i}": drv(f"d{i + 1}", "gcc") for i in range(50_000)}
    graph |= {"d50000": drv(src=OWN), "gcc": drv()}
    wanted, project = names(frontier(graph, ["d0"]))
    assert wanted == {"gcc": {"out"}}
    assert len(project) == 50_001
    graph["d50000"] = drv()
    assert names(frontier(graph, ["d0"], known=[])) == ({"d0": {"out"}}, set())


def test_every_derivation_is_judged_once() -> None:
    layers = 40  # every one leads to both of the next: 2^40 ways
    graph = {
        f"{side}{i}": drv(f"a{i + 1}", f"b{i + 1}") for i in range(layers) for side in ("a", "b")
    }
    graph |= {f"a{layers}": drv(src=OWN), f"b{layers}": drv()}
    wanted, _ = names(frontier(graph, ["a0"]))
    assert wanted == {f"b{layers}": {"out"}}


@given(st.data())
def test_the_frontier_parts_what_changes_from_what_does_not(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 12))
    graph = {}
    for i in range(size):
        inputs = data.draw(st.sets(st.integers(0, i - 1), max_size=3)) if i else set()
        own = data.draw(st.booleans())
        graph[f"n{i}"] = drv(
            *(f"n{n}" for n in sorted(inputs)),
            src=OWN if own else FOREIGN,
            fixed=data.draw(st.booleans()),
        )
    changes: dict[str, bool] = {}
    for name, node in graph.items():  # inputs come first
        inner = any(changes[item.name] for item in node.input_drvs)
        changes[name] = not node.is_fixed_output and (inner or path(OWN) in node.input_srcs)
    top = f"n{size - 1}"
    wanted, project = names(frontier(graph, [top], known=[]))
    assert not any(changes[name] for name in wanted)
    assert all(changes[name] for name in project)
    assert top in (project if changes[top] else wanted)
    inputs_of_project = {item.name for name in project for item in graph[name].input_drvs}
    assert inputs_of_project - project <= set(wanted) <= inputs_of_project | {top}
