"""An output that is broken, or too large, is left out of a stranger's flake without editing it."""

from __future__ import annotations

from pathlib import Path

import pytest

from nix_seed.core.errors import InputError, NixFailed
from nix_seed.flake.evaluate import Evaluation, evaluate_flake
from nix_seed.flake.nix import Nix
from nix_seed.flake.rules.choice import FlakeChoice
from nix_seed.flake.rules.recipe import input_key
from nix_seed.licences.licences import assess_licences
from support.seeds import edit, product_flake, write_project

FILES = {"src/a": "a\n"}
OUTPUTS = """
      packages.${system} = {
        default = pkgs.runCommand "app" { src = ./src; tool = pkgs.zlib; } "";
        "big.one" = pkgs.runCommand "big" { src = ./src; tool = pkgs.gdb; } "";
        broken = throw "unfree";
        ROOM
      };
      checks.${system} = abort "these cannot even be named";
      formatter.${system} = pkgs.patchelf;
"""
# What its users would have to write into the flake.
LESS = '"packages.broken" "checks"'
OWN = """seed = seeds.mkSeed { inherit self system; exclude = [ WHAT ]; };
        run = seeds.mkRun { inherit self system; };
        # As a release makes it that knew of no more to leave out.
        older = removeAttrs (seeds.mkSeed { inherit self system; exclude = [ WHAT ]; })
          [ "nixSeedExclusion" ];"""


@pytest.fixture(scope="module")
def stranger(distribution: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flake without a seed of its own, two of whose outputs evaluate."""
    made = tmp_path_factory.mktemp("stranger") / "project"
    return write_project(made, distribution, OUTPUTS.replace("ROOM", ""), FILES)


@pytest.fixture(scope="module")
def owner(distribution: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, with a seed of its own that leaves out what does not evaluate."""
    root = tmp_path_factory.mktemp("owner")
    product = product_flake(root / "nix-seed")
    outputs = OUTPUTS.replace("ROOM", OWN.replace("WHAT", LESS))
    return write_project(root / "project", distribution, outputs, FILES, product=product)


def evaluated(project: Path, *exclude: str, **which: str) -> Evaluation:
    choice = FlakeChoice(**which, exclude=exclude)  # type: ignore[arg-type]
    return evaluate_flake(Nix(), str(project), choice)


def outputs(found: Evaluation) -> set[str]:
    return {entry.output for entry in found.recipe.outline.project.all}


def baked(found: Evaluation) -> set[str]:
    return {path.name.removesuffix(".drv").partition("-")[0] for path in found.recipe.wanted}


def key(found: Evaluation) -> str:
    return input_key(found.recipe, {"name": "zstd"}, 64)


def test_what_does_not_evaluate_is_named_as_the_option_takes_it(stranger: Path) -> None:
    with pytest.raises(NixFailed) as refused:
        evaluated(stranger, "checks")
    assert refused.value.hint == "leave out what does not evaluate: --exclude packages.broken"


def test_a_strangers_flake_is_seeded_without_some_outputs(stranger: Path) -> None:
    found = evaluated(stranger, "packages.broken", "checks")
    assert outputs(found) == {"packages.default", "packages.big.one", "formatter.default"}
    assert baked(found) >= {"zlib", "gdb", "patchelf"}
    less = evaluated(stranger, "packages.x86_64-linux.broken", "checks", "packages.big.one")
    assert outputs(less) == {"packages.default", "formatter.default"}
    assert "gdb" not in baked(less)
    assert less.recipe.outline.excluded == ("checks", "packages.big.one", "packages.broken")
    assert key(less) != key(found)


def test_licences_are_read_of_what_is_left(stranger: Path) -> None:
    found = evaluated(stranger, "packages.broken", "checks")
    assert assess_licences(Nix(), found, None, ()).problem is None


def test_what_the_flakes_own_seed_leaves_out_is_the_same_thing(owner: Path) -> None:
    plain = evaluated(owner)
    same = evaluated(owner, "checks", "packages.broken", "checks.late")
    assert same.recipe.outline.excluded == ()
    assert key(same) == key(plain)
    less = evaluated(owner, "packages.big.one", "checks")
    assert less.recipe.outline.excluded == ("packages.big.one",)
    assert outputs(less) == {"packages.default", "formatter.default"}


def test_an_image_to_ship_needs_no_other_output(stranger: Path, owner: Path) -> None:
    with pytest.raises(NixFailed) as refused:
        evaluated(stranger, "checks", kind="run")
    assert "--exclude packages.broken" in str(refused.value.hint)
    for project in (stranger, owner):
        found = evaluated(project, "packages.broken", "checks", kind="run")
        assert found.recipe.outline.kind == "run"


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("packages.bigone", "packages.big.one, packages.broken, packages.default"),
        ("formatter.other", "formatter.default"),
        ("package", "packages, apps, checks, devShells, formatter"),
        ("devShells.default", "none"),
    ],
)
def test_a_name_that_is_none_is_refused(name: str, there: str, stranger: Path) -> None:
    with pytest.raises(InputError, match=f"has no {name} for x86_64-linux") as refused:
        evaluated(stranger, "packages.broken", "checks", name)
    assert f"what it has: {there}" in str(refused.value.hint)


def test_another_systems_output_is_nothing_here(stranger: Path) -> None:
    found = evaluated(stranger, "packages.broken", "checks", "packages.aarch64-linux.none")
    assert found.recipe.outline.excluded == ("checks", "packages.broken")


def test_an_older_mkseed_leaves_out_what_it_says(owner: Path) -> None:
    assert outputs(evaluated(owner, attr="older")) == outputs(evaluated(owner))
    with pytest.raises(InputError, match="an older mkSeed made it") as refused:
        evaluated(owner, "packages.big.one", attr="older")
    assert "mkSeed { exclude = …; }" in str(refused.value.hint)


def test_an_excluded_outputs_change_changes_nothing(stranger: Path) -> None:
    before = evaluated(stranger, "packages.broken", "checks", "packages.big.one")
    edit(stranger, "flake.nix", "tool = pkgs.gdb", "tool = pkgs.zstd")
    assert key(evaluated(stranger, "packages.broken", "checks", "packages.big.one")) == key(before)
