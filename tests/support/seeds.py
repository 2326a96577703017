"""The command, run for tests as users run it, and stores of their own to run it on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import warm
from support.distribution import commit, nix, nix_env

COMMAND = (sys.executable, "-m", "nix_seed")


@dataclass(frozen=True)
class Ran:
    """What a run of the command left: its exit code and what it printed."""

    code: int
    out: str
    err: str


def environment(cache: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a run with a cache of its own, outside CI."""
    env = nix_env() | {"NIX_SEED_CACHE": str(cache)} | dict(more or {})
    env.pop("CI", None)
    return env


def nix_seed(
    *arguments: str | Path,
    cache: Path,
    env: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
    cwd: Path | None = None,
) -> Ran:
    """Run the command; *prefix* is a program that starts it (``setpriv``, ``sh -c``)."""
    given = environment(cache, env)
    if prefix:
        done = subprocess.run(
            [*prefix, *COMMAND, *map(str, arguments)],
            env=given, cwd=cwd, capture_output=True, text=True, check=False,
        )  # fmt: skip
    else:
        done = warm.run(arguments, given, cwd)
    return Ran(done.returncode, done.stdout, done.stderr)


def build(project: Path | str, *arguments: str | Path, cache: Path, **how: Any) -> dict[str, Any]:
    """Build an image of *project*, which must succeed, and return what ``--json`` says of it."""
    ran = nix_seed("build", project, "--json", *arguments, cache=cache, **how)
    assert ran.code == 0, ran.err
    value: dict[str, Any] = json.loads(ran.out)
    return value


def plan(project: Path | str, *arguments: str | Path, cache: Path) -> dict[str, Any]:
    """Plan an image of *project*, which must succeed, and return what ``--json`` says of it."""
    ran = nix_seed("plan", project, "--json", *arguments, cache=cache)
    assert ran.code == 0, ran.err
    value: dict[str, Any] = json.loads(ran.out)
    return value


def store_paths(image: Mapping[str, Any]) -> list[str]:
    """Return every store path of an image or plan, sorted."""
    return sorted(path for layer in image["layers"] for path in layer["paths"])


def names(image: Mapping[str, Any]) -> set[str]:
    """Return the names of an image's store paths, without their hashes."""
    return {Path(path).name[33:] for path in store_paths(image)}


def copied_store(root: Path, paths: Iterable[str], *, linked: bool = False) -> Path:
    """Put *paths*, a closure of the machine's store, into a store of its own below *root*.

    Nobody may change the files of one that is *linked*, where links can be had.
    """
    store = root / "nix" / "store"
    store.mkdir(parents=True, exist_ok=True)
    absent = [path for path in paths if not (store / Path(path).name).exists()]
    links = linked and os.geteuid() == 0 and os.stat("/nix/store").st_dev == store.stat().st_dev
    how = ["-al"] if links else ["-a", "--reflink=auto"]
    subprocess.run(["cp", *how, *absent, str(store)], check=True)
    dump = subprocess.run(
        ["nix-store", "--dump-db", *absent], check=True, capture_output=True, env=nix_env()
    ).stdout
    subprocess.run(
        ["nix-store", "--store", str(root), "--load-db"],
        input=dump,
        check=True,
        capture_output=True,
        env=nix_env(),
    )
    return root


def remove_tree(root: Path) -> None:
    """Remove a store, whose directories nobody but root may write to."""
    if os.geteuid() != 0:
        subprocess.run(["chmod", "-R", "u+w", str(root)], check=False, capture_output=True)
    # In half of the time that Python takes.
    subprocess.run(["rm", "-rf", str(root)], check=False, capture_output=True)


def product_flake(directory: Path) -> Path:
    """Copy what of the product a flake takes as an input: its flake and the Nix half."""
    root = Path(__file__).resolve().parents[2]
    code = directory / "src/nix_seed/flake/expressions"
    shutil.copytree(root / "src/nix_seed/flake/expressions", code)
    for name in ("flake.nix", "pyproject.toml"):
        shutil.copy(root / name, directory / name)
    return directory


def write_project(
    directory: Path,
    base: Path,
    outputs: str,
    files: Mapping[str, str] | None = None,
    *,
    product: Path | None = None,
    inputs: str = "",
) -> Path:
    """Write, lock and commit a flake on the package set *base*.

    *outputs* is the body of its outputs, in the scope of ``self``, ``pkgs``, ``system``, ``inputs``
    (*inputs* are further ones) and, with the *product* as an input, ``seeds``, its ``lib``.
    """
    for name, text in (
        {"flake.nix": _flake_text(base, outputs, product, inputs)} | dict(files or {})
    ).items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    subprocess.run(["git", "init", "-q", "-b", "main", str(directory)], check=True)
    subprocess.run(["git", "-C", str(directory), "add", "-A"], check=True)
    nix("flake", "lock", cwd=directory)
    commit(directory, "Start")
    return directory


def _flake_text(base: Path, outputs: str, product: Path | None, inputs: str) -> str:
    """Return a flake of one system whose outputs are *outputs*."""
    seeds = f"""
  inputs.nix-seed = {{ url = "path:{product}"; inputs.nixpkgs.follows = "nixpkgs"; }};"""
    return f"""{{
  inputs.nixpkgs.url = "path:{base}";{seeds if product else ""}{inputs}
  outputs = {{ self, nixpkgs, ... }}@inputs:
    let
      system = "x86_64-linux";
      pkgs = nixpkgs.legacyPackages.${{system}};
      seeds = inputs.nix-seed.lib;
    in
    {{
{outputs}
    }};
}}
"""


def edit(project: Path, file: str, old: str, new: str) -> Path:
    """Replace text that stands exactly once in a file of the project, and commit that."""
    path = project / file
    text = path.read_text()
    assert text.count(old) == 1, (old, text)
    path.write_text(text.replace(old, new))
    commit(project, f"Change {file}")
    return project


def snapshot(directory: Path) -> dict[str, bytes | None]:
    """Return every name below *directory* with a file's bytes, to show that nothing changed."""
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None
        for path in sorted(directory.rglob("*"))
    }


def path_with(directory: Path) -> dict[str, str]:
    """Return an environment in which the programs of *directory* come first."""
    return {"PATH": f"{directory}{os.pathsep}{os.environ['PATH']}"}
