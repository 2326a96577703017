"""Outputs of every kind that Nix knows: kept, taken by a fresh store, and the same there."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from support import seeds
from support.distribution import commit, distribution, nix
from support.output_world import SOURCE, Twenty, built_names, taken_names, twenty
from support.registries import docker_registry
from support.seeds import remove_tree

KINDS = """
      packages.${system} = rec {
        parts = pkgs.runCommand "parts" { outputs = [ "out" "dev" ]; } ''
          mkdir -p $out $dev/include; echo "$dev" > $out/uses; echo header > $dev/include/h.h
        '';
        itself = pkgs.runCommand "itself" { } ''echo "$out" > $out'';
        fixed = pkgs.runCommand "fixed" {
          outputHashMode = "flat"; outputHashAlgo = "sha256";
          outputHash = builtins.hashString "sha256" "fixed\n";
        } ''echo fixed > $out'';
        user = pkgs.runCommand "user" { } ''
          mkdir -p $out; echo "${fixed} ${parts.dev} ${itself}" > $out/uses
        '';
        odd = pkgs.runCommand "odd" { } ''
          mkdir -p $out/empty $out/deep/er "$out/a b"
          echo 1 > "$out/a b/ünïcode"; echo 2 > "$out/-n"; echo 3 > "$out/back\\\\slash"
          echo 4 > "$out/tab$(printf '\\t')"; : > $out/nothing
          echo '#!/bin/sh' > $out/run; chmod 777 $out/run
          ln -s /nowhere $out/dangling; ln -s . $out/loop; ln -s "a b/ünïcode" $out/link
          ln $out/nothing $out/hard
        '';
        link = pkgs.runCommand "link" { } ''ln -s ${odd}/run $out'';
        here = pkgs.runCommand "here" {
          preferLocalBuild = true; allowSubstitutes = false; before = odd;
        } ''echo "$before" > $out'';
        default = pkgs.runCommand "all" { before = [ parts user odd link here ]; } ''
          for each in $before; do echo "$each" >> $out; done
        '';
      };
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Twenty:
    directory = tmp_path_factory.mktemp("kinds") / "project"
    project = seeds.write_project(directory, distribution(), KINDS, {})
    subprocess.run(["git", "-C", str(project), "remote", "add", "origin", SOURCE], check=True)
    nix("build", "--no-link", f"{project}#default")
    return replace(twenty(), project=project)


@pytest.fixture(scope="module")
def kept(world: Twenty, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, set[str]]]:
    with docker_registry(tmp_path_factory.mktemp("registry"), password=False) as running:
        target = f"{running.host}/kinds"
        done = world.push(target)
        assert done.code == 0, done.err
        yield target, {path[44:] for path in json.loads(done.out)["pushed"]}


def test_outputs_of_every_kind(world: Twenty, kept: tuple[str, set[str]], tmp_path: Path) -> None:
    target, pushed = kept
    names = {"all", "fixed", "here", "itself", "link", "odd", "parts", "parts-dev", "user"}
    assert pushed == names
    store = world.fresh_store(tmp_path / "fresh")
    with world.serving(target, tmp_path / "served") as served:
        done = served.build(f"{world.project}#default", store)
    assert done.returncode == 0, done.stderr
    assert (built_names(done.stderr), taken_names(done.stderr)) == ([], sorted(names))
    there = nix("path-info", "--recursive", "--json", "--store", store, f"{world.project}#default")
    here = nix("path-info", "--recursive", "--json", f"{world.project}#default")
    keys = ("path", "narHash", "narSize", "references")
    got, made = (
        [{key: each[key] for key in keys} for each in json.loads(t)] for t in (there, here)
    )
    assert sorted(map(str, got)) == sorted(map(str, made))
    nix("store", "verify", "--all", "--no-trust", "--store", store)
    remove_tree(store)


FLOATING = """floating = pkgs.runCommand "floating" {
          __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256";
          before = itself;
        } "cat $before > $out";
        parts"""


def test_what_has_no_path_before_it_is_built_hides_no_other(world: Twenty, tmp_path: Path) -> None:
    project = tmp_path / "floating"
    subprocess.run(["git", "clone", "-q", world.project, project], check=True)
    subprocess.run(["git", "-C", str(project), "remote", "set-url", "origin", SOURCE], check=True)
    flake = project / "flake.nix"
    flake.write_text(flake.read_text().replace("parts", FLOATING, 1))
    commit(project, "Add one whose path is not known")
    nix("build", "--no-link", f"{project}#floating", extra_experimental_features="ca-derivations")
    env = {"NIX_CONFIG": "extra-experimental-features = ca-derivations\n"}
    how = ("--image", world.seed, "--flake", project, "--key", world.key, "--policy", world.policy)
    target = f"oci:{tmp_path / 'kept'}"
    done = world.run("outputs", "push", "--to", target, *how, "--json", env=env)
    assert done.code == 0, done.err
    names = {path[44:] for path in json.loads(done.out)["pushed"]}
    assert names >= {"all", "itself", "user"}
    assert "floating" not in names
