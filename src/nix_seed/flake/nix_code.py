"""Calls the Nix code of the product (``flake/expressions``) on a flake, purely."""

import importlib.resources
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

from nix_seed.core.errors import InputError, foreign
from nix_seed.core.safe_text import split_address
from nix_seed.flake.nix import Nix

# Linux takes 128 KiB as one argument of a program.
_LONGEST = 64 << 10
# Attributes of a tree that are no text.
_NUMBERS = ("lastModified", "revCount")
# An evaluation calls the product's own code several times: it is hashed once.
_OWN_TREE: dict[Path, str] = {}


def call_nix_half(
    nix: Nix,
    function: str,
    url: str,
    arguments: Mapping[str, Any],
    doing: str,
    explain: bool = True,
) -> Any:
    """Return what *function* of ``default.nix`` answers for the flake at *url*, from JSON.

    *arguments* are JSON too; ``flake`` is added to them. *doing* names the work in errors,
    which *explain* makes better at the price of another evaluation.
    """
    text = json.dumps(arguments)
    with importlib.resources.as_file(
        importlib.resources.files("nix_seed.flake") / "expressions"
    ) as code:
        if len(text) < _LONGEST:
            return nix.evaluate(
                _call(nix, code, function, url, _string(text)), doing, explain=explain
            )
        with tempfile.TemporaryDirectory(prefix="nix-seed-") as directory:
            Path(directory, "arguments.json").write_text(text)
            given = f'builtins.readFile "${{{_tree(nix, Path(directory))}}}/arguments.json"'
            return nix.evaluate(
                _call(nix, code, function, url, f"({given})"), doing, explain=explain
            )


def flake_code(code: str, url: str) -> str:
    """Return Nix code for the flake at *url*; *code* is Nix code for the product's own.

    Older Nix knows no directory of a plain path: ``flake.nix`` there does.
    """
    parts = split_address(url)
    query = dict(parse_qsl(parts.query))
    directory = query.pop("dir", "")
    if parts.scheme != "path" or not directory:
        return f"builtins.getFlake {_string(url)}"
    with foreign(f"{url} holds a number that is none", ValueError, as_=InputError, quoted=False):
        numbers = {name: int(query.pop(name)) for name in _NUMBERS if name in query}
    tree = {"type": "path", "path": unquote(parts.path), **query, **numbers}
    fetched = f"builtins.fetchTree (builtins.fromJSON {_string(json.dumps(tree))})"
    return f'import ({code} + "/flake.nix") {{ tree = {fetched}; dir = {_string(directory)}; }}'


def _call(nix: Nix, code: Path, function: str, url: str, arguments: str) -> str:
    own = f"{_OWN_TREE.get(code) or _OWN_TREE.setdefault(code, _tree(nix, code))}.outPath"
    return (
        f"(import {own}).{function} (builtins.fromJSON {arguments}"
        f" // {{ flake = {flake_code(own, url)}; }})"
    )


def _tree(nix: Nix, directory: Path) -> str:
    """Return Nix code for *directory*, named with its hash: evaluation stays pure."""
    tree = {"type": "path", "path": str(directory), "narHash": nix.hash_path(directory)}
    return f"(builtins.fetchTree (builtins.fromJSON {_string(json.dumps(tree))}))"


def _string(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("${", "\\${")
    return f'"{escaped}"'
