"""Words for people: errors, sizes, times."""

from __future__ import annotations

from collections.abc import Iterator

from nix_seed.ground.errors import NixSeedError

__all__ = ["error_lines", "human_size", "plural"]

_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def error_lines(error: NixSeedError) -> Iterator[str]:
    """Yield one line of error, foreign words where there are any, and what to do next."""
    yield f"error: {error.message}"
    if error.detail:
        yield from (f"  | {_harmless(line)}" for line in error.detail.splitlines())
    if error.hint:
        yield f"hint: {error.hint}"


def _harmless(line: str) -> str:
    """Keep what foreign words quote (a flake's own text) from steering the terminal."""
    return "".join(char if char.isprintable() or char == "\t" else "\ufffd" for char in line)


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
