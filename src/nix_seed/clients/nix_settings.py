"""Nix's settings, as Nix itself resolves them."""

from __future__ import annotations

from collections.abc import Mapping

from nix_seed.clients.nix import Nix
from nix_seed.ground.errors import NixFailed

__all__ = ["read_settings"]


def read_settings(nix: Nix) -> Mapping[str, str]:
    """Return every setting by its name."""
    doing = "asking Nix for its settings"
    try:
        text = nix.run("nix", ["show-config"], doing)
    except NixFailed:  # the command's name since Nix 2.20
        text = nix.run("nix", ["config", "show"], doing)
    return {
        name.strip(): value.strip()
        for name, equals, value in (line.partition("=") for line in text.splitlines())
        if equals
    }
