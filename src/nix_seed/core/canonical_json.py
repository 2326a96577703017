"""RFC 8785 canonical JSON out, strict JSON in.

Reading refuses what makes one text mean two things: a key given twice, ``NaN`` and the infinities
(a number too large for a double as well), an integer that no double holds exactly, half a surrogate
pair, and bytes that are not UTF-8.
"""

import json
import math
import re
from itertools import accumulate, pairwise
from typing import Any, Final, NoReturn

import rfc8785

from nix_seed.core.errors import InputError

_DEEPEST: Final = 500
_LARGEST: Final = 1 << 53
# Strings are taken whole, so that brackets in them do not count; an unfinished one ends the text.
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\Z)', re.DOTALL)
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_STEPS: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # one down, one up

_SPELLED: Final = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, sort_keys=True, separators=(",", ":")
)


def dumps(value: Any) -> bytes:
    """Return the one canonical spelling of *value* (RFC 8785), without a final newline.

    Raises ``InputError`` for what JSON cannot hold exactly: an integer beyond 2^53, a lone
    surrogate, a non-string key, a value nested beyond Python's stack.
    """
    try:
        # ASCII and no fractions: here Python's own, quick spelling is the canonical one.
        if _is_plain(value) and (text := _SPELLED.encode(value)).isascii():
            return text.encode()
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
        raise InputError(f"this value has no canonical JSON: {error}") from error
    except RecursionError as error:
        raise InputError("this value has no canonical JSON: it is nested too deep") from error


def _is_plain(value: Any) -> bool:
    kind = type(value)
    if kind is dict:
        return all(type(key) is str for key in value) and all(map(_is_plain, value.values()))
    if kind is list or kind is tuple:
        return all(map(_is_plain, value))
    if kind is int:
        return bool(-_LARGEST < value < _LARGEST)
    return kind is str or kind is bool or value is None


def loads(text: bytes, *, label: str) -> Any:
    """Parse *text*; *label* names it in the error (``"seed.json of oci:seed"``)."""
    _check_depth(text, label)
    try:
        value = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_exact,
        )
        if b"\\u" in text:
            # Refuse what no UTF-8 can hold, which only an escape can have brought in.
            try:
                json.dumps(value, ensure_ascii=False).encode()
            except UnicodeEncodeError as error:
                raise ValueError("a string holds half a surrogate pair") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{label} is not valid JSON: {error}") from error
    return value


def _check_depth(text: bytes, label: str) -> None:
    """Refuse deep nesting before it is read.

    How deep Python's own reader goes differs from version to version, and a library may raise its
    limit for the whole process. What one machine reads, another must not refuse.
    """
    if text.count(b"[") + text.count(b"{") <= _DEEPEST:
        return
    steps = _STRING.sub(b"", text).translate(_STEPS, _NO_BRACKETS)
    if max(accumulate(memoryview(steps).cast("b")), default=0) > _DEEPEST:
        raise InputError(f"{label} is not valid JSON: it is nested too deep")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        keys = sorted(key for key, _ in pairs)
        twice = next(key for key, following in pairwise(keys) if key == following)
        raise ValueError(f"key {twice!r} is given twice")
    return result


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text} is too large a number")
    return number


def _exact(text: str) -> int:
    number = int(text)
    if abs(number) > _LARGEST:
        raise ValueError(f"an integer of {len(text)} digits is beyond 2^53")
    return number


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
