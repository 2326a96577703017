"""A project of packages whose licences are of every kind, and the command run on it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from support import quick
from support.distribution import distribution
from support.seeds import nix_seed, write_project

SOURCE = "https://forge.example/owner/project"
# What the project is built from: known, named by hand, hostile, unstated, and not to be passed on.
OUTPUTS = """
      packages.${system} =
        let
          part = name: meta: pkgs.runCommand name { } "echo ${name} > $out" // { inherit meta; };
          listed = part "listed-1.0" {
            license = { spdxId = "MIT"; free = true; };
            homepage = "https://listed.example/";
          };
          homegrown = part "homegrown-2.0" {
            license = { fullName = "Our own, \\"1\\" & <b>"; free = true; };
          };
          either = part "either-3.0-beta" { license = "mit OR apache-2.0"; };
          unstated = part "unstated" { };
          vendor = part "vendor-tool-4.0" {
            license = { shortName = "vendor-eula"; free = false; };
          };
        in
        {
          default = pkgs.runCommand "app" {
            inherit listed homegrown either unstated vendor;
            own = ./own.txt;
          } "cat $own $listed $homegrown $either $unstated > $out";
        };
"""


def project() -> Path:
    """The one of this run, made once; it is not to be changed."""
    return quick.once("licensed-project", _make)


def _make(directory: Path) -> None:
    write_project(directory, distribution(), OUTPUTS, {"own.txt": "own\n"})
    subprocess.run(["git", "-C", directory, "remote", "add", "origin", SOURCE], check=True)


def sbom(*arguments: str | Path, cache: Path, env: dict[str, str] | None = None) -> bytes:
    """Return the bytes that the command writes to a file; it must succeed."""
    out = cache / "written.json"
    ran = nix_seed("sbom", *arguments, "-o", out, cache=cache, env=env)
    assert ran.code == 0, ran.err
    return out.read_bytes()
