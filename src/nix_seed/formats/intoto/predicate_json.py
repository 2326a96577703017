"""Readers of the values that the build predicate is made of."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from nix_seed.formats.intoto.members import member, optional_member
from nix_seed.ground.digests import Digest
from nix_seed.ground.errors import InputError

__all__ = ["check_time", "count", "digest", "optional_digest", "strings"]

_TIME = "%Y-%m-%dT%H:%M:%SZ"


def digest(value: Mapping[str, Any], name: str, where: str) -> Digest:
    """Return the member *name*, ``sha256:`` and hex."""
    try:
        return Digest.parse(member(value, name, str, where))
    except InputError as error:
        raise InputError(f"{where}: {name}: {error.message}") from error


def optional_digest(value: Mapping[str, Any], name: str, where: str) -> Digest | None:
    """Return the member *name*, None where it is absent or null."""
    absent = optional_member(value, name, str, where) is None
    return None if absent else digest(value, name, where)


def strings(value: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
    """Return an array of strings."""
    found = member(value, name, list, where)
    if not all(isinstance(text, str) for text in found):
        raise InputError(f"{where}: {name} must hold strings")
    return tuple(found)


def count(value: Mapping[str, Any], name: str, where: str) -> int:
    """Return an integer that is not negative."""
    found: int = member(value, name, int, where)
    if found < 0:
        raise InputError(f"{where}: {name} is negative")
    return found


def check_time(text: str) -> None:
    """Raise ``InputError`` unless *text* is a time like ``2025-01-31T12:00:00Z``."""
    try:
        if datetime.strptime(text, _TIME).strftime(_TIME) == text:
            return
    except ValueError:
        pass
    raise InputError(f"{text!r} is not a time in UTC such as 2025-01-31T12:00:00Z")
