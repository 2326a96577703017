"""Images of other systems than this machine's: evaluated here, with their platform."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from nix_seed.flake.evaluate import evaluate_flake
from nix_seed.flake.nix import Nix
from nix_seed.flake.rules.choice import FlakeChoice
from nix_seed.formats.oci.reference import LayoutReference
from nix_seed.registry.layout import open_image
from support.distribution import make_project, nix_env
from support.seeds import (
    build,
    nix_seed,
    store_paths,
    write_project,
)


@pytest.fixture(scope="module")
def original(distribution: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("project") / "two-packages"
    return make_project("two-packages", where, distribution)


@pytest.fixture
def project(original: Path, tmp_path: Path) -> Path:
    """A checkout of one's own, to change."""
    return shutil.copytree(original, tmp_path / "checkout", symlinks=True)


# Other systems

PLATFORMS = {
    "aarch64-linux": {"architecture": "arm64", "os": "linux", "variant": "v8"},
    "x86_64-darwin": {"architecture": "amd64", "os": "darwin"},
    "aarch64-darwin": {"architecture": "arm64", "os": "darwin", "variant": "v8"},
}


@pytest.mark.parametrize("system", PLATFORMS)
def test_a_seed_of_another_system_is_evaluated_here(
    system: str, original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in nix_env().items():
        monkeypatch.setenv(name, value)
    recipe = evaluate_flake(Nix(), str(original), FlakeChoice(system=system)).recipe
    wanted = {path.name.removesuffix(".drv").split("-")[0] for path in recipe.wanted}
    assert {"bash", "coreutils", "nix", "stdenv", "python3", "gdb"} <= wanted
    assert recipe.outline.system == system
    assert bool(recipe.outline.container.files) == system.endswith("-linux")
    own = {path.name.removesuffix(".drv") for path in recipe.project}
    assert {"libgreet-1.0", "greet-1.0", "greet-test"} <= own


OTHERS = """
      packages = builtins.listToAttrs (map
        (system: {
          name = system;
          value.default = nixpkgs.legacyPackages.${system}.runCommand "tool" { }
            "mkdir -p $out/bin; echo > $out/bin/tool";
        })
        [ "x86_64-linux" "aarch64-linux" "x86_64-darwin" "aarch64-darwin" ]);
"""


@pytest.mark.parametrize("system", PLATFORMS)
def test_an_image_of_another_system_has_its_platform(
    system: str, distribution: Path, cache: Path, tmp_path: Path
) -> None:
    project = write_project(tmp_path / "others", distribution, OTHERS)
    arguments = ["--kind", "run", "--system", system, "-o", str(tmp_path / "image")]
    here = build(project, "--kind", "run", cache=cache)
    # The distribution's other systems are the same files under another label.
    env = nix_env(extra_platforms=system, max_jobs="auto")
    there = build(project, *arguments, cache=cache, env=env)
    assert there["system"] == system
    assert there["inputKey"] != here["inputKey"]
    assert not set(store_paths(there)) & set(store_paths(here))
    index = json.loads((tmp_path / "image/index.json").read_text())
    assert index["manifests"][0]["platform"] == PLATFORMS[system]
    image = open_image(LayoutReference(str(tmp_path / "image")))
    assert {k: image.config.get(k) for k in PLATFORMS[system]} == PLATFORMS[system]

    ran = nix_seed("build", project, *arguments, "--base", here["reference"], cache=cache, env=env)
    assert ran.code == 2
    assert f"is for x86_64-linux, the image for {system}" in ran.err
