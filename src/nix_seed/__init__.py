"""Nix Seed: layered, offline OCI build images from Nix flakes, that anyone can check.

For programs, ``nix_seed.verify`` answers what ``nix-seed verify`` does; docs/verify.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nix_seed.release.api import verify
    from nix_seed.release.rules.answer import Verification

__all__ = ["Verification", "__version__", "verify"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import what is asked for only then: the command's start must not pay for it."""
    if name == "verify":
        from nix_seed.release.api import verify

        return verify
    if name == "Verification":
        from nix_seed.release.rules.answer import Verification

        return Verification
    raise AttributeError(f"module 'nix_seed' has no attribute {name!r}")
