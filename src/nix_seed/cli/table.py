"""Tables and long lines: as wide as the terminal, and plain and complete where there is none."""

import textwrap
from collections.abc import Collection, Iterator, Sequence

from nix_seed.cli.lines import columns
from nix_seed.cli.say import say
from nix_seed.core.safe_text import safe_line

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
