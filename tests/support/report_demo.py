"""A release to report on, with everything there can be: a base, licences, builders, roots.

Made once per run by the command itself, of the demo distribution: a seed, an update of its
input that changes zlib and what is built on it, two builders who attest the result, one who is
silent, and a promotion; a package that is withheld, and one of unknown licence.
"""

from __future__ import annotations

import functools
import hashlib
import shutil
import subprocess
import tempfile
from atexit import register
from dataclasses import dataclass
from pathlib import Path

from nix_seed.logs.embedded import EmbeddedLog
from support import built, quick
from support.distribution import distribution, nix_env, upgraded, use_distribution
from support.seeds import build, nix_seed, product_flake, write_project

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "two-packages"
SOURCE = "https://forge.example/owner/greet"
VENDOR = b"What only its vendor may give away.\n" * 4000
_HASH = hashlib.sha256(VENDOR).hexdigest()
OUTPUTS = f"""
      packages.${{system}} =
        let
          vendored = derivation {{
            name = "codec-3.1.bin";
            system = "builtin";
            builder = "builtin:fetchurl";
            url = "https://vendor.example/codec-3.1.bin";
            outputHashMode = "flat";
            outputHashAlgo = "sha256";
            outputHash = "{_HASH}";
          }};
          eula = {{ fullName = "Codec EULA"; shortName = "codec-eula"; free = false; }};
          codec = pkgs.runCommand "codec-3.1" {{ src = vendored; }} ''
            mkdir -p $out/lib
            cp $src $out/lib/codec
          '' // {{ meta.license = eula; }};
          fonts = pkgs.runCommand "fonts-2.0" {{ }} "echo fonts > $out"
            // {{ meta.license = {{ fullName = "Homegrown"; }}; }};
        in
        rec {{
          libgreet = import ./nix/libgreet.nix {{ inherit pkgs; }};
          greet = import ./nix/greet.nix {{ inherit pkgs libgreet; }};
          player = pkgs.runCommand "player" {{ inherit codec fonts; own = ./own.txt; }} ''
            cat $codec/lib/codec $fonts $own > $out
          '';
          default = greet;
          seed = seeds.mkSeed {{ inherit self system; name = "greet"; }};
        }};
      checks.${{system}}.greet = import ./nix/test.nix {{
        inherit pkgs;
        inherit (self.packages.${{system}}) greet;
      }};
      devShells.${{system}}.default = pkgs.mkShell {{
        inputsFrom = [ self.packages.${{system}}.greet ];
        packages = [ pkgs.gdb ];
      }};
"""


@dataclass(frozen=True)
class Demo:
    """Where it all lies; the references are relative to *directory*."""

    directory: Path
    image: str = "oci:greet:v2"
    base: str = "oci:greet:v1"
    policy: str = "trust.toml"
    project: str = "./project"

    def report(self, *arguments: str, to: str = "report.html") -> str:
        """Have the command write a page about the image, and return the page."""
        ran = nix_seed(
            *("report", self.image, "-o", to, *arguments),
            cache=self.directory / "cache",
            cwd=self.directory,
        )
        assert ran.code == 0, ran.err
        return (self.directory / to).read_text()

    def full(self) -> str:
        """Return the page with all parts."""
        return self.report(
            *("--base", self.base, "--policy", self.policy, "--flake", self.project, "--deep"),
            to="full.html",
        )


@functools.cache
def demo() -> Demo:
    """This process's own copy."""
    place = Path(tempfile.mkdtemp(prefix="nix-seed-report-"))
    register(shutil.rmtree, place, ignore_errors=True)
    # Nothing of it is written in place.
    built.link(quick.once("report-demo", _make), place / "demo")
    return Demo(place / "demo")


def _make(directory: Path) -> None:
    directory.mkdir()
    (directory / "codec-3.1.bin").write_bytes(VENDOR)
    command = ["nix-store", "--add-fixed", "sha256", str(directory / "codec-3.1.bin")]
    base = distribution()
    subprocess.run(command, env=nix_env(), check=True, capture_output=True)
    files = {
        str(path.relative_to(EXAMPLE)): path.read_text()
        for path in EXAMPLE.rglob("*")
        if path.is_file() and path.name != "flake.nix"
    }
    product = directory / "product"
    product.mkdir()
    project = write_project(
        directory / "project",
        base,
        OUTPUTS,
        files | {"own.txt": "own\n"},
        product=product_flake(product),
    )
    cache = built.layers(directory / "cache")
    build(project, "-o", directory / "greet", "--tag", "v1", cache=cache)
    _set_up(directory)
    _release(directory, "v1", "--sbom", "none")  # so that its licences are not told
    use_distribution(project, upgraded("zlib1g"))
    base_name = f"oci:{directory / 'greet'}:v1"
    arguments = ("-o", directory / "greet", "--tag", "v2", "--base", base_name)
    build(project, *arguments, cache=cache)
    _release(directory, "v2")


def _run(directory: Path, *arguments: str) -> None:
    ran = nix_seed(*arguments, cache=directory / "cache", cwd=directory)
    assert ran.code == 0, ran.err


def _set_up(directory: Path) -> None:
    EmbeddedLog.create(directory / "log", "log.example/greet")
    keys = []
    for name in ("alice", "bob", "carol"):
        _run(directory, "key", "generate", f"{name}.key")
        keys += ["--key", f"{name}={name}.pub"]
    _run(directory, "key", "generate", "rita.key")
    keys += ["--promoter", "rita=rita.pub"]
    init = ("policy", "init", "trust.toml", "--source", SOURCE, "--log", "log")
    _run(directory, *init, *keys)


def _release(directory: Path, tag: str, *how: str) -> None:
    """Alice and Bob say what they got, Carol is silent, and Rita releases it."""
    for name in ("alice", "bob"):
        _run(
            directory,
            *("attest", f"oci:greet:{tag}", "--flake", "./project", "--builder", name),
            *("--key", f"{name}.key", "--policy", "trust.toml", "--source", SOURCE, *how),
        )
    git = ["git", "-C", str(directory / "project"), "rev-parse", "HEAD"]
    commit = subprocess.run(git, check=True, capture_output=True, text=True).stdout.strip()
    promote = ("promote", commit, "--to", "oci:greet", "--key", "rita.key")
    _run(directory, *promote, "--policy", "trust.toml")
