"""Calls the Nix code of the product (``flake/expressions``) on a flake, purely."""

import importlib.resources
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nix_seed.flake.nix import Nix

# Linux takes 128 KiB as one argument of a program.
_LONGEST = 64 << 10


def call_nix_half(
    nix: Nix, function: str, url: str, arguments: Mapping[str, Any], doing: str
) -> Any:
    """Return what *function* of ``default.nix`` answers for the flake at *url*, from JSON.

    *arguments* are JSON too; ``flake`` is added to them. *doing* names the work in errors.
    """
    text = json.dumps(arguments)
    with importlib.resources.as_file(
        importlib.resources.files("nix_seed.flake") / "expressions"
    ) as code:
        if len(text) < _LONGEST:
            return nix.evaluate(_call(nix, code, function, url, _string(text)), doing)
        with tempfile.TemporaryDirectory(prefix="nix-seed-") as directory:
            Path(directory, "arguments.json").write_text(text)
            given = f'builtins.readFile "${{{_tree(nix, Path(directory))}}}/arguments.json"'
            return nix.evaluate(_call(nix, code, function, url, f"({given})"), doing)


def _call(nix: Nix, code: Path, function: str, url: str, arguments: str) -> str:
    return (
        f"(import {_tree(nix, code)}.outPath).{function} (builtins.fromJSON {arguments}"
        f" // {{ flake = builtins.getFlake {_string(url)}; }})"
    )


def _tree(nix: Nix, directory: Path) -> str:
    """Return Nix code for *directory*, named with its hash: evaluation stays pure."""
    tree = {"type": "path", "path": str(directory), "narHash": nix.hash_path(directory)}
    return f"(builtins.fetchTree (builtins.fromJSON {_string(json.dumps(tree))}))"


def _string(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("${", "\\${")
    return f'"{escaped}"'
