"""Flakes that people published, copied and locked to trees that lie on this machine.

Of a flake nothing changes but its ``flake.lock``: each input is locked to a local tree, under the
name that ``flake.nix`` gives it, so that Nix takes the lock for up to date and asks no network.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from nix_seed.flake.needed import read_lock
from support.distribution import commit

_FORGE = re.compile(r"(github|gitlab|sourcehut):([^/]+)/([^/?]+)(?:/([^?]+))?(?:\?(.*))?")
_NIXPKGS = re.compile(
    r"flakehub\.com/f/NixOS/nixpkgs/|channels\.nixos\.org/|/nixpkgs/archive/|/NixOS/nixpkgs$", re.I
)
_HASH = re.compile(r"[0-9a-f]{40}")
_COMMENT = {
    **dict.fromkeys((".nix", ".toml", ".yml", ".yaml", ".sh", ".py"), "# another commit\n"),
    **dict.fromkeys((".rs", ".go", ".js", ".ts", ".c", ".h"), "// another commit\n"),
    **dict.fromkeys((".md", ".txt", ".adoc"), "another commit\n"),
    ".json": "\n",
}


@dataclass
class Trees:
    """Where inputs come from.

    *nixpkgs* stands for every nixpkgs; *checkouts* holds clones called ``owner+repository``, in
    any case. What is in neither is an empty tree, named in *stubs*. *work* takes what is unpacked.
    """

    nixpkgs: Path
    checkouts: Path
    work: Path
    stubs: set[str] = field(default_factory=set)

    def find(self, original: Mapping[str, Any], revision: str | None, name: str) -> Path:
        """Return the tree for an input that is called *name* where it is asked for.

        It is of the *revision* that its user locked, where the clone has that.
        """
        owner, repo = original.get("owner", ""), original.get("repo", original.get("id", ""))
        if repo.lower() in ("nixpkgs", "nixpkgs.lib") or _NIXPKGS.search(original.get("url", "")):
            return self.nixpkgs
        url = re.sub(r"(\.git|/archive/.*|/[^/]*\.tar\.\w+)$", "", str(original.get("url", "")))
        wanted = f"{owner}+{repo}" if owner else "+".join(url.rsplit("/", 2)[-2:])
        for place in self.checkouts.iterdir():
            if place.name.lower() == wanted.lower() or (
                not owner and not url and place.name.lower().endswith(f"+{repo.lower()}")
            ):
                return self.unpack(place, revision)
        self.stubs.add(name)
        empty = self.work / "empty"
        empty.mkdir(exist_ok=True)
        (empty / "flake.nix").write_text("{ outputs = _: { }; }\n")
        return empty

    def unpack(self, clone: Path, revision: str | None = None) -> Path:
        """Return the tree of *clone* at *revision*, or at its head."""
        for name in filter(None, (revision, "HEAD")):
            into = self.work / f"{clone.name}@{name}"
            if into.is_dir():
                return into
            command = ["git", "-C", str(clone), "archive", name]
            done = subprocess.run(command, capture_output=True, check=name == "HEAD")
            if done.returncode == 0:
                into.mkdir()
                subprocess.run(["tar", "-x", "-C", str(into)], input=done.stdout, check=True)
                return into
        raise AssertionError(f"{clone} has no commit")


def take(clone: Path, below: str, into: Path, trees: Trees) -> Path:
    """Copy the flake *below* the root of *clone*, locked to *trees* and committed; return that."""
    shutil.copytree(trees.unpack(clone) / below, into, symlinks=True)
    subprocess.run(["git", "init", "-q", "-b", "main", str(into)], check=True)
    for locked in [into / "flake.lock", *into.rglob("*/flake.lock")]:
        if (locked.parent / "flake.nix").exists():
            lock(locked.parent, trees)
    commit(into, "Lock to what is here")
    return into


def find_flakes(clone: Path) -> list[str]:
    """Return where *clone* has flakes: at its root, and two of its examples and templates."""
    command = ["git", "-C", str(clone), "ls-tree", "-r", "--name-only", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = [name for name in done.stdout.splitlines() if Path(name).name == "flake.nix"]
    more = [name for name in found if name.startswith(("examples/", "template"))][:2]
    return [str(Path(name).parent) for name in found if name == "flake.nix" or name in more]


def lock(flake: Path, trees: Trees) -> None:
    """Write the *flake*'s lock file anew."""
    nodes: dict[str, Any] = {}
    nodes["root"] = {"inputs": _inputs(flake, trees, nodes, "")}
    text = json.dumps({"nodes": nodes, "root": "root", "version": 7}, indent=2)
    (flake / "flake.lock").write_text(text + "\n")


def _inputs(flake: Path, trees: Trees, nodes: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Add the inputs of *flake*, and theirs, to *nodes*; return how it names them."""
    return _of(_declared(flake), _originals(flake), (flake, trees), nodes, prefix)


def _of(
    declared: Mapping[str, Any],
    originals: Mapping[str, Any],
    known: tuple[Path, Trees],
    nodes: dict[str, Any],
    prefix: str,
) -> dict[str, Any]:
    flake, trees = known
    named: dict[str, Any] = {}
    for name, entry in declared.items():
        here = f"{prefix}/{name}" if prefix else name
        if "follows" in entry:
            named[name] = [part for part in entry["follows"].split("/") if part]
            continue
        told = originals.get(name, {})
        original = told.get("original") or parse(entry.get("url") or _fields(entry) or name)
        revision = told.get("locked", {}).get("rev")
        relative = original.get("type") == "path" and not str(original["path"]).startswith("/")
        tree = flake / original["path"] if relative else trees.find(original, revision, here)
        node: dict[str, Any] = {"original": original}
        if relative:
            node |= {"locked": original, "parent": [part for part in prefix.split("/") if part]}
        else:
            node["locked"] = _locked(tree)
        if entry.get("flake") is False:
            node["flake"] = False
        elif (tree / "flake.nix").exists():
            inner = _declared(tree)
            for over, text in entry.get("inputs", {}).items():
                if over in inner and "follows" in text:
                    # It follows an input of ours, wherever we stand.
                    path = [*prefix.split("/"), *text["follows"].split("/")]
                    inner[over] = {"follows": "/".join(part for part in path if part)}
                elif over in inner:
                    inner[over] = inner[over] | text
            node["inputs"] = _of(inner, _originals(tree), (tree, trees), nodes, here)
        nodes[here] = node
        named[name] = here
    return named


@cache
def _locked(tree: Path) -> dict[str, Any]:
    """Name *tree* for a lock file, by its path in the store: else Nix copies it each time."""
    stored = str(tree)
    if not stored.startswith("/nix/store/"):
        stored = _nix("nix", "store", "add-path", "--name", "source", stored)
    digest = _nix("nix", "hash", "to-sri", _nix("nix-store", "--query", "--hash", stored))
    return {"type": "path", "path": stored, "narHash": digest, "lastModified": 1}


def _nix(program: str, *arguments: str) -> str:
    more = ["--extra-experimental-features", "nix-command"] if program == "nix" else []
    command = [program, *more, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _declared(flake: Path) -> dict[str, Any]:
    """Return the inputs of ``flake.nix``, those included that only its outputs' arguments name."""
    code = (
        f'let flake = import (/. + "{flake}/flake.nix"); in'
        " builtins.mapAttrs (_: _: { }) (removeAttrs (builtins.functionArgs flake.outputs)"
        ' [ "self" ]) // flake.inputs or { }'
    )
    command = ["nix-instantiate", "--eval", "--strict", "--json", "--expr", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def _originals(flake: Path) -> dict[str, Any]:
    """Return the nodes of its direct inputs in its own lock file."""
    found = read_lock(flake)
    nodes = found.get("nodes", {})
    inputs = nodes.get(found.get("root"), {}).get("inputs", {})
    return {name: nodes[node] for name, node in inputs.items() if isinstance(node, str)}


def _fields(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in ("flake", "inputs")}


def parse(url: str | Mapping[str, Any]) -> dict[str, Any]:
    """Return a flake reference as a lock file spells it."""
    if not isinstance(url, str):
        return dict(url)
    if found := _FORGE.fullmatch(url):
        kind, owner, repo, ref, query = found.groups()
        value = {"type": kind, "owner": owner, "repo": repo, **dict(parse_qsl(query or ""))}
        return value | ({} if not ref else {"rev" if _HASH.fullmatch(ref) else "ref": ref})
    if url.startswith(("path:", "./", "../")):
        return {"type": "path", "path": url.removeprefix("path:")}
    if url.startswith("git+"):
        place, _, query = url.removeprefix("git+").partition("?")
        return {"type": "git", "url": place, **dict(parse_qsl(query))}
    if "://" in url:
        kind = "tarball" if re.search(r"\.(tar(\.\w+)?|tgz|zip)$", url) else "file"
        return {"type": kind, "url": url}
    name, _, ref = url.removeprefix("flake:").partition("/")
    return {"type": "indirect", "id": name} | ({"ref": ref} if ref else {})


def change(flake: Path) -> None:
    """Change every file that a commit may change and that stays valid so; add one; commit it.

    A pin of a tool and the lock file choose what the flake is built from, and stay.
    """
    for path in sorted(flake.rglob("*")):
        more = _COMMENT.get(path.suffix)
        if more is None or ".git" in path.parts or path.is_symlink() or not path.is_file():
            continue
        if not path.name.startswith(("flake.lock", "rust-toolchain")):
            path.write_text(
                path.read_text("utf-8", "surrogateescape") + more, "utf-8", "surrogateescape"
            )
    (flake / "another-commit.txt").write_text("another\n")
    commit(flake, "Change everything")
