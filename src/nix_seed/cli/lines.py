"""Lines for people: folded to a terminal's width, left whole in a pipe, for `grep`."""

import shutil
import sys
from collections.abc import Iterable, Iterator


def columns() -> int | None:
    """Return how wide the terminal on standard output is; None where it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def folded(lines: Iterable[str], width: int | None) -> Iterator[str]:
    """Yield *lines*; one that is wider than *width* goes on below, under its own text."""
    import re
    import textwrap

    for line in lines:
        if width is None or len(line) <= width:
            yield line
            continue
        # Under the words that a label, two spaces apart, stands before; else under its own start. A
        # word that fits no line stays beside its label.
        label = re.match(r" *(?:\S+(?: \S+)* {2,})?", line)
        start = label[0] if label else ""
        indent = len(start) if len(start) < width // 2 else len(line) - len(line.lstrip())
        yield from textwrap.wrap(
            line[len(start) :],
            width,
            initial_indent=start,
            subsequent_indent=" " * indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
