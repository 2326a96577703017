"""The page that GitHub shows of a job: Markdown made of parts, never larger than it may be.

Names in it are anybody's. Each is put into ``<code>`` with every sign that Markdown or HTML might
read spelt as a character reference, which neither reads (CommonMark, section 2.5).
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass

LARGEST = 1 << 20
"""What GitHub takes of one step, in bytes; it drops all of a larger one."""

_MARGIN = 4096
_LONGEST_CELL = 400
# Signs that begin or end nothing in the middle of a line.
_PLAIN = frozenset(" -+=,/%;()")


def code(text: str) -> str:
    """Return *text*, whatever it is, as code in Markdown, in one line."""
    flat = " ".join(text.split())
    short = flat if len(flat) <= _LONGEST_CELL else f"{flat[:_LONGEST_CELL]}…"
    return f"<code>{''.join(map(_spelt, short))}</code>"


def _spelt(character: str) -> str:
    if character.isalnum() or character in _PLAIN:
        return character
    return f"&#{ord(character)};" if character.isprintable() else "&#65533;"


@dataclass(frozen=True, slots=True)
class Words:
    """A paragraph of Markdown of our own; what is quoted in it went through ``code``."""

    text: str

    def render(self, room: int) -> str:
        """Return it, or nothing where there is no room."""
        return _whole(f"{self.text}\n\n", room)

    @property
    def least(self) -> int:
        """The bytes of it that cannot be done without."""
        return len(self.text.encode()) + 2


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a heading and column titles; cells are Markdown of our own."""

    heading: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def render(self, room: int) -> str:
        """Return as many rows as fit in *room* bytes, and say how many more there are."""
        text, left = self._head(), room - self.least
        for number, row in enumerate(self.rows):
            line = f"| {' | '.join(row)} |\n"
            left -= len(line.encode())
            if left < 0:
                return text + self._more(len(self.rows) - number)
            text += line
        return text + "\n"

    @property
    def least(self) -> int:
        """The bytes of the head, and of saying what was cut."""
        return len((self._head() + self._more(len(self.rows))).encode())

    def _head(self) -> str:
        titles = f"| {' | '.join(self.columns)} |\n"
        return f"### {self.heading}\n\n{titles}|{' --- |' * len(self.columns)}\n"

    def _more(self, number: int) -> str:
        return f"\n… and {number} more\n\n"


@dataclass(frozen=True, slots=True)
class Code:
    """Lines as they are, of anybody's: a log, a command, a report."""

    heading: str
    lines: tuple[str, ...]

    def render(self, room: int) -> str:
        """Return as many lines as fit in *room* bytes, and say how many more there are."""
        text, left = self._head(), room - self.least
        for number, line in enumerate(self.lines):
            shown = html.escape(_printable(line)) + "\n"
            left -= len(shown.encode())
            if left < 0:
                return text + self._end(len(self.lines) - number)
            text += shown
        return text + self._end(0)

    @property
    def least(self) -> int:
        """The bytes of the head and the end."""
        return len((self._head() + self._end(len(self.lines))).encode())

    def _head(self) -> str:
        return f"### {self.heading}\n\n<pre>\n"

    def _end(self, more: int) -> str:
        return f"{f'… and {more} more lines' if more else ''}</pre>\n\n"


Part = Words | Table | Code


def build_summary(title: str, parts: Sequence[Part], largest: int = LARGEST) -> str:
    """Return the page; where it would be too large, the parts are cut, the first ones last."""
    text = f"## {title}\n\n"
    room = largest - min(_MARGIN, largest // 8) - len(text.encode())
    for number, part in enumerate(parts):
        later = sum(each.least for each in parts[number + 1 :])
        done = part.render(room - later)
        room -= len(done.encode())
        text += done
    return text


def _whole(text: str, room: int) -> str:
    return text if len(text.encode()) <= room else ""


def _printable(line: str) -> str:
    # An empty line would end the block in some readers; a break inside would begin another.
    flat = "".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in line)
    return flat or " "
