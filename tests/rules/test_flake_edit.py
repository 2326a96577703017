"""Flakes of many shapes get their seed, by the word of Nix itself; others are left alone."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nix_seed.setup.rules.flake_edit import edit_flake
from support.flakes import SHAPES, STRANGE
from support.programs import need

URL = "github:0compute/nix-seed/v0.1.0"

# Inputs as small as can be, that behave as the real ones do where flakes use them.
WORLD = """
source:
let
  hello = derivation { name = "hello"; system = "x86_64-linux"; builder = "/bin/sh"; };
  systems = [ "x86_64-linux" "aarch64-linux" ];
  gen = names: f: builtins.listToAttrs (map (name: { inherit name; value = f name; }) names);
  pkgsFor = system: { inherit hello; stdenv.hostPlatform.system = system; };
  each = list: f: builtins.foldl'
    (all: system: builtins.mapAttrs (kind: value: (all.${kind} or { }) // { ${system} = value; })
      (f system)) { } list;
  # Without a seed in it, for where none may hide the one that is looked for.
  known = {
    nixpkgs = { lib.genAttrs = gen; legacyPackages = gen systems pkgsFor; };
    flake-utils.lib = { eachDefaultSystem = each systems; eachSystem = each; };
    flake-parts.lib.mkFlake = { inputs }: module: each module.systems (system: module.perSystem {
      inherit system; pkgs = pkgsFor system; config = { }; self' = { }; inputs' = { };
    });
    nix-seed.lib.mkSeed = { self, system }: { seedFor = system; known = self ? packages; };
  };
  flake = import source;
  asked = builtins.functionArgs flake.outputs;
  declared = flake.inputs or { };
  wanted = if asked == { } then declared else asked;
  given = builtins.intersectAttrs (wanted // declared) known;
  self = flake.outputs (given // { inherit self; });
in {
  inputs = declared;
  arguments = builtins.attrNames asked;
  names = builtins.mapAttrs (_: builtins.attrNames) self.packages or { };
  seeds = builtins.mapAttrs (_: packages: packages.seed or null) self.packages or { };
}
"""


def evaluate(text: str, tmp_path: Any) -> dict[str, Any]:
    need("nix-instantiate")
    (tmp_path / "flake.nix").write_text(text)
    (tmp_path / "world.nix").write_text(WORLD)
    command = ["nix-instantiate", "--eval", "--strict", "--json", "--expr"]
    expression = f"import {tmp_path}/world.nix {tmp_path}/flake.nix"
    done = subprocess.run([*command, expression], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stderr}\n{text}"
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", SHAPES)
def test_a_flake_gets_its_seed_and_is_the_same_otherwise(name: str, tmp_path: Any) -> None:
    systems, source = SHAPES[name]
    edited = edit_flake(source, URL)
    assert edited.problem is None
    before, after = evaluate(source, tmp_path), evaluate(edited.text, tmp_path)
    found = {system: seed for system, seed in after["seeds"].items() if seed is not None}
    assert found == {system: {"seedFor": system, "known": True} for system in systems}
    added = after["inputs"].pop("nix-seed")
    assert added.pop("url") == URL
    follows = {"inputs": {"nixpkgs": {"follows": "nixpkgs"}}}
    assert added == (follows if "nixpkgs" in before["inputs"] else {})
    assert after["inputs"] == before["inputs"]
    assert set(after["arguments"]) - set(before["arguments"]) <= {"nix-seed", "self"}
    for system, names in before["names"].items():
        assert set(after["names"][system]) - set(names) == (
            {"seed"} if system in systems else set()
        )


@pytest.mark.parametrize("name", SHAPES)
def test_only_lines_are_added_and_twice_is_once(name: str) -> None:
    source = SHAPES[name][1]
    edited = edit_flake(source, URL)
    assert edited.added
    again = edit_flake(edited.text, URL)
    assert (again.text, again.added, again.problem) == (edited.text, (), None)
    # Nothing that was there is gone: what is left, in its order, is the flake as it was.
    position = 0
    for char in edited.text:
        position += position < len(source) and char == source[position]
    assert position == len(source)


def test_it_is_laid_out_as_the_flake_is() -> None:
    assert edit_flake(SHAPES["genAttrs"][1], URL).text == SHAPES["genAttrs"][1].replace(
        "      nixpkgs,\n", "      nixpkgs,\n      nix-seed,\n"
    ).replace(
        '  inputs.nixpkgs.url = "nixpkgs";\n',
        '  inputs.nixpkgs.url = "nixpkgs";\n'
        f'  inputs.nix-seed.url = "{URL}";\n'
        '  inputs.nix-seed.inputs.nixpkgs.follows = "nixpkgs";\n',
    ).replace(
        "          default = pkgs.hello;\n",
        "          default = pkgs.hello;\n"
        "          seed = nix-seed.lib.mkSeed { inherit self system; };\n",
    )
    commas = edit_flake(SHAPES["flake-utils, dotted"][1], URL).text
    assert "    , flake-utils\n    , nix-seed\n    , ...\n" in commas
    assert edit_flake(SHAPES["everything on one line"][1], URL).text == (
        f'{{ inputs = {{ nix-seed.url = "{URL}"; }}; outputs = {{ self, nix-seed, ... }}: '
        "{ packages = { x86_64-linux = { seed = nix-seed.lib.mkSeed "
        '{ inherit self; system = "x86_64-linux"; }; }; }; }; }'
    )
    one = edit_flake(SHAPES["one argument"][1], URL).text
    assert (
        'seed = inputs.nix-seed.lib.mkSeed { self = inputs.self; system = "x86_64-linux"; };' in one
    )


@pytest.mark.parametrize("name", STRANGE)
def test_what_is_not_understood_is_left_alone_with_advice(name: str) -> None:
    reason, source = STRANGE[name]
    edited = edit_flake(source, URL)
    assert edited.text == source
    assert edited.added == ()
    assert edited.problem is not None
    assert reason in edited.problem
    assert [place for place, _ in edited.advice] == [
        "to the flake's inputs",
        "to the arguments of outputs",
        "to packages.<system>, for each system",
    ]


def test_a_seed_of_the_flakes_own_is_kept() -> None:
    source = SHAPES["let system"][1].replace("note = text;", "seed = pkgs.hello;")
    assert edit_flake(source, URL).text == source


@given(st.sampled_from(sorted(SHAPES)), st.data())
def test_a_damaged_flake_is_edited_whole_or_not_at_all(name: str, data: st.DataObject) -> None:
    source = SHAPES[name][1]
    start = data.draw(st.integers(0, len(source)))
    end = data.draw(st.integers(start, min(len(source), start + 20)))
    damaged = source[:start] + data.draw(st.sampled_from(["", "{", "}", '"', "''", ";", "${"]))
    damaged += source[end:]
    edited = edit_flake(damaged, URL)
    if edited.added:
        assert edit_flake(edited.text, URL).added == ()
    else:
        assert edited.text == damaged
