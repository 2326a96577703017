"""Where in a TOML text each table and key stands, so that an error can say the line.

``tomllib`` reads the values and knows nothing of lines afterwards. This walks the text a second
time; it is only ever asked about a text that ``tomllib`` has accepted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

__all__ = ["Place", "find_lines"]

Place = tuple[str | int, ...]
"""The way to a value: ``("builders", 1, "key")``, arrays of tables by position from 0."""

_KEY = re.compile(r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'|\s*\.\s*)+?)\s*=""")
_HEADER = re.compile(r"\s*(\[\[?)([^\]]+)\]")
_PART = re.compile(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""")
_TOKEN: Final = re.compile(
    r'"{3}|\'{3}|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'|#[^\n]*|[\[\]{}]|\n', re.DOTALL
)


def find_lines(text: str) -> dict[Place, int]:
    """Return the line, from 1, on which each table header and each key of *text* stands."""
    found: dict[Place, int] = {(): 1}
    counts: dict[Place, int] = {}
    table: Place = ()
    for number, line in _statements(text):
        if (header := _HEADER.match(line)) and _parts(header[2]):
            table = _enter(_parts(header[2]), header[1] == "[[", counts)
            found.setdefault(table, number)
        elif key := _KEY.match(line):
            place = (*table, *_parts(key[1]))
            for end in range(len(table) + 1, len(place) + 1):
                found.setdefault(place[:end], number)
    return found


def _enter(parts: Place, array: bool, counts: dict[Place, int]) -> Place:
    """Return the place a header opens; in an array of tables, that of its newest element."""
    place: Place = ()
    for part in parts[:-1]:
        place = (*place, part)
        if place in counts:
            place = (*place, counts[place] - 1)
    place = (*place, parts[-1])
    if not array:
        return place
    counts[place] = counts.get(place, 0) + 1
    return (*place, counts[place] - 1)


def _parts(text: str) -> Place:
    return tuple(part.strip("\"'") for part in _PART.findall(text))


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Yield each line that begins a statement, not one inside a long string or an open array."""
    number, start, first, depth = 1, 0, 1, 0
    position = 0
    while found := _TOKEN.search(text, position):
        token, position = found[0], found.end()
        if token in ('"""', "'''"):
            end = text.find(token, position) % (len(text) + 1)  # -1 is the end: never go back
            number += text.count("\n", position, end)
            position = end + 3
        elif token in "[{":
            depth += 1
        elif token in "]}":
            depth -= 1
        elif token == "\n":
            if depth == 0:
                yield first, text[start : found.start()]
                start, first = position, number + 1
            number += 1
    yield first, text[start:]
