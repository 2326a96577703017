"""Values as the members of a JSON object, for programs that read what a command says."""

from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from operator import attrgetter
from typing import Any


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
