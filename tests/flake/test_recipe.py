from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest

from nix_seed.flake.rules.outline import File, Outline
from nix_seed.flake.rules.recipe import Ownership, Recipe, build_recipe, input_key
from nix_seed.formats.nix.store_path import Derivation, Output, StorePath
from support.specs import store_path

OWN = store_path("source")
COMPRESSOR = {"name": "zstd", "version": "1.5.7", "level": 3}


def drv(*inputs: str, own: bool = False) -> Derivation:
    return Derivation(
        outputs={"out": Output(store_path("out"), "", "")},
        input_drvs={store_path(f"{name}.drv"): ("out",) for name in inputs},
        input_srcs=(OWN,) if own else (),
        system="x86_64-linux",
        builder="/bin/sh",
        args=(),
        env={},
    )


GRAPH = {
    store_path(f"{name}.drv"): derivation
    for name, derivation in {
        "app": drv("gcc", "zlib", "lib", own=True),
        "lib": drv("gcc", own=True),
        "test": drv("app", "python", own=True),
        "theirs": drv("rust"),
        "gcc": drv("glibc"),
        "rust": drv(),
        "zlib": drv(),
        "python": drv(),
        "glibc": drv(),
        "bash": drv(),
    }.items()
}


def context(*names: str) -> dict[str, Any]:
    return {str(store_path(f"{name}.drv")): {"outputs": ["out"]} for name in names}


def outline(**changes: Any) -> Outline:
    value: dict[str, Any] = {
        "name": "seed",
        "system": "x86_64-linux",
        "kind": "seed",
        "source": str(OWN),
        "inputs": {"nixpkgs": f"{store_path('nixpkgs')}/sub"},
        "project": {
            "packages": [
                {"output": "packages.app", "context": context("app")},
                {"output": "packages.lib", "context": context("lib")},
                {"output": "packages.theirs", "context": context("theirs"), "foreign": True},
            ],
            "checks": [{"output": "checks.test", "context": context("test")}],
        },
        "tiers": [
            {"name": "base", "roots": context("bash")},
            *(
                {"name": name, "roots": {}}
                for name in ("toolchain", "inputs", "packages", "checks")
            ),
        ],
        "compilers": context("gcc", "rust"),
        "config": {},
        "container": {"files": [], "env": {}},
    }
    return Outline.from_json(value | changes)


def recipe(given: Outline | None = None) -> Recipe:
    return build_recipe(Ownership(given or outline(), GRAPH.__getitem__, OWN.__eq__))


def names(built: Recipe) -> dict[str, set[str]]:
    return {
        tier.name: {path.name.removesuffix(".drv") for path in {*tier.outputs, *tier.paths}}
        for tier in built.tiers
    }


def test_each_tier_holds_what_its_outputs_are_built_from() -> None:
    built = recipe()
    assert names(built) == {
        "base": {"bash"},
        "toolchain": {"gcc"},  # rust builds nothing of the project's own
        "inputs": {"nixpkgs"},
        "packages": {"gcc", "zlib", "theirs"},
        "checks": {"gcc", "zlib", "python"},
    }
    assert {path.name for path in built.project} == {"app.drv", "lib.drv", "test.drv"}
    wanted = {path.name.removesuffix(".drv") for path in built.wanted}
    assert wanted == {"bash", "gcc", "zlib", "theirs", "python"}


def test_a_run_image_is_what_its_tiers_say() -> None:
    tiers = [{"name": "lib", "roots": context("zlib")}, {"name": "app", "roots": context("app")}]
    built = recipe(outline(kind="run", tiers=tiers))
    assert names(built) == {"lib": {"zlib"}, "app": {"app"}}


def test_a_whole_derivation_is_its_own_file() -> None:
    path = str(store_path("bash.drv"))
    tiers = [{"name": "base", "roots": {path: {"allOutputs": True}}}]
    (tier,) = recipe(outline(tiers=tiers)).tiers
    assert not tier.outputs
    assert tier.paths == frozenset({StorePath.parse(path)})


def test_the_input_key_is_of_what_decides_the_bytes() -> None:
    built = recipe()
    key = input_key(built, COMPRESSOR, 64)
    assert len(key) == 40
    assert set(key) <= set("0123456789abcdef")
    assert input_key(recipe(), COMPRESSOR, 64) == key
    others = [
        input_key(built, COMPRESSOR | {"level": 4}, 64),
        input_key(built, COMPRESSOR, 63),
        input_key(dataclasses.replace(built, tiers=built.tiers[1:]), COMPRESSOR, 64),
    ]
    container = msgspec.structs.replace(built.outline.container, files=(File("etc/x", text=""),))
    changes: list[dict[str, Any]] = [
        {"name": "other"},
        {"system": "aarch64-linux"},
        {"kind": "run"},
        {"inputs": {}},
        {"container": container},
    ]
    for change in changes:
        changed = msgspec.structs.replace(built.outline, **change)
        others.append(input_key(dataclasses.replace(built, outline=changed), COMPRESSOR, 64))
    assert len({key, *others}) == len(others) + 1


@pytest.mark.parametrize("name", ["app", "lib", "test"])
def test_another_source_has_the_same_recipe(name: str) -> None:
    """What the project's own derivations are called, and from which source, is not in it."""
    renamed = {store_path(f"{name}.drv"): store_path(f"{name}-changed.drv")}

    def moved(path: StorePath) -> StorePath:
        return renamed.get(path, path)

    graph = {
        moved(path): dataclasses.replace(
            node, input_drvs={moved(item): used for item, used in node.input_drvs.items()}
        )
        for path, node in GRAPH.items()
    }
    text = msgspec.json.encode(outline()).decode()
    for old, new in renamed.items():
        text = text.replace(str(old), str(new))
    text = text.replace(str(OWN), str(store_path("source2")))
    moved_outline = Outline.from_json(msgspec.json.decode(text))
    changed = build_recipe(Ownership(moved_outline, graph.__getitem__, OWN.__eq__))
    assert input_key(changed, COMPRESSOR, 64) == input_key(recipe(), COMPRESSOR, 64)
    assert changed.project != recipe().project
