"""Changed inputs: bytes in a few places, JSON in one value anywhere."""

from __future__ import annotations

import json
import random
from typing import Any, Final

_PIECES: Final = (
    b"\x00", b"\xff", b"\n", b'"', b"\\", b"[", b"{", b"}", b":", b"//", b"@", b"..", b"\xc2\xb2",
    b"null", b"-1", b"1e999", b"9" * 40, b"9" * 5000, b"\xed\xa0\x80", b"\\ud800", b"0" * 64,
)  # fmt: skip


def mutate(data: bytes, made: random.Random) -> bytes:
    """Return *data* changed in a few places, as whoever wants to break a reader would."""
    for _ in range(made.choice((1, 1, 2, 4))):
        at = made.randrange(len(data) + 1)
        end = min(len(data), at + made.choice((0, 1, 1, 4, 32)))
        match made.randrange(5):
            case 0:
                data = data[:at] + made.choice(_PIECES) + data[end:]
            case 1:
                data = data[:at] + data[end:]
            case 2:
                data = data[:at] + made.randbytes(end - at) + data[end:]
            case 3:
                data = data[:end] + data[at:]
            case _:
                data = data[:at]
    return data


def change_json(data: bytes, made: random.Random) -> bytes:
    """Return JSON of the same shape as *data* with one value, anywhere, of another kind."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return mutate(data, made)
    odd: list[Any] = [
        None,
        True,
        -1,
        2**64,
        1.5,
        "",
        "\u00b2",
        "\ud800",
        "x" * 3000,
        [],
        [[]],
        {},
        {"": None},
    ]
    places: list[tuple[Any, Any]] = []

    def walk(inside: Any) -> None:
        pairs = inside.items() if isinstance(inside, dict) else enumerate(inside)
        for key, each in pairs:
            places.append((inside, key))
            if isinstance(each, dict | list):
                walk(each)

    if isinstance(value, dict | list):
        walk(value)
    if not places:
        return json.dumps(made.choice(odd)).encode()
    holder, key = made.choice(places)
    holder[key] = made.choice(odd)
    return json.dumps(value).encode()
