"""``bin/nix-seed`` as a fresh machine runs it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

# How the machine reaches its package index is its own affair.
_INDEX = ("PIP_", "UV_", "SSL_", "REQUESTS_", "HTTP", "http", "NO_PROXY", "no_proxy")


def launch_from(
    root: Path, place: Path, *arguments: str, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run the launcher of the checkout *root*; its tools and its home are in *place*."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(_INDEX)}
    base = {"PATH": os.environ["PATH"], "HOME": str(place), "NIX_SEED_TOOLS": str(place / "tools")}
    return subprocess.run(
        [root / "bin/nix-seed", *arguments],
        env=kept | base | env,
        capture_output=True,
        text=True,
        check=False,
        cwd=place,
    )
