"""Looks for a file in an unpacked image, with the image's own eyes: links stay within its root."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["has_program"]

_MOST_LINKS = 40  # as Linux follows


def has_program(root: Path, path: str) -> bool:
    """Whether the absolute *path* is an executable file in *root*, symlinks followed as inside."""
    left = [part for part in path.split("/") if part][::-1]
    done: list[str] = []
    links = 0
    while left:
        part = left.pop()
        if part in ("", "."):
            continue
        if part == "..":
            del done[-1:]
            continue
        here = root.joinpath(*done, part)
        if here.is_symlink():
            links += 1
            if links > _MOST_LINKS:
                return False
            target = os.readlink(here)
            done = [] if target.startswith("/") else done
            left += target.split("/")[::-1]
        else:
            done.append(part)
    found = root.joinpath(*done)
    return found.is_file() and bool(found.stat().st_mode & 0o111)
