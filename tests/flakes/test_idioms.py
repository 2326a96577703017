"""A commit that changes only source moves no key; what it leaves alone is in the seed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from flakes.idiom import Idiom
from flakes.idioms import IDIOMS
from flakes.other_flake import OTHER, OTHER_FILES
from nix_seed.flake.evaluate import Evaluation, evaluate_flake
from nix_seed.flake.nix import Nix
from nix_seed.flake.rules.choice import FlakeChoice
from nix_seed.flake.rules.recipe import input_key
from support.distribution import commit
from support.seeds import write_project


@pytest.fixture(scope="session")
def other(distribution: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another flake, without a repository."""
    where = tmp_path_factory.mktemp("other")
    for name, text in ({"flake.nix": OTHER % distribution} | OTHER_FILES).items():
        (where / name).write_text(text)
    return where


def evaluated(project: Path) -> tuple[Evaluation, str]:
    found = evaluate_flake(Nix(), str(project), FlakeChoice(system="x86_64-linux"))
    return found, input_key(found.recipe, {"name": "zstd"}, 64)


def names(found: Evaluation) -> set[str]:
    return {path.name.removesuffix(".drv") for path in found.recipe.wanted}


def change_every_file(project: Path, idiom: Idiom) -> None:
    """Change what a commit may: text, a version, another file; and how Nix code looks."""
    for path in sorted(project.rglob("*")):
        if ".git" in path.parts or not path.is_file() or path.name == "flake.lock":
            continue
        if path.name in idiom.keeps:
            continue
        text = path.read_text()
        if path.suffix == ".json":
            text = text.replace("1.2.3", "2.0.0") + "\n\n"
        elif path.name == "VERSION":
            text = "12.4\n"
        elif path.suffix == ".toml":
            text = text.replace("0.1.0", "0.2.0") + "# more\n"
        elif path.suffix == ".nix":
            text = f"{text}\n# A comment.\n"
        else:
            text = f"{text}another line\n"
        path.write_text(text)
    more = {"src/added.c": "int added;\n"} | dict(idiom.adds) | dict(idiom.becomes)
    for name, text in more.items():
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text(text)
    for name in idiom.removes:
        (project / name).unlink()
    if not idiom.dirty:
        commit(project, "Change everything")


@pytest.mark.parametrize("name", IDIOMS)
def test_idiom(name: str, distribution: Path, other: Path, tmp_path: Path) -> None:
    idiom = IDIOMS[name]
    inputs = f' inputs.other.url = "path:{other}";{idiom.inputs}'.replace("@other@", str(other))
    project = write_project(
        tmp_path / "project", distribution, idiom.outputs, idiom.files, inputs=inputs
    )
    found, key = evaluated(project)
    baked = names(found)
    for wanted in idiom.baked:
        assert any(item.startswith(wanted) for item in baked), (wanted, baked)
    project_names = {path.name.removesuffix(".drv") for path in found.recipe.project}
    for own in idiom.opened:
        assert not any(item.startswith(own) for item in baked), (own, baked)
    assert not baked & project_names
    assert str(found.flake.source) not in found.recipe.outline.inputs.values()
    change_every_file(project, idiom)
    again, new_key = evaluated(project)
    assert new_key == key, (names(again) ^ baked, again.ownership.twin.problem)


def test_a_change_of_an_input_moves_the_key(
    distribution: Path, other: Path, tmp_path: Path
) -> None:
    mine = shutil.copytree(other, tmp_path / "other")
    outputs = "packages.${system}.tool = inputs.other.packages.${system}.default;"
    inputs = f' inputs.other.url = "path:{mine}";'
    _, key = evaluated(write_project(tmp_path / "one", distribution, outputs, inputs=inputs))
    (mine / "tool.sh").write_text("echo changed\n")
    _, moved = evaluated(write_project(tmp_path / "two", distribution, outputs, inputs=inputs))
    assert moved != key
