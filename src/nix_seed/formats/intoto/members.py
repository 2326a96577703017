"""Members of foreign JSON objects, read strictly: types exact, one spelling for each value.

Unknown members are passed over, as in-toto and DSSE ask of readers. A member that is a known one
in another spelling (``payload_type``, ``PayloadType``) is refused, because lenient readers take it
for the known one, and two readers must never see two documents in the same bytes.

Readers of the values that the build predicate is made of.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from nix_seed.core.digests import Digest
from nix_seed.core.errors import InputError

_NAMES = {
    str: "a string",
    int: "an integer",
    bool: "true or false",
    dict: "an object",
    list: "an array",
}


def object_of(value: Any, where: str, *known: str) -> Mapping[str, Any]:
    """Return *value* if it is an object that spells the members it has of *known* exactly so."""
    if not isinstance(value, dict):
        raise InputError(f"{where}: an object is wanted, not {type(value).__name__}")
    folded = {_fold(name): name for name in known}
    for name in value:
        right = folded.get(_fold(name))
        if right is not None and right != name:
            raise InputError(f"{where}: member {name!r} must be spelled {right!r}")
    return value


def member(value: Mapping[str, Any], name: str, kind: type, where: str) -> Any:
    """Return a member that must be there, of exactly the type *kind*."""
    found = value.get(name)
    if type(found) is not kind:
        raise InputError(f"{where}: {name} must be {_NAMES[kind]}")
    return found


def optional_member(value: Mapping[str, Any], name: str, kind: type, where: str) -> Any:
    """Return a member of type *kind*, or None where it is absent or null."""
    return None if value.get(name) is None else member(value, name, kind, where)


def base64_member(value: Mapping[str, Any], name: str, where: str) -> bytes:
    """Return the bytes of a member in standard base64: padded, with no stray bits."""
    text: str = member(value, name, str, where)
    try:
        raw = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raw = b""
    if base64.b64encode(raw).decode() != text:
        raise InputError(f"{where}: {name} is not standard base64")
    return raw


def _fold(name: str) -> str:
    return name.replace("_", "").replace("-", "").casefold()


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
