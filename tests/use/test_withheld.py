"""A flake input that must not be passed on, a part of a seed, and a seed of another attribute."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support.distribution import nix_env
from support.seeds import Ran, build, names, nix_seed, product_flake, remove_tree, write_project

# New bytes each time: no store of an earlier run has the input.
BLOB = os.urandom(600).hex()

VENDOR = """
    packages.${system}.default = pkgs.runCommand "vendor-tool-1.0" { src = ./blob; } "cp $src $out"
      // { meta.license = { shortName = "vendor-eula"; free = false; }; };
"""
OUTPUTS = """
    packages.${system} = let
      more = pkgs.runCommand "vendor-more-1.0" { } "echo more > $out"
        // { meta.license = { shortName = "more-eula"; free = false; }; };
      seedOf = contents: seeds.mkSeed {
        inherit self system;
        licences = { withhold = [ "input:vendor" ]; unknown = "report"; };
        contents.packages = contents;
      };
    in {
      default = pkgs.runCommand "app" {
        tool = inputs.vendor.packages.${system}.default;
        own = ./own.txt;
      } "cat $tool $own > $out";
      plain = pkgs.runCommand "plain" { own = ./own.txt; } "cat $own > $out";
      seed = seedOf [ ];
      fuller = seedOf [ more ];
    };
"""
TOOL = ("--accept-licence", "vendor-eula")
TREE = ("--accept-licence", "see LICENSE")

needs_bwrap = pytest.mark.skipif(
    shutil.which("bwrap") is None, reason="needs bwrap: apt-get install bubblewrap"
)


@pytest.fixture(scope="module")
def project(distribution: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("withheld")
    files = {"blob": BLOB, "LICENSE": "All rights reserved. Not for redistribution.\n"}
    vendor = write_project(directory / "vendor", distribution, VENDOR, files)
    return write_project(
        directory / "project",
        distribution,
        OUTPUTS,
        {"own.txt": "own\n"},
        product=product_flake(directory / "product"),
        inputs=f"""
  inputs.vendor = {{ url = "git+file://{vendor}"; inputs.nixpkgs.follows = "nixpkgs"; }};""",
    )


@pytest.fixture(scope="module")
def image(project: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("image") / "seed"
    # What was just built is proved with what building it has evaluated.
    built = build(project, "-o", directory, "--tag", "seed", "--prove", cache=cache)
    assert "vendor-tool-1.0" not in names(built)
    return f"oci:{directory}:seed"


def withheld(image: str, cache: Path) -> dict[str, dict[str, str | None]]:
    ran = nix_seed("licences", image, "--json", cache=cache)
    return {item["path"][44:]: item for item in json.loads(ran.out)["withheld"]}


def valid(root: Path) -> set[str]:
    """Return the names of the paths that Nix's database below *root* calls valid, all intact."""
    store = ["nix-store", "--store", str(root)]
    done = subprocess.run(
        [*store, "--query", "--requisites", *map(_logical, root.glob("nix/store/*-*"))],
        env=nix_env(),
        check=True,
        capture_output=True,
        text=True,
    )
    return {path[44:] for path in done.stdout.split()}


def _logical(path: Path) -> str:
    return f"/nix/store/{path.name}"


def test_the_tree_and_what_is_made_of_it_are_withheld(image: str, cache: Path) -> None:
    found = withheld(image, cache)
    assert set(found) == {"vendor-tool-1.0", "source"}
    assert found["source"]["derivation"] is None
    assert found["source"]["licence"] == "see LICENSE"


@needs_bwrap
def test_a_command_runs_with_it(project: Path, image: str, cache: Path, tmp_path: Path) -> None:
    ran = nix_seed(
        *("run", "--engine", "bwrap", "--image", image, "--flake", project),
        *("--out", tmp_path / "o", *TOOL, *TREE, "--", "nix", "build"),
        cache=cache,
    )
    assert ran.code == 0, ran.err
    [app] = (tmp_path / "o").rglob("*-app")
    assert app.read_text() == f"{BLOB}own\n"


@needs_bwrap
def test_a_proof_fetches_what_evaluation_reads(project: Path, image: str, cache: Path) -> None:
    command = ("prove", "--engine", "bwrap", "--image", image, "--flake", project)
    refused = nix_seed(*command, *TOOL, cache=cache)
    assert refused.code == 2
    assert "source: licence see LICENSE" in refused.err
    assert "--accept-licence 'see LICENSE'" in refused.err
    ran = nix_seed(*command, *TREE, cache=cache)
    assert ran.code == 0, ran.err
    assert "complete: all 2 outputs" in ran.out


def hydrate(project: Path, image: str, root: Path, *more: str, cache: Path) -> Ran:
    command = ("hydrate", image, "--root", root, "--flake", project)
    return nix_seed(*command, *more, cache=cache)


def test_a_store_gets_it(project: Path, image: str, cache: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    ran = hydrate(project, image, root, *TOOL, *TREE, cache=cache)
    assert ran.code == 0, ran.err
    assert {"vendor-tool-1.0", "source"} <= valid(root)
    [tool] = root.glob("nix/store/*-vendor-tool-1.0")
    assert tool.read_text() == BLOB
    remove_tree(root)


def test_the_tree_of_another_commit_is_refused(
    project: Path, image: str, cache: Path, tmp_path: Path, distribution: Path
) -> None:
    """The tree is in no store but the machine's, and the flake named does not have it."""
    other = write_project(
        tmp_path / "other",
        distribution,
        'packages.${system}.default = pkgs.runCommand "x" { own = ./own.txt; } "cp $own $out";',
        {"own.txt": "own\n"},
    )
    root = tmp_path / "root"
    ran = hydrate(other, image, root, *TOOL, *TREE, cache=cache)
    assert ran.code == 3
    assert f"{other} does not say how to get " in ran.err
    assert "-source, a source tree, which the seed must not pass on" in ran.err
    assert "with the same flake.lock; and with --attr" in ran.err
    remove_tree(root)


def test_a_part_whose_own_need_is_withheld(
    project: Path, image: str, cache: Path, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    part = ("--for", f"{project}#packages.default")
    refused = hydrate(project, image, root, *part, *TREE, cache=cache)
    assert refused.code == 2
    assert "vendor-tool-1.0: licence vendor-eula" in refused.err
    ran = hydrate(project, image, root, *part, *TOOL, *TREE, cache=cache)
    assert ran.code == 0, ran.err
    assert {"vendor-tool-1.0", "source"} <= valid(root)
    offline = ["nix", "build", "--offline", "--store", str(root), "--no-link", str(project)]
    done = subprocess.run(offline, env=nix_env(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    remove_tree(root)


def test_a_part_asks_only_for_what_it_needs(
    project: Path, image: str, cache: Path, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    part = ("--for", f"{project}#packages.plain")
    refused = hydrate(project, image, root, *part, cache=cache)
    assert refused.code == 2
    assert not root.exists() or not list(root.glob("nix/store/*"))
    assert "vendor-eula" not in refused.err
    ran = hydrate(project, image, root, *part, *TREE, cache=cache)
    assert ran.code == 0, ran.err
    assert not list(root.glob("nix/store/*-vendor-tool-1.0"))
    remove_tree(root)


def test_a_seed_of_another_attribute_is_completed_by_it(
    project: Path, cache: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "fuller"
    build(project, "-o", directory, "--tag", "seed", "--attr", "fuller", cache=cache)
    image = f"oci:{directory}:seed"
    assert "vendor-more-1.0" in withheld(image, cache)
    accepted = (*TOOL, *TREE, "--accept-licence", "more-eula")
    root = tmp_path / "root"
    failed = hydrate(project, image, root, *accepted, cache=cache)
    assert failed.code == 3
    assert "does not say how to get vendor-more-1.0" in failed.err
    assert "--attr the seed's own attribute" in failed.err
    ran = hydrate(project, image, root, "--attr", "fuller", *accepted, cache=cache)
    assert ran.code == 0, ran.err
    assert "vendor-more-1.0" in valid(root)
    remove_tree(root)
    if shutil.which("bwrap") is not None:
        inside = ("--image", image, "--flake", project, "--attr", "fuller", *accepted)
        ran = nix_seed("run", "--engine", "bwrap", *inside, "--", "true", cache=cache)
        assert ran.code == 0, ran.err
