"""Words for people: sizes and counts."""

from collections.abc import Sequence
from datetime import datetime

_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def human_size(size: float) -> str:
    """Return *size* in bytes with three digits or so: ``12.3 MB`` (powers of 1000)."""
    for unit in _UNITS[:-1]:
        if size < 999.5:
            return (
                f"{size:.0f} {unit}" if unit == "bytes" or size >= 99.95 else f"{size:.1f} {unit}"
            )
        size /= 1000
    return f"{size:.1f} {_UNITS[-1]}"


def plural(number: int, noun: str, several: str | None = None) -> str:
    """Return ``1 layer``, ``2 layers``; *several* is a plural that does not end in one s more."""
    return f"{number} {noun if number == 1 else several or f'{noun}s'}"


def shortened(items: Sequence[str], most: int | None) -> str:
    """Return *items* with commas between them: *most* of them, and how many more there are."""
    if most is None or len(items) <= most:
        return ", ".join(items)
    return f"{', '.join(items[:most])} and {len(items) - most} more"


def in_utc(time: datetime) -> str:
    """Return *time*, which is in UTC, to the minute."""
    return f"{time:%Y-%m-%d %H:%M} UTC"
