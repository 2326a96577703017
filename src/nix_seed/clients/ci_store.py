"""Who may write to ``/nix`` on this machine, and how to have it: what a fresh CI runner lacks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from nix_seed.clients.files import explained
from nix_seed.clients.macos_store import ensure_store

__all__ = ["StoreState", "make_store_for", "store_state"]

StoreState = Literal["ours", "roots", "absent"]
"""We may write to it; only root may (there is a daemon); there is none yet."""


def store_state(root: Path = Path("/")) -> StoreState:
    """Say how ``/nix`` stands to the user who asks."""
    store = root / "nix/store"
    if store.is_dir():
        database = root / "nix/var/nix/db"
        writable = os.access(store, os.W_OK) and (
            not database.exists() or os.access(database, os.W_OK)
        )
        return "ours" if writable else "roots"
    nix = root / "nix"
    writable = os.access(nix, os.W_OK) if nix.is_dir() else os.access(root, os.W_OK)
    return "ours" if writable else "absent"


def make_store_for(user: int, root: Path = Path("/")) -> None:
    """As root, make an empty ``/nix`` that belongs to *user* (a number); done already, nothing.

    On macOS that takes a volume of its own. A store that is there is nobody's to give away.
    """
    ensure_store(root)
    nix = root / "nix"
    with explained(f"making {nix}"):
        nix.mkdir(mode=0o755, exist_ok=True)
        if not (nix / "store").exists():
            os.chown(nix, user, -1)
