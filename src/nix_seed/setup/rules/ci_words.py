"""GitHub's workflow commands, GitLab's sections, and what else is said to a CI service in lines.

A line that begins with ``::``, or has ``##[`` anywhere, is a command to GitHub's runner. What is
quoted in one (a store path's name, Nix's own words) is escaped, and what is printed outside of one
is made harmless, so that no name of anybody's can speak to the runner.

The page that GitHub shows of a job: Markdown made of parts, never larger than it may be.

Names in it are anybody's. Each is put into ``<code>`` with every sign that Markdown or HTML might
read spelt as a character reference, which neither reads (CommonMark, section 2.5).
"""

import html
import re
from collections.abc import Iterable, Sequence
from typing import Literal

from nix_seed.core.safe_text import printable
from nix_seed.core.values import dataclass

Level = Literal["error", "warning", "notice"]

# The runner shows some 4 KiB of a message.
_LONGEST = 4000
_DATA = {"%": "%25", "\r": "%0D", "\n": "%0A"}
_PROPERTY = {**_DATA, ":": "%3A", ",": "%2C"}


def annotation(
    level: Level, title: str, text: str, *, file: str | None = None, line: int | None = None
) -> str:
    """Return the workflow command that shows *text* under *title*, at a line of a file or without.

    https://docs.github.com/actions/reference/workflow-commands-for-github-actions
    """
    properties = {"title": title, "file": file, "line": None if line is None else str(line)}
    shown = ",".join(
        f"{name}={_escaped(value, _PROPERTY)}"
        for name, value in properties.items()
        if value is not None
    )
    return f"::{level} {shown}::{_escaped(printable(text)[:_LONGEST], _DATA)}"


def start_group(title: str, key: str, time: int) -> dict[str, str]:
    """Return, for each service, the line that begins a part of the log that folds away."""
    plain = printable(title).replace("\n", " ")
    return {
        "github": f"::group::{_escaped(plain, _DATA)}",
        "gitlab": f"\x1b[0Ksection_start:{time}:{key}[collapsed=true]\r\x1b[0K{plain}",
        "other": f"== {plain}",
    }


def end_group(key: str, time: int) -> dict[str, str]:
    """Return, for each service, the line that ends that part."""
    return {
        "github": "::endgroup::",
        "gitlab": f"\x1b[0Ksection_end:{time}:{key}\r\x1b[0K",
        "other": "",
    }


def output_lines(name: str, value: str, delimiter: str) -> str:
    """Return what sets an output or variable to *value* in GitHub's files.

    *delimiter* must be one that nobody can foresee; a value that has it is refused by the caller's
    own choice of another.
    """
    if "\n" not in value and "\r" not in value:
        return f"{name}={value}\n"
    return f"{name}<<{delimiter}\n{value}\n{delimiter}\n"


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A download, called *label*, that has not the hash *wanted*: it *got* another."""

    label: str
    wanted: str
    got: str

    def __str__(self) -> str:
        return f"{self.label} has another hash than stated: replace {self.wanted} with {self.got}"


_HASH = r"(?:sha\d+|md5|blake3)[-:][A-Za-z0-9+/=]+|[0-9a-z]{32,}"
_FORMS = (
    # A fixed-output derivation, or a file that was downloaded.
    re.compile(
        r"hash mismatch in (?P<what>[^\n]{1,400}?):?\s*\n\s*(?:specified|wanted|expected):\s*"
        rf"(?P<wanted>{_HASH})\s*\n\s*got:\s*(?P<got>{_HASH})"
    ),
    # The input of a flake.
    re.compile(
        r"hash mismatch in (?P<what>input '[^'\n]{1,400}')[^\n]{0,400}?"
        rf"expected '?(?P<wanted>{_HASH})'?,? (?:but )?got '?(?P<got>{_HASH})'?"
    ),
)
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def find_mismatches(text: str) -> tuple[Mismatch, ...]:
    """Find in Nix's words every hash that was not the one stated, each once."""
    plain = _COLOURS.sub("", text)
    found = [
        Mismatch(printable(match["what"]).strip(), match["wanted"], match["got"])
        for form in _FORMS
        for match in form.finditer(plain)
    ]
    return tuple(dict.fromkeys(found))


def _escaped(text: str, table: dict[str, str]) -> str:
    return "".join(table.get(character, character) for character in text)


LARGEST = 1 << 20
"""What GitHub takes of one step, in bytes; it drops all of a larger one."""

_MARGIN = 4096
_MOST_LINES = 1000  # of one part
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


def paragraph(text: str) -> str:
    """Return a paragraph of Markdown of our own; what is quoted in it went through ``code``."""
    return f"{text}\n\n"


def table(heading: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows under a heading and column titles; cells are Markdown of our own."""
    shown = [columns, ["---"] * len(columns), *rows[:_MOST_LINES]]
    lines = "".join(f"| {' | '.join(row)} |\n" for row in shown)
    return f"### {heading}\n\n{lines}\n{_left(rows)}"


def verbatim(heading: str, lines: Sequence[str]) -> str:
    """Return lines as they are, of anybody's: a log, a command, a report."""
    shown = "".join(f"{html.escape(_printable(line))}\n" for line in lines[:_MOST_LINES])
    return f"### {heading}\n\n<pre>\n{shown}</pre>\n\n{_left(lines)}"


def _left(lines: Sequence[object]) -> str:
    left = len(lines) - _MOST_LINES
    return f"… and {left} more\n\n" if left > 0 else ""


def build_summary(title: str, parts: Iterable[str]) -> str:
    """Return the page; a part that would make it too large is left out, and said to be."""
    text = f"## {title}\n\n"
    for part in parts:
        fits = len((text + part).encode()) <= LARGEST - _MARGIN
        text += part if fits else "A part that is too large for this page is left out.\n\n"
    return text


def _printable(line: str) -> str:
    # An empty line would end the block in some readers; a break inside would begin another.
    flat = "".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in line)
    return flat or " "
