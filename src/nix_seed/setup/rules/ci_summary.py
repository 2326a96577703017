"""The page that GitHub shows of a job: Markdown made of parts, never larger than it may be.

Names in it are anybody's. Each is put into ``<code>`` with every sign that Markdown or HTML might
read spelt as a character reference, which neither reads (CommonMark, section 2.5).
"""

import html
from collections.abc import Callable, Iterable, Sequence
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
class Part:
    """A part of a page: a *head*, *lines* of which some may be left out, and what ends it.

    *end* is given the number of lines that were left out. What there is no room for is cut, but for
    head and end; a part without lines goes as a whole.
    """

    head: str
    lines: tuple[str, ...]
    end: Callable[[int], str]

    @property
    def least(self) -> int:
        """The bytes of it that cannot be done without."""
        return len((self.head + self.end(len(self.lines))).encode())

    def render(self, room: int) -> str:
        """Return as much of it as fits in *room* bytes."""
        text, left = self.head, room - self.least
        if left < 0 and not self.lines:
            return ""
        for number, line in enumerate(self.lines):
            left -= len(line.encode())
            if left < 0:
                return text + self.end(len(self.lines) - number)
            text += line
        return text + self.end(0)


def words(text: str) -> Part:
    """Return a paragraph of Markdown of our own; what is quoted in it went through ``code``."""
    return Part(f"{text}\n\n", (), lambda _: "")


def table(heading: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Part:
    """Return rows under a heading and column titles; cells are Markdown of our own."""
    titles = f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}\n"
    lines = tuple(f"| {' | '.join(row)} |\n" for row in rows)
    head = f"### {heading}\n\n{titles}"
    return Part(head, lines, lambda left: f"\n… and {left} more\n\n" if left else "\n")


def verbatim(heading: str, lines: Iterable[str]) -> Part:
    """Return lines as they are, of anybody's: a log, a command, a report."""
    shown = tuple(f"{html.escape(_printable(line))}\n" for line in lines)
    return Part(
        f"### {heading}\n\n<pre>\n",
        shown,
        lambda left: f"{f'… and {left} more lines' if left else ''}</pre>\n\n",
    )


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


def _printable(line: str) -> str:
    # An empty line would end the block in some readers; a break inside would begin another.
    flat = "".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in line)
    return flat or " "
