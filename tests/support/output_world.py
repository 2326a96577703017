"""A flake of twenty packages, its seed, a builder with a key and a log, and fresh stores."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nix_seed.formats.oci.reference import LayoutReference
from nix_seed.image.read.spec import read_spec
from nix_seed.logs.embedded import EmbeddedLog
from nix_seed.registry.layout import open_image
from nix_seed.trust.sign import KeySigner
from support import quick, seeds
from support.distribution import commit, distribution, nix, nix_env
from support.trust import pem

SOURCE = "https://forge.example/owner/twenty"
NUMBERS = range(1, 21)
# Each takes its own source file; p5 and p10 take others, and p20 takes all of them.
OUTPUTS = """
      packages.${system} =
        let
          names = builtins.genList (n: "p${toString (n + 1)}") 20;
          others = builtins.filter (n: n != "p20") names;
          before = { p5 = [ "p4" ]; p10 = [ "p5" "p9" ]; p20 = others; };
          make = name: pkgs.runCommand name
            { src = ./src + "/${name}"; before = map (n: all.${n}) (before.${name} or [ ]); }
            ''
              mkdir -p $out
              cat $src > $out/text
              for each in $before; do echo "$each" >> $out/text; done
            '';
          all = builtins.listToAttrs (map (name: { inherit name; value = make name; }) names);
        in all // { default = all.p20; };
"""


def make_project(directory: Path, base: Path) -> Path:
    """Write the flake of twenty packages on the package set *base*, and commit it."""
    files = {f"src/p{number}": f"{number}\n" * 1000 for number in NUMBERS}
    project = seeds.write_project(directory, base, OUTPUTS, files)
    subprocess.run(["git", "-C", str(project), "remote", "add", "origin", SOURCE], check=True)
    return project


def changed(project: Path, where: Path, *names: str) -> Path:
    """Clone the project to *where*, and commit a change of the packages *names*."""
    subprocess.run(["git", "clone", "-q", str(project), str(where)], check=True)
    subprocess.run(["git", "-C", str(where), "remote", "set-url", "origin", SOURCE], check=True)
    for name in names:
        (where / "src" / name).write_text("changed\n")
    if names:
        commit(where, f"Change {', '.join(names)}")
    return where


@dataclass(frozen=True)
class Serving:
    """A server at *url* that signs by *key*; *log* is what it has told."""

    url: str
    key: str
    log: Path

    def build(
        self, flake: str, store: Path, bin_dir: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Build *flake* in *store* with this cache alone."""
        env = nix_env(
            substituters=self.url,
            trusted_public_keys=self.key,
            fallback="true",
            download_attempts="1",
            sandbox_paths="",
        )
        # As on a fresh machine: what a server said at this address before is not remembered.
        env["XDG_CACHE_HOME"] = f"{store}-cache"
        program = "nix" if bin_dir is None else str(bin_dir / "nix")
        command = [program, "build", "--store", str(store), "--no-link", "-L", flake]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def built_names(log: str) -> list[str]:
    """Return which derivations Nix says that it builds."""
    return sorted(re.findall(r"^building '/nix/store/\w{32}-(\S+)\.drv'", log, re.MULTILINE))


def taken_names(log: str) -> list[str]:
    """Return which paths Nix says that it copies from a cache."""
    found = re.findall(r"^copying path '/nix/store/\w{32}-(\S+)' from", log, re.MULTILINE)
    return sorted(found)


@dataclass(frozen=True)
class Twenty:
    """The project, where its seed lies, who signs, and the policy that knows who."""

    project: Path
    seed: str
    cache: Path
    key: Path
    policy: Path
    signer: KeySigner

    def run(self, *arguments: str | Path, env: Mapping[str, str] | None = None) -> seeds.Ran:
        """Run the command."""
        more = {"NIX_SEED_STATE": str(self.cache / "state")} | dict(env or {})
        return seeds.nix_seed(*arguments, cache=self.cache, env=more)

    def pushing(self, target: str) -> list[str | Path]:
        """What ``outputs push`` is given to push what this machine built of the project."""
        how: list[str | Path] = ["--to", target, "--image", self.seed, "--flake", self.project]
        return [*how, "--key", self.key, "--policy", self.policy, "--json"]

    def push(self, target: str, *more: str | Path) -> seeds.Ran:
        """Push it."""
        return self.run("outputs", "push", *self.pushing(target), *more)

    def fresh_store(self, where: Path) -> Path:
        """A store below *where* that holds the seed's paths alone."""
        image = open_image(LayoutReference(self.seed.removeprefix("oci:")))
        return seeds.copied_store(where, map(str, read_spec(image).paths), linked=True)

    @contextmanager
    def serving(self, target: str, log: Path, *more: str | Path) -> Iterator[Serving]:
        """Run the server, which tells what it does in the file *log*."""
        env = seeds.environment(self.cache, {"NIX_SEED_STATE": str(self.cache / "state")})
        command = [*seeds.COMMAND, "outputs", "serve", target, "--policy", str(self.policy)]
        with log.open("w") as sink:
            process = subprocess.Popen(
                [*command, "--port", "0", *map(str, more)],
                env=env,
                stdout=subprocess.PIPE,
                stderr=sink,
                text=True,
            )
        try:
            assert process.stdout is not None
            url, key = (process.stdout.readline().split()[1] for _ in range(2))
            yield Serving(url, key, log)
        finally:
            process.terminate()
            process.wait()


def twenty() -> Twenty:
    """The one of this run, made once. Its project and its seed are not to be changed."""
    root = quick.once("twenty", lambda path: _make(path, distribution()))
    key = root / "builder.key"
    return Twenty(
        root / "project",
        f"oci:{root / 'seed'}",
        root / "cache",
        key,
        root / "trust.toml",
        KeySigner.open(key),
    )


def _make(root: Path, base: Path) -> None:
    root.mkdir()
    project = make_project(root / "project", base)
    seeds.build(project, "-o", root / "seed", cache=root / "cache")
    nix("build", "--no-link", *(f"{project}#p{number}" for number in NUMBERS))
    log = EmbeddedLog.create(root / "log", "log.example")
    signer = KeySigner.generate()
    (root / "builder.key").write_bytes(signer.pem())
    (root / "trust.toml").write_text(policy_text({"alice": signer}, log))


def policy_text(builders: Mapping[str, KeySigner], log: EmbeddedLog, outputs: str = "own") -> str:
    """Return a policy of *builders*, each of an operator of its own, and one log."""
    lines = [
        'version = 1\nepoch = 1\nexpires = 2126-01-01T00:00:00Z\nsystems = ["x86_64-linux"]',
        f'source = "{SOURCE}"\noutputs = "{outputs}"',
        f'[quorum]\nthreshold = {min(2, len(builders))}\ndistinct = ["operator"]\nlogs = 1',
    ]
    for name, signer in builders.items():
        lines.append(f'[[builders]]\nid = "{name}"\noperator = "{name} ltd"\nkey = {pem(signer)}')
    lines.append(
        f'[[logs]]\nid = "log"\nkind = "tiles"\norigin = "log.example"\n'
        f'key = "{log.trusted.key}"\nurl = "{log.directory}"'
    )
    return "\n".join(lines) + "\n"
