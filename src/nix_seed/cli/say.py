"""The one way to standard output and error: text without power over terminals, or JSON."""

from __future__ import annotations

from typing import Any

import click

from nix_seed.ground.harmless import harmless

__all__ = ["say", "say_styled"]


def say(
    value: Any, *, err: bool = False, nl: bool = True, indent: int | None = None, **style: Any
) -> None:
    """Print a text, harmless; any other *value* as JSON, which escapes what is not.

    *style* is the whole text's, as ``click.style`` names it.
    """
    if isinstance(value, str):
        text = click.style(harmless(value), **style) if style else harmless(value)
    else:
        import json

        # The same JSON, and no command to GitHub's runner.
        text = json.dumps(value, indent=indent).replace("##[", "##\\u005b")
    click.echo(text, err=err, nl=nl)


def say_styled(text: str) -> None:
    """Print *text* with the colours in it; what is foreign in it must be harmless already."""
    click.echo(text)
