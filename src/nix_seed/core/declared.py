"""JSON objects by declaration, and by the member: types exact, one spelling for each value.

A frozen dataclass is read by ``read`` from just the object that it declares, and ``write`` makes
that object of it. A member is called as its field in camelCase, or as the field's metadata says:
``{"json": "tree.root"}`` lies in an inner object, None is no member, and ``"omit": True`` leaves
out what is None instead of writing null.

Unknown members are passed over, as in-toto and DSSE ask of readers. A member that is a known one
in another spelling (``payload_type``, ``PayloadType``) is refused, because lenient readers take it
for the known one, and two readers must never see two documents in the same bytes.
"""

import base64
import binascii
import dataclasses
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache, partial
from types import NoneType, UnionType
from typing import Any, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from nix_seed.core.digests import Digest, Sha256
from nix_seed.core.errors import InputError

_T = TypeVar("_T")
_S = TypeVar("_S", bound=Sha256)
_LARGEST = 1 << 53  # what every reader of JSON keeps exact
_NAMES = {
    str: "a string",
    int: "an integer",
    bool: "true or false",
    dict: "an object",
    list: "an array",
}


def object_of(value: Any, where: str, *known: str) -> Mapping[str, Any]:
    """Return *value* if it is an object that spells the members it has of *known* exactly so."""
    if not isinstance(value, dict):
        raise InputError(f"{where}: an object is wanted, not {type(value).__name__}")
    folded = {_fold(name): name for name in known}
    for name in value:
        right = folded.get(_fold(name))
        if right is not None and right != name:
            raise InputError(f"{where}: member {name!r} must be spelled {right!r}")
    return value


def member(value: Mapping[str, Any], name: str, kind: type, where: str) -> Any:
    """Return a member that must be there, of exactly the type *kind*."""
    return _exact(value.get(name), kind, name, where)


def _exact(found: Any, kind: type, name: str, where: str) -> Any:
    if type(found) is not kind:
        raise InputError(f"{where}: {name} must be {_NAMES[kind]}")
    return found


def optional_member(value: Mapping[str, Any], name: str, kind: type, where: str) -> Any:
    """Return a member of type *kind*, or None where it is absent or null."""
    return None if value.get(name) is None else member(value, name, kind, where)


def base64_member(value: Mapping[str, Any], name: str, where: str) -> bytes:
    """Return the bytes of a member in standard base64: padded, with no stray bits."""
    return _bytes(value.get(name), name, where)


def _bytes(found: Any, name: str, where: str) -> bytes:
    text: str = _exact(found, str, name, where)
    try:
        raw = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raw = b""
    if base64.b64encode(raw).decode() != text:
        raise InputError(f"{where}: {name} is not standard base64")
    return raw


def _fold(name: str) -> str:
    return name.replace("_", "").replace("-", "").casefold()


_TIME = "%Y-%m-%dT%H:%M:%SZ"


def digest(value: Mapping[str, Any], name: str, where: str) -> Digest:
    """Return the member *name*, ``sha256:`` and hex."""
    return _sha256(Digest, value.get(name), name, where)


def _sha256(kind: type[_S], found: Any, name: str, where: str) -> _S:
    text: str = _exact(found, str, name, where)
    try:
        read: _S = kind.parse(text)
    except InputError as error:
        raise InputError(f"{where}: {name}: {error.message}") from error
    if str(read) != text:
        raise InputError(f"{where}: {name} must be spelled {read}")
    return read


def strings(value: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
    """Return an array of strings."""
    return _strings(value.get(name), name, where)


def _strings(items: Any, name: str, where: str) -> tuple[str, ...]:
    found = _exact(items, list, name, where)
    if not all(isinstance(text, str) for text in found):
        raise InputError(f"{where}: {name} must hold strings")
    return tuple(found)


def count(value: Mapping[str, Any], name: str, where: str) -> int:
    """Return an integer that is not negative, nor larger than JSON keeps exact."""
    return _count(value.get(name), name, where)


def _count(value: Any, name: str, where: str) -> int:
    found: int = _exact(value, int, name, where)
    if found < 0:
        raise InputError(f"{where}: {name} is negative")
    if found > _LARGEST:
        raise InputError(f"{where}: {name} is larger than 2^53")
    return found


def check_time(text: str) -> None:
    """Raise ``InputError`` unless *text* is a time like ``2025-01-31T12:00:00Z``."""
    try:
        if datetime.strptime(text, _TIME).strftime(_TIME) == text:
            return
    except ValueError:
        pass
    raise InputError(f"{text!r} is not a time in UTC such as 2025-01-31T12:00:00Z")


def read(kind: type[_T], value: Any, where: str) -> _T:
    """Return the *kind* that *value* spells; ``InputError`` names *where* and the member."""
    try:
        found: _T = _read(kind, value, where)
        return found
    except InputError as error:
        if error.message.startswith(where):
            raise
        raise InputError(f"{where}: {error.message}", hint=error.hint) from error


def write(value: Any) -> dict[str, Any]:
    """Return the object that *value*, of a declared kind, is spelled as."""
    return _write(type(value), value)


class _Codec(NamedTuple):
    """How a type is *read* from (found, name, where), and written."""

    read: Callable[[Any, str, str], Any]
    write: Callable[[Any], Any]
    read_at: Callable[[Any, str], Any] | None = None
    """Of an object: reads it by the place alone."""


class _Member(NamedTuple):
    field: str
    outer: str
    name: str
    codec: _Codec
    omitted: bool


def _read(kind: Any, value: Any, where: str) -> Any:
    members = _members(kind)
    holders = {"": object_of(value, where, *(each.outer or each.name for each in members))}
    for outer in dict.fromkeys(each.outer for each in members if each.outer):
        known = (each.name for each in members if each.outer == outer)
        inner = member(holders[""], outer, dict, where)
        holders[outer] = object_of(inner, f"{where}, {outer}", *known)
    return kind(
        **{
            each.field: each.codec.read(
                holders[each.outer].get(each.name),
                each.name,
                f"{where}, {each.outer}" if each.outer else where,
            )
            for each in members
        }
    )


def _write(kind: type, value: Any) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for position, each in enumerate(_members(kind)):
        plain = isinstance(value, tuple)
        found = value[position] if plain else getattr(value, each.field)
        if not (each.omitted and found is None):
            holder = result.setdefault(each.outer, {}) if each.outer else result
            holder[each.name] = each.codec.write(found)
    return result


@cache
def _members(kind: Any) -> tuple[_Member, ...]:
    hints = get_type_hints(kind)
    said: dict[str, Mapping[str, Any]] = {name: {} for name in hints}
    if dataclasses.is_dataclass(kind):
        said = {each.name: each.metadata for each in dataclasses.fields(kind)}
    members = []
    for field, metadata in said.items():
        path = metadata.get("json", _camel(field))
        if path is not None:
            outer, _, name = path.rpartition(".")
            codec = _codec(hints[field])
            members.append(_Member(field, outer, name, codec, metadata.get("omit", False)))
    return tuple(members)


def _camel(field: str) -> str:
    first, *others = field.split("_")
    return first + "".join(map(str.capitalize, others))


@cache
def _codec(kind: Any) -> _Codec:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        inner = _codec(next(each for each in arguments if each is not NoneType))
        return _Codec(
            lambda found, name, where: None if found is None else inner.read(found, name, where),
            lambda value: None if value is None else inner.write(value),
        )
    if origin in (tuple, frozenset):
        return _array(origin, arguments[0])
    if origin is not None:
        return _Codec(lambda found, name, where: _exact(found, dict, name, where), dict)
    is_value = kind in _NAMES or issubclass(kind, bytes | Sha256) or hasattr(kind, "read_member")
    return _value(kind) if is_value else _object(kind)


def _value(kind: Any) -> _Codec:
    if kind is int:
        return _Codec(_count, int)
    if kind is bytes:
        return _Codec(_bytes, lambda value: base64.b64encode(value).decode())
    if issubclass(kind, Sha256):
        return _Codec(lambda found, name, where: _sha256(kind, found, name, where), str)
    if hasattr(kind, "read_member"):
        return _Codec(kind.read_member, kind.to_json)
    return _Codec(lambda found, name, where: _exact(found, kind, name, where), kind)


def _object(kind: Any) -> _Codec:
    # What reads itself does so here as well; most just declare what they are.
    read_at = getattr(kind, "from_json", partial(_read, kind))

    def read_object(found: Any, name: str, where: str) -> Any:
        return read_at(_exact(found, dict, name, where), f"{where}, {name}")

    write_one = getattr(kind, "to_json", partial(_write, kind))
    return _Codec(read_object, write_one, read_at)


def _array(origin: type, kind: Any) -> _Codec:
    inner = _codec(kind)

    def read_array(found: Any, name: str, where: str) -> Any:
        if kind is str:
            return origin(_strings(found, name, where))
        named = [
            (item, f"{name}[{at}]") for at, item in enumerate(_exact(found, list, name, where))
        ]
        if inner.read_at is not None:
            return origin(inner.read_at(item, f"{where}, {each}") for item, each in named)
        return origin(inner.read(item, each, where) for item, each in named)

    def write_array(value: Any) -> list[Any]:
        return [inner.write(each) for each in (sorted(value) if origin is frozenset else value)]

    return _Codec(read_array, write_array)
