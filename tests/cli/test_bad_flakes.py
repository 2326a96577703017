"""Flakes that are wrong: what to do next is said, with its exit code, and nothing is left."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from support import refusals
from support.distribution import nix_env
from support.refusals import refused
from support.seeds import nix_seed, write_project


@pytest.fixture(scope="module")
def project(distribution: Path) -> Path:
    return refusals.project()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "image"


def test_no_flake(tmp_path: Path, cache: Path, output: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    ran = nix_seed("build", empty, "-o", output, cache=cache)
    refused(ran, 4, "does not contain a 'flake.nix'", "hint: ", "flake.nix", output=output)
    assert not list(empty.iterdir())


def test_a_directory_that_is_not_there(tmp_path: Path, cache: Path, output: Path) -> None:
    ran = nix_seed("build", tmp_path / "absent", "-o", output, cache=cache)
    refused(ran, 4, f"reading the flake {tmp_path}/absent", "hint: ", output=output)


@pytest.mark.parametrize("named", ["absent", "./absent", "path:/absent", "github:absent"])
def test_what_names_no_flake(named: str, tmp_path: Path, cache: Path, output: Path) -> None:
    registry = tmp_path / "registry.json"
    registry.write_text('{ "flakes": [], "version": 2 }')
    env = nix_env(flake_registry=str(registry))
    ran = nix_seed("build", named, "-o", output, cache=cache, cwd=tmp_path, env=env)
    told = "name a directory that holds a flake.nix, or a flake such as github:owner/repo"
    refused(ran, 4, f"reading the flake {named}", told, output=output)


def test_a_broken_flake_is_refused_in_nixs_own_words(
    tmp_path: Path, cache: Path, output: Path
) -> None:
    (tmp_path / "flake.nix").write_text("{ outputs = { self }: { packages = ; }; }\n")
    ran = nix_seed("build", tmp_path, "-o", output, cache=cache)
    refused(ran, 4, "  | error: syntax error, unexpected", "flake.nix:1:", output=output)


def test_a_flake_that_throws(tmp_path: Path, cache: Path, output: Path) -> None:
    text = '{ outputs = _: { packages.x86_64-linux.default = throw "no\x1b[31m such day"; }; }'
    (tmp_path / "flake.nix").write_text(text)
    ran = nix_seed("build", tmp_path, "-o", output, cache=cache)
    refused(ran, 2, "has no input with packages for x86_64-linux", "mkSeed", output=output)


def test_a_package_that_throws_is_named_and_cannot_steer_the_terminal(
    distribution: Path, tmp_path: Path, cache: Path, output: Path
) -> None:
    outputs = 'packages.${system}.bad = throw "no\x1b[31m such day";'
    where = write_project(tmp_path / "throwing", distribution, outputs)
    ran = nix_seed("build", where, "-o", output, cache=cache)
    refused(ran, 4, "such day", "--exclude packages.bad", output=output)
    assert "\x1b" not in ran.err


def test_all_outputs_that_do_not_evaluate_are_named_at_once(
    distribution: Path, tmp_path: Path, cache: Path, output: Path
) -> None:
    outputs = """packages.${system} = {
      bad = throw "unfree"; worse = pkgs.no-such-package; good = pkgs.bash;
    };
    devShells.${system} = throw "none";
    checks.${system}.late = builtins.derivation {
      name = "late"; inherit system; builder = throw "later";
    };
    formatter = throw "for no system";"""
    where = write_project(tmp_path / "throwing", distribution, outputs)
    ran = nix_seed("build", where, "-o", output, cache=cache)
    names = ("checks.late", "devShells", "formatter", "packages.bad", "packages.worse")
    left_out = " ".join(f"--exclude {name}" for name in names)
    refused(ran, 4, "for no system", left_out, output=output)


def test_a_flake_in_a_directory_that_an_address_names(
    distribution: Path, tmp_path: Path, cache: Path, output: Path
) -> None:
    """It is there, whatever else is wrong: the directory above it holds no flake, and need not."""
    outputs = 'packages.${system}.bad = throw "no such day";'
    write_project(tmp_path / "above/below", distribution, outputs)
    shutil.rmtree(tmp_path / "above/below/.git")
    for arguments in (["init", "-q"], ["add", "-A"]):
        subprocess.run(["git", "-C", tmp_path / "above", *arguments], check=True)
    named = f"git+file://{tmp_path}/above?dir=below"
    ran = nix_seed("build", named, "-o", output, cache=cache)
    refused(ran, 4, "such day", "--exclude packages.bad", output=output)
    assert "name a directory that holds a flake.nix" not in ran.err


_UNUSABLE = {
    "outputs that have no names are named by their kind": (
        'checks.${system}.good = pkgs.bash; packages.${system} = throw "none";',
        ("none", "--exclude packages"),
    ),
    "what nothing can be left out of is the flake's to mend": (
        'packages.${system} = abort "none";',
        ("none", "mend that in the flake"),
    ),
    "what a pure evaluation does not read is told how to come along": (
        'packages.${system}.host = pkgs.runCommand "host" { src = /etc/hosts; } "";',
        (
            "/etc",
            "make what is read there an input of the flake",
            "--exclude packages.host",
        ),
    ),
}


@pytest.mark.parametrize("case", _UNUSABLE)
def test_outputs_that_cannot_be_evaluated(
    case: str, distribution: Path, tmp_path: Path, cache: Path, output: Path
) -> None:
    outputs, words = _UNUSABLE[case]
    where = write_project(tmp_path / "unusable", distribution, outputs)
    ran = nix_seed("build", where, "-o", output, cache=cache)
    refused(ran, 4, *words, output=output)


def test_what_nixpkgs_refuses_is_told_how_to_allow(
    distribution: Path, tmp_path: Path, cache: Path, output: Path
) -> None:
    """Nixpkgs speaks of ``--impure`` there, which is for those who set its variables."""
    refusal = "refusing to evaluate: it has an unfree licence; or set a variable, with --impure"
    outputs = f'packages.${{system}}.bad = throw "{refusal}";'
    where = write_project(tmp_path / "unfree", distribution, outputs)
    ran = nix_seed("build", where, "-o", output, cache=cache)
    refused(ran, 4, "config.allowUnfree = true", "--exclude packages.bad", output=output)
    assert "without --impure" not in ran.err


def test_what_has_no_path_before_it_is_built_is_told_how_to_do_without(
    distribution: Path, tmp_path: Path, cache: Path, output: Path
) -> None:
    outputs = """packages.${system}.app = pkgs.runCommand "app" {
      src = ./src;
      needs = pkgs.runCommand "needed" {
        __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256";
      } "echo > $out";
    } "";"""
    where = write_project(tmp_path / "addressed", distribution, outputs, {"src/a": "a\n"})
    env = nix_env(experimental_features="nix-command flakes ca-derivations")
    ran = nix_seed("build", where, "-o", output, cache=cache, env=env)
    refused(ran, 4, "needed.drv has no output out", "without __contentAddressed", output=output)


@pytest.mark.parametrize("packages", ["{ default = pkgs.bash; }", "_: { }"])
def test_outputs_for_no_system_are_told_where_they_belong(
    packages: str, distribution: Path, tmp_path: Path, cache: Path, output: Path
) -> None:
    where = write_project(tmp_path / "nowhere", distribution, f"packages = {packages};")
    ran = nix_seed("build", where, "-o", output, cache=cache)
    told = "a seed is for packages, apps, checks, devShells and formatter"
    if "default" in packages:
        told = "packages.default is for no system: call it packages.x86_64-linux.default"
    refused(ran, 2, "has no outputs for x86_64-linux", told, output=output)


@pytest.mark.parametrize("text", ["{ }", "<<<<<<< HEAD\n{ }\n=======\n{ }\n>>>>>>> other\n"])
def test_a_lock_file_that_a_merge_left_is_told_apart_from_a_newer_one(
    text: str, tmp_path: Path, cache: Path, output: Path
) -> None:
    (tmp_path / "flake.nix").write_text("{ outputs = _: { }; }\n")
    (tmp_path / "flake.lock").write_text(text)
    ran = nix_seed("build", tmp_path, "-o", output, cache=cache)
    refused(ran, 4, "reading the flake", "as a merge may leave it", output=output)


def test_an_input_that_follows_none(
    distribution: Path, tmp_path: Path, cache: Path, output: Path
) -> None:
    where = write_project(tmp_path / "following", distribution, "packages.${system}.a = pkgs.bash;")
    text = (where / "flake.nix").read_text()
    inputs = 'inputs.other.follows = "nixpkgs/none"; inputs.nixpkgs.url'
    (where / "flake.nix").write_text(text.replace("inputs.nixpkgs.url", inputs))
    ran = nix_seed("build", where, "-o", output, cache=cache)
    refused(ran, 4, "let follows name an input that is there", output=output)


def test_an_input_that_is_another_than_was_locked(
    distribution: Path, tmp_path: Path, cache: Path, output: Path
) -> None:
    where = write_project(tmp_path / "moved", distribution, "packages.${system}.a = pkgs.bash;")
    lock = where / "flake.lock"
    lock.write_text(re.sub(r"sha256-.{9}", "sha256-AAAAAAAAA", lock.read_text()))
    ran = nix_seed("build", where, "-o", output, cache=cache)
    refused(ran, 4, "not what flake.lock says any more", "nix flake update INPUT", output=output)


def test_an_unknown_attribute_is_answered_with_those_there_are(
    project: Path, cache: Path, output: Path
) -> None:
    for arguments in ([str(project), "--attr", "sead"], [f"{project}#sead"]):
        ran = nix_seed("build", *arguments, "-o", output, cache=cache)
        message = f"error: {project} has no attribute sead for x86_64-linux"
        refused(ran, 2, message, "packages of x86_64-linux there: default, other", output=output)


def test_an_unsupported_system_is_answered_with_those_there_are(
    project: Path, cache: Path, output: Path
) -> None:
    ran = nix_seed("build", project, "--system", "riscv64-linux", "-o", output, cache=cache)
    message = f"error: {project} has no outputs for riscv64-linux"
    refused(ran, 2, message, "systems it has outputs for: x86_64-linux", output=output)


def test_a_flake_of_systems_alone_is_told_how_to_ask_for_one(
    tmp_path: Path, cache: Path, output: Path
) -> None:
    text = "{ outputs = _: { nixosConfigurations.box = throw 1; homeConfigurations.me = 1; }; }\n"
    (tmp_path / "flake.nix").write_text(text)
    ran = nix_seed("build", tmp_path, "--system", "x86_64-linux", "-o", output, cache=cache)
    asked = "it has nixosConfigurations.box, homeConfigurations.me, which a seed is for"
    included = 'packages.x86_64-linux.seed = mkSeed { include = [ "nixosConfigurations.box" ];'
    refused(ran, 2, "has no outputs for x86_64-linux", asked, included, output=output)


def test_a_flake_of_overlays_alone_is_told_what_a_seed_is_for(
    tmp_path: Path, cache: Path, output: Path
) -> None:
    text = (
        "{ outputs = _: { overlays.default = _: _: { }; legacyPackages.x86_64-linux = { }; }; }\n"
    )
    (tmp_path / "flake.nix").write_text(text)
    ran = nix_seed("build", tmp_path, "--system", "x86_64-linux", "-o", output, cache=cache)
    told = "a seed is for packages, apps, checks, devShells and formatter"
    refused(ran, 2, "has no outputs for x86_64-linux", told, output=output)


def test_a_flake_for_a_newer_nix_is_told_so(tmp_path: Path, cache: Path, output: Path) -> None:
    text = "{ inputs.self.submodules = true; outputs = _: { }; }\n"
    (tmp_path / "flake.nix").write_text(text)
    ran = nix_seed("build", tmp_path, "-o", output, cache=cache)
    refused(ran, 4, "reading the flake", "this Nix is too old for that", output=output)


def test_missing_nix(project: Path, tmp_path: Path, cache: Path, output: Path) -> None:
    env = {"PATH": str(tmp_path)}
    ran = nix_seed("build", project, "-o", output, cache=cache, env=env)
    refused(
        ran, 2, "nix is not installed, or not on PATH", "apt-get install nix-bin", output=output
    )


def test_a_flake_without_a_lock_stays_without(
    distribution: Path, project: Path, tmp_path: Path, cache: Path, output: Path
) -> None:
    where = tmp_path / "unlocked"
    shutil.copytree(project, where, symlinks=True)
    subprocess.run(["git", "-C", str(where), "rm", "-q", "flake.lock"], check=True)
    ran = nix_seed("build", where, "--kind", "run", "-o", output, cache=cache)
    refused(ran, 4, "hint: lock the flake's inputs first: nix flake lock", output=output)
    assert not (where / "flake.lock").exists()
