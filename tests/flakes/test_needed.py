"""What evaluation itself fetches or builds is in the seed: it evaluates with no network."""

import json
import subprocess
from pathlib import Path

import pytest

from nix_seed.flake.evaluate import Evaluation, evaluate_flake
from nix_seed.flake.nix import Nix
from nix_seed.flake.rules.choice import FlakeChoice
from nix_seed.flake.rules.recipe import Needed, input_key
from support import engines, seeds
from support.distribution import distribution, nix
from support.seeds import edit, nix_seed, write_project

OUTPUTS = """
      packages.${system}.default =
        let
          built = import (pkgs.runCommand "generated.nix" { } "echo '{ text = 1; }' > $out");
          # Of the project's own files: not in the seed, but what it is built from.
          own = builtins.readFile
            (pkgs.runCommand "own" { src = ./src; tool = pkgs.zlib; } "cat $src/a > $out");
          fetched = import (builtins.fetchTarball { url = "file://@archive@"; sha256 = "@hash@"; });
          copied = import (builtins.path { path = ./nix; name = "copied"; });
        in
        pkgs.runCommand "app" { texts = [ built.text own fetched.text copied.text ]; }
          "echo $texts > $out";
"""
FILES = {"src/a": "a\n", "nix/default.nix": '{ text = "copied"; }\n'}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/default.nix").write_text('{ text = "from an archive"; }\n')
    made = tmp_path / "tree.tar.gz"
    subprocess.run(["tar", "-czf", made, "-C", tmp_path, "tree"], check=True)
    return made


@pytest.fixture
def project(archive: Path, tmp_path: Path) -> Path:
    outputs = OUTPUTS.replace("@archive@", str(archive))
    outputs = outputs.replace("@hash@", nix("hash", "path", archive.parent / "tree"))
    return write_project(tmp_path / "project", distribution(), outputs, FILES)


def evaluated(project: Path) -> tuple[Evaluation, str]:
    found = evaluate_flake(Nix(), str(project), FlakeChoice(system="x86_64-linux"))
    return found, input_key(found.recipe, {"name": "zstd"}, 64)


def test_what_is_needed_and_that_no_commit_moves_it(project: Path) -> None:
    found, key = evaluated(project)
    tier = next(tier for tier in found.recipe.tiers if tier.name == "inputs")
    names = {path.name.removesuffix(".drv") for path in tier.outputs}
    assert "generated.nix" in names
    assert any(name.startswith("zlib") for name in names)
    assert "own" not in names
    (fetched,) = found.ownership.needed.sources
    assert (Path(str(fetched)) / "default.nix").read_text() == '{ text = "from an archive"; }\n'
    assert fetched in tier.paths
    assert found.ownership.needed.problem is None
    edit(project, "src/a", "a", "b")
    edit(project, "nix/default.nix", "copied", "copied again")
    assert evaluated(project)[1] == key
    edit(project, "flake.nix", "text = 1", "text = 2")
    assert evaluated(project)[1] != key


def test_what_is_only_fetched(archive: Path, tmp_path: Path) -> None:
    tree = nix("hash", "path", archive.parent / "tree")
    fetch = f'builtins.fetchTarball {{ url = "file://{archive}"; sha256 = "{tree}"; }}'
    outputs = """
      # A comment names fetchTarball.
      packages.${system}.default =
        pkgs.runCommand "app" { inherit (import (import ./nix)) text; } "";
    """
    files = {"nix/default.nix": fetch}
    found, _ = evaluated(write_project(tmp_path / "project", distribution(), outputs, files))
    assert len(found.ownership.needed.sources) == 1
    named = {"nix/default.nix": f'{{ text = "not called"; never = {fetch}; }}'}
    outputs = outputs.replace("import (import ./nix)", "import ./nix")
    found, _ = evaluated(write_project(tmp_path / "other", distribution(), outputs, named))
    assert found.ownership.needed == Needed()


def test_a_flake_that_needs_nothing_is_evaluated_on_no_other_store(tmp_path: Path) -> None:
    outputs = 'packages.${system}.default = pkgs.runCommand "app" { src = ./src; } "";'
    project = write_project(tmp_path / "project", distribution(), outputs, FILES)
    assert evaluated(project)[0].ownership.needed == Needed()


def test_the_seed_evaluates_with_no_network(project: Path, archive: Path, tmp_path: Path) -> None:
    engines.need("bwrap", "bubblewrap")
    cache = tmp_path / "cache"
    made = seeds.build(project, "--prove", "-o", tmp_path / "seed", cache=cache)
    assert made["proof"]["complete"] is True
    away = archive.rename(tmp_path / "away")
    edit(project, "src/a", "a", "b")
    image = f"oci:{tmp_path}/seed"
    ran = nix_seed("prove", "--json", "--flake", project, "--image", image, cache=cache)
    proof = json.loads(ran.out)
    assert (ran.code, proof["missing"], proof["problem"]) == (0, [], None), ran.err
    away.rename(archive)
    ran = nix_seed("plan", project, "--why", "generated.nix", cache=cache)
    assert "evaluation itself builds it" in ran.out
