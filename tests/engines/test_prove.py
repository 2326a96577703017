"""What is a gap in a seed and what is the project's own work, on real flakes in a real seed."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from support import built, engines, seeds
from support.distribution import commit, distribution, nix
from support.seeds import edit, nix_seed, write_project

# Nothing of "middle" and "filtered" is named by an output; "docs" cannot even be evaluated.
OUTPUTS = """
      packages.${system} =
        let
          make = name: text: pkgs.runCommand name { } text;
          middle = make "middle" "cp ${./src}/words $out";
          filtered = builtins.filterSource (path: type: baseNameOf path != "other") ./src;
          deep = make "deep" "cat ${middle} ${filtered}/words > $out";
        in
        {
          default = make "program" "cat ${deep} > $out";
          docs = throw "docs need the moon";
          broken = make "broken" "cat ${pkgs.zlib} > $out";
          SEED
        };
      checks.${system} = throw "there are no checks";
      apps.${system}.default = {
        type = "app";
        program = "${pkgs.writeText "wrapper" "cat ${self.packages.${system}.default}"}";
      };
"""
SEED = """seed = seeds.mkSeed {
            inherit self system;
            exclude = [ "checks" "packages.docs" "packages.broken" ];
          };"""
FILES = {"src/words": "first words\n", "src/other": "other\n"}


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return seeds.product_flake(tmp_path_factory.mktemp("product") / "nix-seed")


@pytest.fixture(scope="module")
def project(product: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    engines.need("bwrap", "bubblewrap")
    outputs = OUTPUTS.replace("SEED", SEED)
    directory = tmp_path_factory.mktemp("own") / "project"
    return write_project(directory, distribution(), outputs, FILES, product=product)


CACHE = "cache"


def test_building_proves_what_the_seed_is_for(project: Path, tmp_path: Path) -> None:
    cache = built.workshop() / CACHE
    value = seeds.build(project, "--prove", "-o", project.parent / "seed", cache=cache)
    assert value["proof"]["complete"] is True
    assert value["proof"]["outputs"] == ["packages.default", "apps.default"]
    assert value["proof"]["leftOut"] == ["packages.broken", "packages.docs"]


def test_the_projects_unnamed_derivations_are_no_gaps(project: Path) -> None:
    edit(project, "src/words", "first", "second")
    cache = built.workshop() / CACHE
    image = f"oci:{project.parent}/seed"
    ran = nix_seed("prove", "--json", "--flake", project, "--image", image, cache=cache)
    proof = json.loads(ran.out)
    assert (ran.code, proof["missing"], proof["problem"]) == (0, [], None), ran.err
    assert proof["leftOut"] == ["packages.broken", "packages.docs"]
    plain = nix_seed("prove", "--flake", project, "--image", image, cache=cache)
    assert plain.out == (
        "complete: all 2 outputs can be built offline\n"
        "left out of the seed: packages.broken, packages.docs\n"
    )


def test_what_only_a_left_out_output_needs_is_a_gap_once_it_is_meant(project: Path) -> None:
    edit(project, "flake.nix", '"packages.docs" "packages.broken"', '"packages.docs"')
    ran = nix_seed(
        "prove", "--json", "--flake", project, "--image", f"oci:{project.parent}/seed",
        cache=built.workshop() / CACHE,
    )  # fmt: skip
    proof = json.loads(ran.out)
    assert ran.code == 1
    assert proof["leftOut"] == ["packages.docs"]
    assert proof["missing"] != []
    assert {tuple(gap["neededBy"]) for gap in proof["missing"]} == {("packages.broken",)}


def test_an_image_says_itself_what_it_leaves_out(tmp_path: Path) -> None:
    """So a proof, and a builder's statement, see what was left out of a stranger's flake."""
    engines.need("bwrap", "bubblewrap")
    outputs = OUTPUTS.replace("SEED", "")
    stranger = write_project(tmp_path / "stranger", distribution(), outputs, FILES)
    cache, image = built.workshop() / CACHE, f"oci:{tmp_path}/seed:seed"
    refused = nix_seed("build", stranger, "-o", tmp_path / "seed", cache=cache)
    assert "--exclude checks --exclude packages.docs" in refused.err
    out = ("--exclude", "checks", "--exclude", "packages.docs", "--exclude", "packages.broken")
    value = seeds.build(stranger, *out, "--prove", "-o", tmp_path / "seed", cache=cache)
    assert value["proof"]["outputs"] == ["packages.default", "apps.default"]
    assert value["excluded"] == ["checks", "packages.broken", "packages.docs"]
    proof = nix_seed("prove", "--flake", stranger, "--image", image, cache=cache)
    assert proof.out == (
        "complete: all 2 outputs can be built offline\n"
        "left out of the seed: packages.broken, packages.docs\n"
    ), proof.err
    key = tmp_path / "me.key"
    nix_seed("key", "generate", key, cache=cache)
    options = ("--flake", stranger, "--key", key, "--builder", "me", "--source", "https://a.org/b")
    said = nix_seed("attest", image, *options, cache=cache, cwd=tmp_path)
    assert said.code == 0, said.err
    twice = nix_seed("run", "--image", image, *out, "--flake", stranger, "--", "true", cache=cache)
    assert "leave --exclude out: an image says itself" in twice.err


# No source decides what reads a text; "passed" is defined nowhere in the flake.
READ = """
      packages.${system} = {
        default =
          let
            gen = pkgs.runCommand "gen" { } (builtins.readFile ./src/gen.sh);
            told = pkgs.runCommand "told" { }
              (if builtins.pathExists ./src/maybe then "echo yes > $out" else "echo no > $out");
          in pkgs.runCommand "program" { } "cat ${gen} ${told} > $out";
      };
"""


def test_text_that_is_read_is_no_gap_and_what_is_passed_on_is_one(tmp_path: Path) -> None:
    engines.need("bwrap", "bubblewrap")
    cache = built.workshop() / CACHE
    files = {"src/gen.sh": "echo one > $out\n", "parts/one.nix": '"true\\n"\n'}
    # With a further file that is no code, this does not evaluate.
    parts = (
        'map (name: import (./parts + "/${name}")) (builtins.attrNames (builtins.readDir ./parts))'
    )
    read = READ.replace("(builtins.readFile", f"(toString ({parts}) + builtins.readFile")
    project = write_project(tmp_path / "project", distribution(), read, files)
    image = f"oci:{tmp_path}/seed"
    assert seeds.build(project, "--prove", "-o", tmp_path / "seed", cache=cache)["proof"][
        "complete"
    ]
    (project / "src/maybe").touch()
    edit(project, "src/gen.sh", "one", "two")
    ran = nix_seed("prove", "--json", "--flake", project, "--image", image, cache=cache)
    assert json.loads(ran.out)["missing"] == [], ran.err
    passed = "        passed = pkgs.zlib;\n      };\n    };"
    edit(project, "flake.nix", "      };\n\n    };", passed)
    ran = nix_seed("prove", "--json", "--flake", project, "--image", image, cache=cache)
    (gap,) = json.loads(ran.out)["missing"]
    assert gap["path"][44:].startswith("zlib-joined-")
    assert (gap["kind"], gap["neededBy"]) == ("derivation", ["packages.passed"])


def test_a_flake_in_a_subdirectory(tmp_path: Path) -> None:
    engines.need("bwrap", "bubblewrap")
    cache = built.workshop() / CACHE
    flake = write_project(tmp_path / "alone", distribution(), READ, {"src/gen.sh": "echo one\n"})
    root = tmp_path / "repository"
    shutil.copytree(flake, root / "sub", ignore=shutil.ignore_patterns(".git"))
    subprocess.run(["git", "init", "-q", "-b", "main", str(root)], check=True)
    commit(root, "Start")
    (root / "sub/src/gen.sh").write_text("echo changed, not committed\n")
    made = seeds.build(root / "sub", "--prove", "-o", tmp_path / "seed", cache=cache)
    assert made["proof"]["complete"] is True
    (root / "sub/src/gen.sh").write_text("echo changed again\n")
    image = f"oci:{tmp_path}/seed"
    ran = nix_seed("prove", "--json", "--flake", root / "sub", "--image", image, cache=cache)
    assert json.loads(ran.out)["missing"] == [], ran.err


def test_why_the_flake_does_not_evaluate_is_said(project: Path) -> None:
    edit(project, "flake.nix", '"checks" "packages.docs"', '"checks"')
    image = f"oci:{project.parent}/seed"
    ran = nix_seed("prove", "--flake", project, "--image", image, cache=built.workshop() / CACHE)
    assert ran.code == 1
    assert "inside the seed with no network: error: docs need the moon" in ran.err


def test_what_nix_reads_only_when_pure_could_not_be_checked(tmp_path: Path) -> None:
    """As crane does: a directory by way of a file in it, in an input or in the flake itself."""
    engines.need("bwrap", "bubblewrap")
    cache = built.workshop() / CACHE
    names = 'toString (builtins.attrNames (builtins.readDir "${self}/src/words/../."))'
    outputs = (
        f'packages.${{system}}.default = pkgs.runCommand "app" {{ }} "echo ${{{names}}} > $out";'
    )
    project = write_project(tmp_path / "project", distribution(), outputs, FILES)
    seeds.build(project, "-o", tmp_path / "seed", cache=cache)
    ran = nix_seed("prove", "--flake", project, "--image", f"oci:{tmp_path}/seed", cache=cache)
    assert ran.code == 3, ran.err
    assert "its nix (Nix) 2.8.0 reads /nix/store/" in ran.err
    assert "src/words/../. only when pure" in ran.err


def test_a_lock_file_that_the_seeds_nix_is_too_old_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines.need("bwrap", "bubblewrap")
    newer = engines.debian_nix("trixie")
    cache = built.workshop() / CACHE
    outputs = 'packages.${system}.default = pkgs.runCommand "app" { src = ./src; } "";'
    files = FILES | {"sub/flake.nix": "{ outputs = _: { }; }\n"}
    project = write_project(tmp_path / "project", distribution(), outputs, files)
    seeds.build(project, "-o", tmp_path / "seed", cache=cache)
    edit(project, "flake.nix", "  outputs =", '  inputs.sub.url = "path:./sub";\n  outputs =')
    # An input in the flake's own tree is known since 2.26.
    monkeypatch.setenv("PATH", str(newer), prepend=":")
    nix("flake", "lock", cwd=project)
    monkeypatch.undo()
    commit(project, "Lock by a newer Nix")
    arguments = ("prove", "--flake", project, "--image", f"oci:{tmp_path}/seed")
    ran = nix_seed(*arguments, cache=cache)
    assert ran.code == 1
    said = "and flake.lock wants 2.26: sub lies in the flake's own tree; name a newer one"
    assert said in " ".join(ran.err.split())
    edit(project, "flake.lock", '"version": 7', '"version": 8')
    ran = nix_seed(*arguments, cache=cache)
    assert ran.code == 1
    assert "a newer one wrote flake.lock (version 8)" in " ".join(ran.err.split())
