"""Words for people: errors, sizes, times."""

from __future__ import annotations

from collections.abc import Iterator

from nix_seed.ground.errors import NixSeedError
from nix_seed.ground.harmless import harmless, harmless_line

__all__ = ["error_lines", "human_size", "plural"]

_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def error_lines(error: NixSeedError) -> Iterator[str]:
    """Yield one line of error, foreign words where there are any, and what to do next.

    Each of them may quote an image, a flake or a registry: all are harmless, and no line of theirs
    can pass for the beginning of another.
    """
    yield f"error: {harmless_line(error.message)}"
    if error.detail:
        yield from (f"  | {harmless_line(line)}" for line in error.detail.splitlines())
    if error.hint:
        first, *others = harmless(error.hint).split("\n")
        yield f"hint: {first}"
        yield from (line if line[:2] in ("", "  ") else f"  {line}" for line in others)


def human_size(size: float) -> str:
    """Return *size* in bytes with three digits or so: ``12.3 MB`` (powers of 1000)."""
    for unit in _UNITS[:-1]:
        if size < 999.5:
            return (
                f"{size:.0f} {unit}" if unit == "bytes" or size >= 99.95 else f"{size:.1f} {unit}"
            )
        size /= 1000
    return f"{size:.1f} {_UNITS[-1]}"


def plural(number: int, noun: str) -> str:
    """Return ``1 layer``, ``2 layers``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
