"""A Git commit, as attestations name it and as logs and ledgers find it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nix_seed.formats.intoto.members import member
from nix_seed.ground.digests import Digest
from nix_seed.ground.errors import InputError

__all__ = ["Commit", "commit_json", "is_commit", "read_commit"]

_LENGTHS = {40: "sha1", 64: "sha256"}
_HEX = re.compile(r"[0-9a-f]*")


@dataclass(frozen=True, slots=True, order=True)
class Commit:
    """A Git commit: 40 (SHA-1) or 64 (SHA-256) lower-case hex digits."""

    hex: str

    def __post_init__(self) -> None:
        if not is_commit(self.hex):
            raise InputError(f"{self.hex!r} is not a commit: 40 or 64 lower-case hex digits")

    def __str__(self) -> str:
        return self.hex

    @property
    def algorithm(self) -> str:
        """``sha1`` or ``sha256``, Git's object format."""
        return _LENGTHS[len(self.hex)]

    @property
    def key(self) -> Digest:
        """The SHA-256 by which a log's index finds the commit.

        Of ``nix-seed/commit/v1``, a zero byte, the algorithm and the hex digits, in ASCII.
        """
        text = f"nix-seed/commit/v1\0{self.algorithm}{self.hex}"
        return Digest(hashlib.sha256(text.encode()).hexdigest())


def is_commit(text: str) -> bool:
    """Whether *text* is spelled as a ``Commit`` is, as tags are that are named after one."""
    return len(text) in _LENGTHS and _HEX.fullmatch(text) is not None


def commit_json(commit: Commit) -> dict[str, str]:
    """Return the commit as a digest set: one member, by Git's object format."""
    return {commit.algorithm: commit.hex}


def read_commit(value: Mapping[str, Any], where: str) -> Commit:
    """Return the member ``commit``, a digest set of one."""
    named = member(value, "commit", dict, where)
    if len(named) != 1:
        raise InputError(f"{where}: commit must have one member, sha1 or sha256")
    (algorithm,) = named
    commit = Commit(member(named, algorithm, str, f"{where}, commit"))
    if commit.algorithm != algorithm:
        raise InputError(f"{where}: commit {commit} is not a {algorithm}")
    return commit
