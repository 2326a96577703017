"""How Nix is set up on this machine, as it would be for the user's own commands."""

from __future__ import annotations

import os
import subprocess
import uuid
from pathlib import Path

from nix_seed.clients.nix import Nix
from nix_seed.ground.errors import NixFailed

__all__ = ["read_settings", "try_build"]

# The older spelling first: newer versions keep it as an alias for some time.
_SHOW = (["show-config"], ["config", "show"])
# Its builder is a part of Nix, so that no sandbox can hide it; the output is an empty directory.
_BUILD = """derivation {{
  name = "nix-seed-doctor";
  system = builtins.currentSystem;
  builder = "builtin:buildenv";
  derivations = "";
  manifest = "/dev/null";
  nonce = "{}";
}}"""


def read_settings(nix: Nix) -> dict[str, str]:
    """Return Nix's settings; where commands are still experimental, that they are off shows."""
    environment = os.environ | {"LC_ALL": "C.UTF-8", "NIX_PAGER": "cat"}
    program = str(nix.bin_dir / "nix") if nix.bin_dir else "nix"
    for words in _SHOW:
        # Not by Nix.run, which turns on what it needs.
        plain = subprocess.run(
            [program, *words], capture_output=True, text=True, env=environment, check=False
        )
        if plain.returncode == 0:
            return _parse(plain.stdout)
    return _forced(nix) | {"experimental-features": ""}


def _forced(nix: Nix) -> dict[str, str]:
    doing = "reading Nix's settings"
    try:
        return _parse(nix.run("nix", _SHOW[0], doing))
    except NixFailed:
        return _parse(nix.run("nix", _SHOW[1], doing))


def _parse(text: str) -> dict[str, str]:
    pairs = (line.partition(" =") for line in text.splitlines())
    return {name: value.strip() for name, equals, value in pairs if equals}


def try_build(nix: Nix) -> Path:
    """Build something new and empty, and delete it; ``NixFailed`` where builds do not work."""
    doing = "building an empty directory"
    expression = _BUILD.format(uuid.uuid4())
    arguments = ["--no-out-link", "--quiet", "--expr", expression]
    path = nix.run("nix-build", arguments, doing).strip()
    # Left for the garbage collector where somebody uses it, which nobody does.
    subprocess.run(["nix-store", "--delete", "--quiet", path], capture_output=True, check=False)
    return Path(path)
