"""The one way to standard output and error: text without power over terminals, or JSON.

Words for people: errors, sizes, times.
"""

from collections.abc import Iterator
from typing import Any

import click

from nix_seed.core.errors import NixSeedError
from nix_seed.core.safe_text import safe_line, safe_text


def say(
    value: Any, *, err: bool = False, nl: bool = True, indent: int | None = None, **style: Any
) -> None:
    """Print a text, harmless; any other *value* as JSON, which escapes what is not.

    *style* is the whole text's, as ``click.style`` names it.
    """
    if isinstance(value, str):
        text = click.style(safe_text(value), **style) if style else safe_text(value)
    else:
        import json

        # The same JSON, and no command to GitHub's runner.
        text = json.dumps(value, indent=indent).replace("##[", "##\\u005b")
    click.echo(text, err=err, nl=nl)


def say_styled(text: str) -> None:
    """Print *text* with the colours in it; what is foreign in it must be harmless already."""
    click.echo(text)


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
