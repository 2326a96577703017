"""Looks for files in an unpacked image or a store, with its own eyes: links stay within it."""

import os
from pathlib import Path

_MOST_LINKS = 40  # as Linux follows


def has_program(root: Path, path: str) -> bool:
    """Whether the absolute *path* is an executable file in *root*, symlinks followed as inside."""
    real = follow_links(root, path)
    if real is None:
        return False
    found = root / real.lstrip("/")
    return found.is_file() and bool(found.stat().st_mode & 0o111)


def follow_links(root: Path, path: str) -> str | None:
    """Return what the absolute *path* leads to in *root*, whether it is there or not.

    Absolute like *path* itself; None for links in a circle.
    """
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
                return None
            target = os.readlink(here)
            done = [] if target.startswith("/") else done
            left += target.split("/")[::-1]
        else:
            done.append(part)
    return "/" + "/".join(done)
