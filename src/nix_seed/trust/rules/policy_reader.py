"""Reads the tables of ``trust.toml``: types exact, no key unknown, every error with its line.

``tomllib`` reads the values and knows nothing of lines afterwards. ``find_lines`` walks the text a
second time; it is only ever asked about a text that ``tomllib`` has accepted.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Self, TypeVar

from nix_seed.core.errors import InputError

# Beyond 2^53 numbers would not survive JSON, in which digests and signatures are passed on.
LARGEST_NUMBER: Final = 1 << 53
_T = TypeVar("_T")
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


_KINDS: Final[Mapping[type, str]] = {
    str: "a string",
    int: "a whole number",
    bool: "true or false",
    list: "an array",
    dict: "a table",
    datetime: "a time with its zone, such as 2027-01-31T00:00:00Z",
}


@dataclass(frozen=True, slots=True)
class Section:
    """One table: its values, where it stands, and what was asked for so far."""

    values: Mapping[str, Any]
    place: Place
    lines: Mapping[Place, int]
    label: str
    _asked: set[str] = field(default_factory=set)

    def error(self, problem: str, key: str | None = None, hint: str | None = None) -> InputError:
        """Return the error *problem*, at the line of *key* or else of the table itself."""
        place = self.place if key is None else (*self.place, key)
        while place not in self.lines:
            place = place[:-1]
        return InputError(f"{self.label}, line {self.lines[place]}: {problem}", hint=hint)

    def optional(self, key: str, kind: type) -> Any:
        """Return the value of *key*, of exactly the type *kind*, or None where it is absent."""
        self._asked.add(key)
        value = self.values.get(key)
        if value is None:
            return None
        # `bool` is an `int` to Python, and `true` no number to a reader.
        if type(value) is not kind:
            raise self.error(f"{key} must be {_KINDS[kind]}", key)
        if isinstance(value, int) and abs(value) > LARGEST_NUMBER:
            raise self.error(f"{key} is beyond 2^53", key)
        if isinstance(value, str) and not value.strip():
            raise self.error(f"{key} is empty", key)
        return value

    def required(self, key: str, kind: type) -> Any:
        """Return the value of *key*, which must be there."""
        value = self.optional(key, kind)
        if value is None:
            raise self.error(f"{self._name()} needs {key}, {_KINDS[kind]}")
        return value

    def time(self, key: str) -> datetime | None:
        """Return a moment in UTC, or None."""
        value: datetime | None = self.optional(key, datetime)
        if value is None:
            return None
        if value.tzinfo is None:
            raise self.error(f"{key} must be {_KINDS[datetime]}", key)
        try:
            return value.astimezone(UTC)
        except OverflowError as error:
            raise self.error(f"{key} lies beyond the calendar", key) from error

    def strings(self, key: str) -> tuple[str, ...]:
        """Return an array of strings without repetition, empty where it is absent."""
        found = self.optional(key, list) or []
        if not all(isinstance(item, str) and item.strip() for item in found):
            raise self.error(f"{key} must be an array of strings", key)
        if len(set(found)) != len(found):
            raise self.error(f"{key} names something twice", key)
        return tuple(found)

    def flag(self, key: str) -> bool:
        """Return true or false, false where it is absent."""
        return bool(self.optional(key, bool))

    def table(self, key: str) -> Section:
        """Return the table *key*, an empty one where it is absent."""
        found = self.optional(key, dict) or {}
        return Section(found, (*self.place, key), self.lines, self.label)

    def tables(self, key: str) -> Iterator[Section]:
        """Yield the tables of the array *key*, none where it is absent."""
        for number, item in enumerate(self.optional(key, list) or []):
            if not isinstance(item, dict):
                raise self.error(f"{key} must be tables, each under [[{key}]]", key)
            yield Section(item, (*self.place, key, number), self.lines, self.label)

    def whole(self, value: _T) -> _T:
        """Return *value*, which was read of this table, if that is all that the table holds."""
        self.done()
        return value

    def done(self) -> Self:
        """Refuse keys that nobody asked for: a mistyped demand must not be a demand dropped."""
        for key in self.values:
            if key not in self._asked:
                near = difflib.get_close_matches(key, self._asked, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known: {self._known()}"
                raise self.error(f"{self._name()} has no key {key!r}", key, hint)
        return self

    def _known(self) -> str:
        return ", ".join(sorted(self._asked))

    def _name(self) -> str:
        tables = [part for part in self.place if isinstance(part, str)]
        if not tables:
            return "the policy"
        array = isinstance(self.place[-1], int)
        return f"[[{'.'.join(tables)}]]" if array else f"[{'.'.join(tables)}]"


def read_sections(text: bytes, label: str) -> Section:
    """Parse *text* as TOML and return its root; ``InputError`` names *label* and the line."""
    try:
        decoded = text.decode("utf-8")
        values = tomllib.loads(decoded)
    except UnicodeDecodeError as error:
        raise InputError(f"{label} is not UTF-8") from error
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits is a plain ValueError
        raise InputError(f"{label} is not valid TOML: {error}") from error
    return Section(values, (), find_lines(decoded.replace("\r\n", "\n")), label)
