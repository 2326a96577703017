"""Store paths (Nix manual, "Store Path"): ``/nix/store/<32 of base 32>-<name>``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from nix_seed.ground.digests import NarHash
from nix_seed.ground.errors import InputError

__all__ = ["STORE_DIR", "PathInfo", "StorePath"]

STORE_DIR = "/nix/store"
_BASE_NAME = re.compile(r"([0-9abcdfghijklmnpqrsvwxyz]{32})-([0-9a-zA-Z+\-._?=]{1,211})\Z")


@dataclass(frozen=True, slots=True, order=True)
class StorePath:
    """One path directly in the store, kept without its directory: ``<hash part>-<name>``."""

    base_name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an absolute store path; nothing below it, no other store directory."""
        directory, _, base_name = text.rpartition("/")
        match = _BASE_NAME.match(base_name)
        if directory != STORE_DIR or match is None or match[2] in (".", ".."):
            raise InputError(f"{text!r} is not a path in {STORE_DIR}")
        return cls(base_name)

    @classmethod
    def containing(cls, text: str) -> Self:
        """Read the store path that *text*, itself or a file below it, lies in."""
        return cls.parse("/".join(text.split("/")[:4]))

    def __hash__(self) -> int:
        # A text keeps its hash; a tuple of it, which a dataclass makes, does not.
        return hash(self.base_name)

    def __str__(self) -> str:
        return f"{STORE_DIR}/{self.base_name}"

    @property
    def hash_part(self) -> str:
        """The 32 characters that make the path unique."""
        return self.base_name[:32]

    @property
    def name(self) -> str:
        """What follows the hash part: ``gcc-12.2.0-lib``."""
        return self.base_name[33:]

    @property
    def package(self) -> str:
        """The name without its version, the same over updates: ``gcc-lib``.

        From the first part on that begins with a digit, what holds a digit is of the version:
        ``glibc-2.39-52-bin`` is ``glibc-bin``, ``zstd-1.5.0-rc1`` is ``zstd``.
        """
        parts = self.name.split("-")
        first = next((n for n, part in enumerate(parts) if n and part[:1].isdigit()), len(parts))
        rest = [part for part in parts[first:] if not any(map(str.isdigit, part))]
        return "-".join([*parts[:first], *rest]) or self.name


@dataclass(frozen=True, slots=True)
class PathInfo:
    """What Nix knows of a valid path: NAR hash, NAR size in bytes, sorted references."""

    path: StorePath
    nar_hash: NarHash
    nar_size: int
    references: tuple[StorePath, ...]
