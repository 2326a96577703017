"""Whose word a licence is taken from: other flakes, overrides, asked-for files, namesakes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.distribution import commit, nix_env
from support.seeds import Ran, build, edit, names, nix_seed, product_flake, write_project

BLOB = os.urandom(6000)
SYSTEM = "x86_64-linux"

VENDOR = """{
  inputs.nixpkgs.url = "path:@base@";
  outputs = { self, nixpkgs }:
    let
      pkgs = nixpkgs.legacyPackages.x86_64-linux;
      tool = pkgs.runCommand "vendor-tool-1.0" { inherit (pkgs) zlib; src = ./blob.bin; } ''
        mkdir -p $out/bin
        cp $src $out/bin/tool
      '' // { meta.license = { shortName = "unfree"; free = false; }; };
    in
    { lib = { inherit tool; }; @outputs@ };
}
"""
PROJECT = """{
  inputs.nixpkgs.url = "path:@base@";
  inputs.nix-seed = { url = "path:@product@"; inputs.nixpkgs.follows = "nixpkgs"; };
  inputs.vendor = { url = "path:@vendor@"; inputs.nixpkgs.follows = "nixpkgs"; };
  outputs = { self, nixpkgs, nix-seed, vendor }:
    let pkgs = nixpkgs.legacyPackages.x86_64-linux; in
    {
      packages.x86_64-linux = {
        seed = nix-seed.lib.mkSeed {
          inherit self;
          system = "x86_64-linux";
          licences = { accept = [ ]; };
        };
        default = pkgs.runCommand "app" { inherit (pkgs) zlib; own = ./own.txt; }
          "cat ${vendor.lib.tool}/bin/tool $own > $out";
      };
    };
}
"""


def filled(text: str, **places: str | Path) -> str:
    for name, value in places.items():
        text = text.replace(f"@{name}@", str(value))
    return text


def with_vendor(directory: Path, base: Path, outputs: str) -> Path:
    """Make a project that names a vendor's tool in a text; that flake's *outputs* are given."""
    vendor, product = directory / "vendor", product_flake(directory / "product")
    text = filled(VENDOR, base=base, outputs=outputs)
    write_project(vendor, base, "", {"flake.nix": text, "LICENSE": "All rights reserved.\n"})
    (vendor / "blob.bin").write_bytes(BLOB)
    commit(vendor, "Add the blob")
    text = filled(PROJECT, base=base, product=product, vendor=vendor)
    return write_project(directory / "project", base, "", {"flake.nix": text, "own.txt": "own\n"})


def table(project: Path, cache: Path) -> dict[str, dict[str, Any]]:
    ran = nix_seed("licences", project, "--json", cache=cache)
    assert ran.code == 0, ran.err
    value = json.loads(ran.out)
    assert value["problem"] is None
    return {item["path"][44:]: item for item in value["paths"]}


def refused(project: Path, cache: Path) -> Ran:
    ran = nix_seed("build", project, "-o", cache / "image", cache=cache)
    assert ran.code == 1, ran.err
    return ran


@pytest.mark.parametrize(
    "outputs",
    [
        f"packages.{SYSTEM}.default = tool;",
        f"legacyPackages.{SYSTEM}.vendor-tool = tool;",
    ],
)
def test_a_package_that_a_text_names_is_found_in_its_own_flake(
    distribution: Path, tmp_path: Path, outputs: str
) -> None:
    project = with_vendor(tmp_path, distribution, outputs)
    found = table(project, tmp_path)
    tool = found["vendor-tool-1.0"]
    assert (tool["status"], tool["licence"]) == ("withheld", "unfree")
    # The flake's own tree holds the blob; the recipe says that it may be passed on.
    ran = refused(project, tmp_path)
    assert "-source: blob.bin is bin/tool of" in ran.err
    assert "name them in licences.accept" in ran.err
    accepting = 'accept = [ "input:vendor" ]; unknown = "report";'
    edit(project, "flake.nix", "accept = [ ];", accepting)
    image = build(project, "-o", tmp_path / "image", cache=tmp_path)
    assert "vendor-tool-1.0" not in names(image)


def test_a_package_that_is_found_nowhere_is_unknown(distribution: Path, tmp_path: Path) -> None:
    project = with_vendor(tmp_path, distribution, f"packages.{SYSTEM} = {{ }};")
    found = table(project, tmp_path)
    # Not its inputs' licence: what of it is the vendor's own, nobody knows.
    assert found["vendor-tool-1.0"]["status"] == "unknown"
    assert found["vendor-tool-1.0"]["licence"] is None
    target = "registry.example/demo/seed:dev"
    ran = nix_seed("build", project, "--push", target, "--no-reuse", cache=tmp_path)
    assert ran.code == 1, ran.err
    assert "vendor-tool-1.0: none stated" in ran.err


def test_one_that_does_not_evaluate_costs_its_own_answer_only(
    distribution: Path, tmp_path: Path
) -> None:
    broken = 'a = abort "broken"; b = throw "thrown"; z = { }.absent; zz = 3; zzz = _: 3;'
    outputs = f"packages.{SYSTEM} = {{ default = tool; {broken} }}; legacyPackages = 3;"
    project = with_vendor(tmp_path, distribution, outputs)
    assert table(project, tmp_path)["vendor-tool-1.0"]["status"] == "withheld"


TWO = """
      packages.${system} =
        let
          make = name: url: derivation {
            inherit name url system;
            builder = "${pkgs.bash}/bin/bash";
            args = [ "-c" "printf '%s' '@body@' > $out" ];
            outputHashMode = "flat";
            outputHashAlgo = "sha256";
            outputHash = "@hash@";
          };
          here = make "vendor.bin" "https://a.example/v";
          there = make "vendor.bin" "https://b.example/v";
          tool = pkgs.runCommand "vendor-tool-1.0" { src = there; } "wc -c < $src > $out"
            // { meta.license = { shortName = "eula"; free = false; }; };
          liar = pkgs.runCommand "a-liar-1.0" { src = here; } "{ cat $src; echo more; } > $out"
            // { meta.license = { spdxId = "MIT"; free = true; }; };
        in
        {
          default = pkgs.runCommand "app" { inherit tool liar here; own = ./own.txt; }
            "cat $own > $out";
        };
"""


def test_one_file_from_two_addresses(distribution: Path, tmp_path: Path) -> None:
    body = os.urandom(300).hex()
    outputs = filled(TWO, body=body, hash=hashlib.sha256(body.encode()).hexdigest())
    project = write_project(tmp_path / "project", distribution, outputs, {"own.txt": "own\n"})
    found = table(project, tmp_path)
    assert found["vendor.bin"]["status"] == "withheld"
    ran = refused(project, tmp_path)
    assert "a-liar-1.0 may be passed on by its own word, but is built from" in ran.err
    assert "vendor.bin, whose licence is eula, says" in ran.err
    assert "-vendor-tool-1.0.drv" in ran.err


COPIER = """
      packages.${system} =
        let
          vendor = pkgs.runCommand "vendor-1.0" { } ''
            for n in 1 2 3 4 5 6 7 8 9 10 11 12; do echo "@line@ $n"; done > $out
          '' // { meta.license = { shortName = "eula"; free = false; }; };
          copier = pkgs.runCommand "copier-1.0" { inherit vendor; } "mkdir $out; cp $vendor $out/x"
            // { meta.license = { spdxId = "MIT"; free = true; }; };
        in
        {
          seed = seeds.mkSeed { inherit self system; licences = { accept = [ ]; }; };
          default = pkgs.runCommand "app" { inherit vendor copier; own = ./own.txt; }
            "cat $own > $out";
        };
"""


def test_what_the_recipe_accepts_may_be_a_copy(distribution: Path, tmp_path: Path) -> None:
    product = product_flake(tmp_path / "product")
    outputs = filled(COPIER, line=os.urandom(20).hex())
    files = {"own.txt": "own\n"}
    project = write_project(tmp_path / "p", distribution, outputs, files, product=product)
    ran = refused(project, tmp_path)
    assert "copier-1.0: x is . of" in ran.err
    edit(project, "flake.nix", "accept = [ ];", 'accept = [ "copier" ];')
    image = build(project, "-o", tmp_path / "image", cache=tmp_path)
    assert "copier-1.0" in names(image)
    assert "vendor-1.0" not in names(image)


OVERRIDES = """
      packages.${system} =
        let
          # As in nixpkgs: what a function makes, and the function again.
          overridable = make: arguments: make arguments // {
            override = change: overridable make (arguments // change);
          };
          make = { licence, src ? null }: pkgs.stdenv.mkDerivation {
            pname = "thing";
            version = "1.0";
            inherit src;
            buildCommand = "echo thing > $out";
            meta.license = licence;
          };
          thing = overridable make { licence = { spdxId = "MIT"; free = true; }; };
          own = thing.override { licence = eula; src = asked; };
          eula = { shortName = "eula"; free = false; };
          # Asks for a file that nobody may fetch, as nixpkgs' requireFile does.
          asked = pkgs.stdenv.mkDerivation {
            name = "vendor.bin";
            builder = pkgs.writeText "restrict-message" "exit 1";
            outputHashMode = "flat";
            outputHashAlgo = "sha256";
            outputHash = "@hash@";
          };
        in
        {
          default = pkgs.runCommand "app" {
            own = ./own.txt;
            inherit asked;
            of = [
              own
              (thing.overrideAttrs (old: { pname = "renamed"; }))
              (thing.overrideAttrs (old: { pname = "relicensed"; meta.license = eula; }))
              (pkgs.runCommand "wrapper-1.0" { } "echo ${own} > $out")
              (pkgs.runCommand "unpacked-1.0" { src = asked; } "wc -c < $src > $out")
            ];
          } "echo $of > $out";
        };
"""


def test_overrides_and_a_file_that_is_asked_for(distribution: Path, tmp_path: Path) -> None:
    file = tmp_path / "vendor.bin"
    file.write_bytes(BLOB)
    nix_store = ["nix-store", "--add-fixed", "sha256", str(file)]
    subprocess.run(nix_store, env=nix_env(), check=True, capture_output=True)
    outputs = filled(OVERRIDES, hash=hashlib.sha256(BLOB).hexdigest())
    project = write_project(tmp_path / "project", distribution, outputs, {"own.txt": "own\n"})
    found = {name: item["status"] for name, item in table(project, tmp_path).items()}
    told = ("thing-1.0", "renamed-1.0", "relicensed-1.0", "wrapper-1.0", "unpacked-1.0")
    assert [found[name] for name in (*told, "vendor.bin")] == [
        *("withheld", "redistributable", "withheld", "withheld", "withheld"),
        "withheld",
    ]


NAME = "n" * 120


def test_many_names_are_looked_up(distribution: Path, tmp_path: Path) -> None:
    """More than one argument of a program may hold."""
    # Nor may one variable of a build.
    many = {f"all{part}": range(part, 1200, 4) for part in range(4)}
    attributes = "".join(
        f"{name} = [ " + " ".join(f'(make "{NAME}-{n}")' for n in numbers) + " ];"
        for name, numbers in many.items()
    )
    variables = " ".join(f"${name}" for name in many)
    outputs = f"""
      packages.${{system}} =
        let make = name: builtins.toFile name "text"; in
        {{
          default = pkgs.runCommand "app" {{ inherit (pkgs) zlib; of = pkgs.runCommand "holder"
            {{ {attributes} }} "echo {variables} > $out"; }}
            "cat $of > $out";
        }};
    """
    project = write_project(tmp_path / "project", distribution, outputs)
    found = table(project, tmp_path)
    assert len(found) > 1200
    assert {found[name]["status"] for name in found if name.startswith("bash-")} == {
        "redistributable"
    }
