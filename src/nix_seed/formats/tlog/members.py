"""Members of Rekor's JSON, read strictly: no member unknown, types exact, one spelling a value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from nix_seed.formats.tlog.note import decode_base64
from nix_seed.ground.errors import InputError

__all__ = ["Members"]

_INT64 = re.compile(r"0|[1-9][0-9]{0,18}")
_NAMES: dict[type, str] = {str: "a string", dict: "an object", list: "an array", int: "an integer"}


class Members:
    """The members of one object; *where* names it in errors, *known* lists what it may hold."""

    def __init__(self, value: Any, where: str, *known: str) -> None:
        if not isinstance(value, dict):
            raise InputError(f"{where}: an object is wanted, not {type(value).__name__}")
        for name in value:
            if name not in known:
                raise InputError(f"{where}: there is no member {str(name)[:80]!r}")
        self._value: Mapping[str, Any] = value
        self._where = where

    def has(self, name: str) -> bool:
        """Whether the member is there and not null."""
        return self._value.get(name) is not None

    def required(self, name: str, kind: type) -> Any:
        """Return a member of exactly the type *kind*."""
        found = self._value.get(name)
        if type(found) is not kind:
            raise InputError(f"{self._where}: {name} must be {_NAMES[kind]}")
        return found

    def text(self, name: str, *allowed: str) -> str:
        """Return a string, one of *allowed* if any are named."""
        found: str = self.required(name, str)
        if allowed and found not in allowed:
            known = " or ".join(allowed)
            raise InputError(f"{self._where}: {name} is {found[:80]!r}; it must be {known}")
        return found

    def base64(self, name: str, size: int | None = None) -> bytes:
        """Return the bytes of a base64 string, *size* of them if that is given."""
        try:
            raw = decode_base64(self.required(name, str))
        except ValueError as error:
            raise InputError(f"{self._where}: {name}: {error}") from error
        if not raw or (size is not None and len(raw) != size):
            raise InputError(f"{self._where}: {name} has {len(raw)} bytes, not {size or 'any'}")
        return raw

    def hex(self, name: str) -> bytes:
        """Return the 32 bytes of a SHA-256 in lower-case hex."""
        found: str = self.required(name, str)
        if not re.fullmatch(r"[0-9a-f]{64}", found):
            raise InputError(f"{self._where}: {name} is not a SHA-256 in hex")
        return bytes.fromhex(found)

    def int64(self, name: str) -> int:
        """Return an int64 as protobuf's JSON writes it: a decimal string, absent for 0."""
        if not self.has(name):
            return 0
        found: str = self.required(name, str)
        if not _INT64.fullmatch(found) or int(found) >= 1 << 63:
            raise InputError(f"{self._where}: {name} is {found[:40]!r}, which is no count")
        return int(found)

    def inside(self, name: str, *known: str) -> Members:
        """Return the members of the object *name*."""
        return Members(self.required(name, dict), f"{self._where}, {name}", *known)
