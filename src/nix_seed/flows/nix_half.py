"""Calls the Nix half of the product (``nix/``) on a flake, purely."""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Mapping
from typing import Any

from nix_seed.clients.nix import Nix

__all__ = ["call_nix_half"]


def call_nix_half(
    nix: Nix, function: str, url: str, arguments: Mapping[str, Any], doing: str
) -> Any:
    """Return what *function* of ``nix/default.nix`` answers for the flake at *url*, from JSON.

    *arguments* are JSON too; ``flake`` is added to them. *doing* names the work in errors.
    """
    with importlib.resources.as_file(importlib.resources.files("nix_seed") / "nix") as code:
        # Both trees in the expression are named with their hashes: it stays pure.
        tree = {"type": "path", "path": str(code), "narHash": nix.hash_path(code)}
        expression = (
            f"let code = builtins.fetchTree (builtins.fromJSON {_string(json.dumps(tree))});"
            f" in (import code.outPath).{function}"
            f" (builtins.fromJSON {_string(json.dumps(arguments))}"
            f" // {{ flake = builtins.getFlake {_string(url)}; }})"
        )
        return nix.evaluate(expression, doing)


def _string(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("${", "\\${")
    return f'"{escaped}"'
