"""RFC 8785 canonical JSON out, strict JSON in.

Reading refuses what makes one text mean two things: a key given twice, ``NaN`` and the infinities,
and bytes that are not UTF-8.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

import rfc8785

from nix_seed.ground.errors import InputError

__all__ = ["dumps", "loads"]


def dumps(value: Any) -> bytes:
    """Return the one canonical spelling of *value* (RFC 8785), without a final newline.

    Raises ``InputError`` for what JSON cannot hold exactly: an integer beyond 2^53, a lone
    surrogate, a non-string key.
    """
    try:
        return rfc8785.dumps(value)
    except rfc8785.CanonicalizationError as error:
        raise InputError(f"this value has no canonical JSON: {error}") from error


def loads(text: bytes, *, what: str) -> Any:
    """Parse *text*; *what* names it in the error (``"seed.json of oci:seed"``)."""
    try:
        return json.loads(
            text.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as error:
        raise InputError(f"{what} is not valid JSON: {error}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key {twice!r} is given twice")
    return result


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
