"""Commands of tutorials and how-tos, and what they are to print.

A block marked ``sh guide`` is run. Each line of one marked ``text output`` must have been printed,
in this order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NIXPKGS = "github:NixOS/nixpkgs/nixos-25.11"
_BLOCK = re.compile(r"^```(sh guide|text output)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(page: str) -> list[tuple[str, str]]:
    """Return the marked blocks of a page below ``docs``."""
    return _BLOCK.findall((ROOT / "docs" / page).read_text())


def script_of(page: str, swaps: Mapping[str, str]) -> str:
    """Return the page's commands, with what is another place here put in."""
    script = "".join(text for mark, text in blocks(page) if mark == "sh guide")
    for old, new in swaps.items():
        script = script.replace(old, new)
    return script


def check_shown(page: str, printed: str) -> None:
    """See that *printed* has each line that the page shows, in its order."""
    at = 0
    for mark, text in blocks(page):
        for line in text.splitlines() if mark == "text output" else []:
            found = printed.find(line, at)
            assert found >= 0, f"{page}: {line!r} is not in\n{printed}"
            at = found
