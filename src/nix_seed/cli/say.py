"""The one way to standard output and error: text without power over terminals, or JSON.

Lines and tables are as wide as the terminal. In a pipe they are plain and whole, for ``grep``.
"""

import os
import sys
import textwrap
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import click

from nix_seed.core.errors import NixSeedError
from nix_seed.core.safe_text import safe_line, safe_text, without_secrets
from nix_seed.core.values import dataclass


def columns(*, err: bool = False) -> int | None:
    """Return how wide the terminal on standard output (error) is; None where it is none."""
    stream = sys.stderr if err else sys.stdout
    if not stream.isatty():
        return None
    asked = os.environ.get("COLUMNS", "")
    if asked.isdecimal() and int(asked):
        return int(asked)
    return os.get_terminal_size(stream.fileno()).columns or None


# What is copied from a text, blanks and all.
_COMMAND = (
    r"`[^`]*`|\b(?:nix-seed |nix flake |git (?:-C|add|remote|fetch|config|init|ls)|apt-get |pip )"
    r"(?:[^;,:()]|:(?! ))*"
)


def folded(lines: Iterable[str], width: int | None) -> Iterator[str]:
    """Yield *lines*; one that is wider than *width* goes on below, under its own text.

    Commands stay whole, and so does what a program said (``  | …``).
    """
    import re

    for line in lines:
        if width is None or len(line) <= width or line.startswith("  | "):
            yield line
            continue
        # Under the words that a label stands before; else under its own start. A word that fits no
        # line stays beside its label.
        label = re.match(
            r" *(?:(?:error|hint|note|notice|warning|WARNING): |\S+(?: \S+)* {2,})?", line
        )
        start = label[0] if label else ""
        indent = len(start) if len(start) < width // 2 else len(line) - len(line.lstrip())
        parts = textwrap.wrap(
            re.sub(_COMMAND, lambda found: found[0].replace(" ", "\0"), line[len(start) :]),
            width,
            initial_indent=start,
            subsequent_indent=" " * indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        yield from (part.replace("\0", " ") for part in parts)


SCHEMA = 1
"""Of all that ``--json`` prints; raised where a member changes its meaning or goes away."""


@dataclass(slots=True)
class Manner:
    """What was asked of the output, and whether the JSON object has been *answered* yet.

    *clear* takes progress off the terminal, where there is any. *parts* takes the objects that
    would be printed, for a command that makes one of them.
    """

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    answered: bool = False
    clear: Callable[[], None] | None = None
    parts: list[dict[str, Any]] | None = None


def manner(ctx: click.Context | None = None) -> Manner:
    """Return what was asked of the output of the command that runs."""
    ctx = ctx or click.get_current_context(silent=True)
    return Manner() if ctx is None else ctx.ensure_object(Manner)


def say(
    value: Any, *, err: bool = False, nl: bool = True, indent: int | None = None, **style: Any
) -> None:
    """Print a text, harmless; a *value* that is a dictionary as JSON, which escapes what is not.

    *style* is the whole text's, as ``click.style`` names it; it shows on terminals alone.
    """
    if isinstance(value, str):
        text = safe_text(value)
        if err:
            text = "\n".join(folded(text.split("\n"), columns(err=True)))
        text = click.style(text, **style) if style else text
    else:
        import json

        asked = manner()
        asked.answered = True
        if asked.parts is not None:
            asked.parts.append(value)
            return
        # The same JSON, and no command to GitHub's runner.
        text = json.dumps({"schema": SCHEMA} | value, indent=indent).replace("##[", "##\\u005b")
    say_styled(text, err=err, nl=nl)


_COLOURS = {"VERIFIED": "green", "CHECKED AND FALSE": "red", "COULD NOT CHECK": "magenta"}


def say_verdict(text: str) -> None:
    """Print *text*, and the verdict in it in colour: a line ``verdict: WORDS: …``."""
    lines = safe_text(text).split("\n")
    for number, line in enumerate(lines):
        label, _, rest = line.partition(": ")
        words, colon, why = rest.partition(": ")
        if label == "verdict" and words in _COLOURS:
            shown = click.style(words, fg=_COLOURS[words], bold=True)
            lines[number] = f"{label}: {shown}{colon}{why}"
    say_styled("\n".join(lines))


def warn(text: str) -> None:
    """Print *text* as a warning: its mark is legible on light terminals and on dark ones."""
    lines = "\n".join(folded([f"WARNING: {safe_text(text)}"], columns(err=True)))
    mark = click.style("WARNING", fg="black", bg="yellow")
    say_styled(mark + lines.removeprefix("WARNING"), err=True)


def say_lines(lines: Iterable[str], *, verdict: bool = False) -> None:
    """Print *lines*, folded to the terminal's width, and the *verdict* in them in colour."""
    text = "\n".join(folded(lines, columns()))
    if verdict:
        say_verdict(text)
    else:
        say(text)


def answer(
    value: dict[str, Any],
    lines: str | Iterable[str],
    *,
    verdict: bool = False,
    indent: int | None = None,
) -> None:
    """Print *value* where JSON was asked for, *indent*ed, and *lines* where it was not."""
    if manner().json:
        say(value, indent=indent)
    else:
        say_lines(lines.split("\n") if isinstance(lines, str) else lines, verdict=verdict)


def say_styled(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Print *text* with the colours in it; what is foreign in it must be harmless already."""
    clear = manner().clear
    if clear is not None:
        clear()
    with unheard() if err else nullcontext():
        click.echo(text, err=err, nl=nl, color=None if _may_colour() else False)


@contextmanager
def unheard() -> Iterator[None]:
    """Go on where standard error takes nothing (a full disk): what is told decides nothing."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError:
        # Python would try once more at its end, and change the exit code.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def note(text: str) -> None:
    """Print on standard error what helps, and is not missed where ``-q`` leaves it out."""
    if not manner().quiet:
        say(text, err=True)


def _may_colour() -> bool:
    """Whether terminals get colours: https://no-color.org, and those that know none."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def error_lines(error: NixSeedError) -> Iterator[str]:
    """Yield one line of error, foreign words where there are any, and what to do next.

    Each of them may quote an image, a flake or a registry: all are harmless, and no line of theirs
    can pass for the beginning of another.
    """
    yield f"error: {safe_line(error.message)}"
    if error.detail:
        yield from (f"  | {safe_line(line)}" for line in error.detail.splitlines())
    if error.hint:
        first, *others = safe_text(error.hint).split("\n")
        yield f"hint: {first}"
        yield from (line if line[:2] in ("", "  ") else f"  {line}" for line in others)


_KINDS = {1: "checked and false", 2: "wrong input", 3: "could not check", 4: "Nix failed"}


def error_json(message: str, code: int, hint: str | None = None, detail: str | None = None) -> None:
    """Print an error as the JSON object, where one was asked for and none was printed yet."""
    kind = _KINDS.get(code, "interrupted")
    said = {"message": message, "hint": hint, "detail": detail}
    told = {name: text and without_secrets(text) for name, text in said.items()}
    value = {"kind": kind, **told, "exitCode": code}
    say({"error": value})


LEAST = 24  # columns for text that is wrapped beside others, and not below them


def table(
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Collection[int] = (),
    width: int | None = None,
) -> Iterator[str]:
    """Yield *titles* and *rows*; columns *right* are numbers.

    The last column is wrapped, below itself, to *width*; without one every row is one line.
    """
    cells = [[safe_line(cell) for cell in row] for row in (titles, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(titles))]
    for row in cells:
        first = [
            cell.rjust(size) if column in right else cell.ljust(size)
            for column, (cell, size) in enumerate(zip(row[:-1], widths, strict=False))
        ]
        last = len(titles) - 1
        tail = row[-1].rjust(widths[-1]) if last in right else row[-1]
        yield from hanging("  ".join([*first, ""]), tail, width)


def say_table(
    titles: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[int] = ()
) -> None:
    """Print a table, as wide as the terminal."""
    head, *lines = table(titles, rows, right=right, width=columns())
    say(head, bold=True)
    for line in lines:
        say(line)


def hanging(first: str, text: str, width: int | None) -> Iterator[str]:
    """Yield *text* after *first*, wrapped to *width* below itself, or below a long *first*."""
    room = 0 if width is None else width - len(first)
    if width is None or len(text) <= room:
        yield (first + text).rstrip()
        return
    if room < LEAST:
        yield first.rstrip()
        first = "    "
    lines = textwrap.wrap(
        text,
        max(width, len(first) + LEAST),
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_on_hyphens=False,
    )
    yield from lines
