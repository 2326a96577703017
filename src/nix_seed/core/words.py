"""Sizes and counts as people read them, and values as the members of a JSON object."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum
from operator import attrgetter
from typing import Any

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


def members(value: object, *names: str, **called: str) -> dict[str, Any]:
    """Return fields of *value*: each of *names* in camelCase, and *called* by another name.

    ``members(it, "nar_hash", path="end.path")`` is ``{"narHash": it.nar_hash, "path": …}``.
    """
    shown = {camel(name): name for name in names} | called
    return {name: plain(attrgetter(field)(value)) for name, field in shown.items()}


def plain(value: Any) -> Any:
    """Return *value* as JSON spells it: digests, paths and commits as people do, sets sorted."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(plain, value))
    return [plain(each) for each in value] if isinstance(value, list | tuple) else str(value)


def camel(name: str) -> str:
    """Return a field's *name* as members are spelled: ``narHash``."""
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))
