"""Worlds and deeds made once in a process: done again, they are put back as they were.

A deed is known again only if all that it could depend on is the same, to the last byte: every file
of the world, its policy, and the deed's arguments. What an attacker changed makes it another world.
"""

from __future__ import annotations

import functools
import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

Files = dict[str, tuple[bytes | None, int]]
P = ParamSpec("P")
R = TypeVar("R")


class Rooted(Protocol):
    """What lies below *root*. ``outside`` is what else a deed depends on; None if nobody can say.

    It and the arguments of deeds are compared by their ``repr``.
    """

    root: Path

    def outside(self) -> object | None: ...


W = TypeVar("W", bound=Rooted)
_DONE: dict[str, tuple[object, Files]] = {}


def remembered(
    deed: Callable[Concatenate[W, P], R],
) -> Callable[Concatenate[W, P], R]:
    """Let a method be carried out once for each world and arguments, and copied from then on."""

    @functools.wraps(deed)
    def done(self: W, /, *args: P.args, **named: P.kwargs) -> R:
        outside = self.outside()
        if outside is None:
            return deed(self, *args, **named)
        before = read_tree(self.root)
        key = _digest(before, (deed.__qualname__, outside, args, sorted(named.items())))
        if key not in _DONE:
            _DONE[key] = deed(self, *args, **named), read_tree(self.root)
            return _DONE[key][0]  # type: ignore[return-value]
        result, after = _DONE[key]
        write_tree(self.root, after, before)
        return result  # type: ignore[return-value]

    return done


def read_tree(root: Path) -> Files:
    """Return all that lies below *root*: bytes, None for a directory, and the mode."""
    found: Files = {}
    todo = [""]
    while todo:
        below = todo.pop()
        with os.scandir(root / below) as entries:
            for entry in entries:
                name, mode = f"{below}{entry.name}", stat.S_IMODE(entry.stat().st_mode)
                if entry.is_dir(follow_symlinks=False):
                    found[name] = None, mode
                    todo.append(f"{name}/")
                else:
                    found[name] = Path(entry.path).read_bytes(), mode
    return found


def write_tree(root: Path, files: Files, there: Files | None = None) -> None:
    """Make *files* all that lies below *root*, where *there* already does."""
    before = there or {}
    for name in sorted(before.keys() - files.keys(), reverse=True):
        path = root / name
        path.rmdir() if before[name][0] is None else path.unlink()
    for name, (data, mode) in sorted(files.items()):
        if before.get(name) == (data, mode):
            continue
        path = root / name
        if data is None:
            path.mkdir(exist_ok=True)
        else:
            # A new file, as the product makes it: the old one is never written to.
            path.unlink(missing_ok=True)
            path.write_bytes(data)
        path.chmod(mode)


def _digest(files: Files, more: Any) -> str:
    found = hashlib.sha256(repr(more).encode())
    for name, (data, mode) in sorted(files.items()):
        size = -1 if data is None else len(data)
        found.update(f"{name}\0{mode}\0{size}\0".encode() + (data or b""))
    return found.hexdigest()
