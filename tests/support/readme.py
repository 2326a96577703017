"""README's commands, in its order."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
REGISTRY, SOURCE = "ghcr.io", "https://github.com/owner/repo"


def blocks(mark: str) -> list[str]:
    """Return README's blocks that are marked so."""
    return re.findall(rf"^```{mark}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def commands(mark: str) -> Iterator[str]:
    """Yield the commands of README's blocks that are marked so, each on one line."""
    for block in blocks(mark):
        for line in block.replace("\\\n", " ").splitlines():
            if command := line.split(" # ")[0].rstrip():
                yield command
