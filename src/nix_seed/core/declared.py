"""JSON objects by declaration: types exact, one spelling for each value.

A frozen dataclass, or a named tuple, is read by ``read`` from just the object that it declares, and
``write`` makes that object of it. A member is called as its field in camelCase, or as ``at`` says:
``at("tree.root")`` lies in an inner object, which is absent where all that it may hold is.
``Annotated`` gives a ``Codec`` of its own to a value, or another type that it is spelled as.

Unknown members are passed over, as in-toto and DSSE ask of readers, unless the class says that it
is ``closed``. A member that is a known one in another spelling (``payload_type``, ``PayloadType``)
is refused, because lenient readers take it for the known one, and two readers must never see two
documents in the same bytes.
"""

import dataclasses
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache, lru_cache, partial
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Final,
    Literal,
    NamedTuple,
    Self,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from nix_seed.core import canonical_json
from nix_seed.core.digests import Sha256, exact_base64, to_base64
from nix_seed.core.errors import InputError
from nix_seed.core.words import camel

_T = TypeVar("_T")
_LARGEST = 1 << 53  # what every reader of JSON keeps exact
_NAMES = {
    str: "a string",
    int: "an integer",
    bool: "true or false",
    dict: "an object",
    list: "an array",
}
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_NEVER, _WITH_HOLDER = object(), object()
_GONE: Final[Mapping[str, Any]] = {}


class Codec(NamedTuple):
    """How a value is *read* from (found, name, where), and written."""

    read: Callable[[Any, str, str], Any]
    write: Callable[[Any], Any]
    read_at: Callable[[Any, str], Any] | None = None
    """Of an object: reads it by the place alone."""


def at(
    path: str | None = None,
    *,
    omit: bool = False,
    absent: Any = _NEVER,
    sizes: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Return the metadata of a field that is the member *path*.

    *absent* is what a member means that is not there, or null. With *omit* that is the field's
    default, which is not written either. An array has from ``sizes[0]`` to ``sizes[1]`` items.
    """
    return {"path": path, "omit": omit, "absent": absent, "sizes": sizes}


class Declared:
    """A document, or part of one, by its declaration; *label* and *where* name it in errors."""

    __slots__ = ()
    closed: ClassVar[bool] = False
    loose: ClassVar[bool] = False
    """Whether a known member in another spelling is passed over as any unknown one."""
    otherwise: ClassVar[str] = ""
    """What a text is that is spelled otherwise than ``dump`` would; nothing: it is read as well."""

    @classmethod
    def parse(cls, text: bytes, label: str) -> Self:
        """Read the document's bytes; ``InputError`` names the member that is wrong."""
        found = cls.from_json(canonical_json.loads(text, label=label), label)
        if cls.otherwise and found.dump() != text:
            raise InputError(f"{label} {cls.otherwise}")
        return found

    @classmethod
    def from_json(cls, value: Any, where: str) -> Self:
        """Read what ``to_json`` returns."""
        return read(cls, value, where)

    def to_json(self) -> dict[str, Any]:
        """Return the object as its specification spells it."""
        return write(self)

    def dump(self) -> bytes:
        """Return canonical JSON."""
        return canonical_json.dumps(self.to_json())


def read(kind: type[_T], value: Any, where: str) -> _T:
    """Return the *kind* that *value* spells; ``InputError`` names *where* and the member."""
    try:
        found: _T = _read(kind, value, where)
    except InputError as error:
        raise _placed(error, where) from error
    return found


def write(value: Any) -> dict[str, Any]:
    """Return the object that *value*, of a declared kind, is spelled as."""
    return _write(type(value), value)


def time_text(moment: datetime) -> str:
    """Return *moment*, which is in UTC, as ``check_time`` wants it."""
    return moment.strftime(_TIME)


def check_time(text: str) -> None:
    """Raise ``InputError`` unless *text* is a time like ``2025-01-31T12:00:00Z``."""
    try:
        if datetime.fromisoformat(text).strftime(_TIME) == text:
            return
    except ValueError:
        pass
    raise InputError(f"{text!r} is not a time in UTC such as 2025-01-31T12:00:00Z")


def text_of(parse: Callable[[str], Any], write: Callable[[Any], str] = str) -> Codec:
    """Return how a value is spelled as a text.

    *parse* reads it. It raises ``InputError`` for what is none, or ``ValueError`` with words that
    go after the member's name.
    """

    def read_text(found: Any, name: str, where: str) -> Any:
        text: str = _exact(found, str, name, where)
        try:
            return parse(text)
        except (InputError, ValueError) as error:
            joint = ":" if isinstance(error, InputError) else ""
            raise InputError(f"{where}: {name}{joint} {error}") from error

    return Codec(read_text, write)


def bytes_of(size: int | None = None) -> Codec:
    """Return how bytes are spelled in base64: not empty, and *size* of them if that is given."""

    def parse(text: str) -> bytes:
        raw = _of_base64(text)
        if not raw or (size is not None and len(raw) != size):
            raise ValueError(f"has {len(raw)} bytes, not {size or 'any'}")
        return raw

    return text_of(parse, to_base64)


SomeBytes = Annotated[bytes, bytes_of()]
HexHash = Annotated[bytes, text_of(lambda text: Sha256(text).raw, bytes.hex)]
"""The 32 bytes of a SHA-256, in lower-case hex."""


def _placed(error: InputError, where: str) -> InputError:
    if error.message.startswith(where):
        return error
    return InputError(f"{where}: {error.message}", hint=error.hint)


class _Member(NamedTuple):
    """The member of the object at *path*, by its *name*, that a field is."""

    field: str
    path: tuple[str, ...]
    name: str
    codec: Codec
    absent: Any
    omit: Any
    sizes: tuple[int, int] | None


class _Shape(NamedTuple):
    """The *members* of a kind; *names* are those of each object, outer ones first.

    They are found by how they are folded; *exact* has them as they are spelled.
    """

    members: tuple[_Member, ...]
    names: Mapping[tuple[str, ...], Mapping[str, str]]
    exact: Mapping[tuple[str, ...], frozenset[str]]
    optional: frozenset[tuple[str, ...]]
    closed: bool
    loose: bool


def _read(kind: Any, value: Any, where: str) -> Any:
    shape = _shape(kind)
    holders: dict[tuple[str, ...], Mapping[str, Any]] = {}
    places: dict[tuple[str, ...], str] = {}
    for path, spelled in shape.exact.items():
        found: Any = holders[path[:-1]].get(path[-1]) if path else value
        places[path] = place = f"{where}, {', '.join(path)}" if path else where
        if path and found is None and path in shape.optional:
            holders[path] = _GONE
            continue
        if path:
            _exact(found, dict, path[-1], places[path[:-1]])
        # What spells all of its members exactly needs no second look: nearly every object.
        if type(found) is not dict or not (shape.loose or found.keys() <= spelled):
            _check_names(found, place, shape.names[path], shape)
        holders[path] = found
    values = {}
    for each in shape.members:
        field, path, name, codec, absent, _, sizes = each
        holder = holders[path]
        found = holder.get(name)
        if found is None and absent is not _NEVER:
            if absent is not _WITH_HOLDER:
                values[field] = absent
                continue
            if holder is _GONE:
                values[field] = None
                continue
        if sizes is not None:
            _check_size(found, each, places[path], *sizes)
        values[field] = codec.read(found, name, places[path])
    try:
        return kind(**values)
    except InputError as error:
        raise _placed(error, where) from error


def _check_names(value: Any, where: str, names: Mapping[str, str], shape: _Shape) -> None:
    """Raise unless *value* is an object that spells the members it has of *names* exactly so."""
    if not isinstance(value, dict):
        raise InputError(f"{where}: an object is wanted, not {type(value).__name__}")
    for name in () if shape.loose else value:
        right = names.get(_fold(name))
        if right != name and shape.closed:
            raise InputError(f"{where}: there is no member {name[:80]!r}")
        if right not in (None, name):
            raise InputError(f"{where}: member {name!r} must be spelled {right!r}")


@lru_cache(1024)
def _fold(name: str) -> str:
    return name.replace("_", "").replace("-", "").casefold()


def _check_size(found: Any, each: _Member, where: str, least: int, most: int) -> None:
    number = len(_exact(found, list, each.name, where))
    if number > most and not least:
        raise InputError(f"{where}, {each.name}: {number} of them; at most {most} are read")
    if not least <= number <= most:
        raise InputError(f"{where}: {number} {each.field}; from {least} to {most} are read")


def _write(kind: type, value: Any) -> dict[str, Any]:
    shape, result = _shape(kind), dict[str, Any]()
    for position, each in enumerate(shape.members):
        found = value[position] if isinstance(value, tuple) else getattr(value, each.field)
        if each.omit is not _NEVER and found == each.omit:
            continue
        holder = result
        for name in each.path[:-1]:
            holder = holder.setdefault(name, {})
        if each.path and found is None and each.path in shape.optional:
            holder.setdefault(each.path[-1], None)
        elif each.path:
            holder[each.path[-1]] = holder.get(each.path[-1]) or {}
            holder[each.path[-1]][each.name] = each.codec.write(found)
        else:
            holder[each.name] = each.codec.write(found)
    return result


@cache
def _shape(kind: Any) -> _Shape:
    hints = get_type_hints(kind, include_extras=True)
    said = {field: at() for field in hints}
    if dataclasses.is_dataclass(kind):
        said = {e.name: at() | e.metadata | _default(e) for e in dataclasses.fields(kind) if e.init}
    members = []
    for field, how in said.items():
        *path, name = (how["path"] or camel(field)).split(".")
        codec, omit = codec_of(hints[field]), how["default"] if how["omit"] else _NEVER
        absent = omit if how["omit"] else how["absent"]
        if path and _is_optional(hints[field]):
            codec, absent = codec_of(_inner(hints[field])), _WITH_HOLDER
        members.append(_Member(field, tuple(path), name, codec, absent, omit, how["sizes"]))
    known: dict[tuple[str, ...], dict[str, str]] = {(): {}}
    for each in members:
        whole = (*each.path, each.name)
        for end in range(len(whole)):
            known.setdefault(whole[:end], {})[_fold(whole[end])] = whole[end]
    needed = {each.path for each in members if each.absent is _NEVER}
    optional = {path for path in known if path and not any(n[: len(path)] == path for n in needed)}
    closed, loose = getattr(kind, "closed", False), getattr(kind, "loose", False)
    exact = {path: frozenset(names.values()) for path, names in known.items()}
    return _Shape(tuple(members), known, exact, frozenset(optional), closed, loose)


def _default(field: dataclasses.Field[Any]) -> dict[str, Any]:
    made = field.default_factory
    return {"default": field.default if made is dataclasses.MISSING else made()}


def _is_optional(kind: Any) -> bool:
    return get_origin(kind) in (Union, UnionType)


def _inner(kind: Any) -> Any:
    return next(each for each in get_args(kind) if each is not NoneType)


@cache
def codec_of(kind: Any) -> Codec:
    """Return how a value of the type *kind* is read and written."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return arguments[1] if isinstance(arguments[1], Codec) else codec_of(arguments[1])
    if _is_optional(kind):
        inner = codec_of(_inner(kind))
        return Codec(
            lambda found, name, where: None if found is None else inner.read(found, name, where),
            lambda value: None if value is None else inner.write(value),
        )
    if origin is Literal:
        return Codec(partial(_one_of, arguments), str)
    if origin in (tuple, frozenset):
        return _array(origin, arguments[0])
    if origin is not None:
        return _mapping(arguments[1])
    return _VALUES[kind] if kind in _VALUES else _plain(kind)


def _plain(kind: Any) -> Codec:
    if hasattr(kind, "read_member"):
        return Codec(kind.read_member, kind.to_json)
    if hasattr(kind, "parse") and not issubclass(kind, Declared):
        return text_of(partial(_in_one_spelling, kind))
    if kind in _NAMES:
        return Codec(lambda found, name, where: _exact(found, kind, name, where), kind)
    # What reads itself does so here as well; most just declare what they are.
    read_at = getattr(kind, "from_json", partial(_read, kind))

    def read_object(found: Any, name: str, where: str) -> Any:
        return read_at(_exact(found, dict, name, where), f"{where}, {name}")

    write_one = getattr(kind, "to_json", partial(_write, kind))
    return Codec(read_object, write_one, read_at)


def _array(origin: type, kind: Any) -> Codec:
    inner = codec_of(kind)

    def read_array(found: Any, name: str, where: str) -> Any:
        if kind is str:
            return origin(_strings(found, name, where))
        items = enumerate(_exact(found, list, name, where))
        if (read_at := inner.read_at) is not None:
            return origin([read_at(item, f"{where}, {name}[{n}]") for n, item in items])
        return origin([inner.read(item, f"{name}[{n}]", where) for n, item in items])

    def write_array(value: Any) -> list[Any]:
        return [inner.write(each) for each in (sorted(value) if origin is frozenset else value)]

    return Codec(read_array, write_array)


def _mapping(kind: Any) -> Codec:
    inner = codec_of(kind)

    def read_mapping(found: Any, name: str, where: str) -> dict[str, Any]:
        items = _exact(found, dict, name, where).items()
        return {key: inner.read(value, key, f"{where}, {name}") for key, value in items}

    return Codec(read_mapping, lambda value: {key: inner.write(value[key]) for key in value})


def _exact(found: Any, kind: type, name: str, where: str) -> Any:
    if type(found) is not kind:
        raise InputError(f"{where}: {name} must be {_NAMES[kind]}")
    return found


def _one_of(allowed: tuple[str, ...], found: Any, name: str, where: str) -> str:
    text: str = _exact(found, str, name, where)
    if text not in allowed:
        known = " or ".join(allowed)
        raise InputError(f"{where}: {name} is {text[:80]!r}; it must be {known}")
    return text


def _of_base64(text: str) -> bytes:
    try:
        return exact_base64(text)
    except ValueError as error:
        raise ValueError("is not standard base64") from error


def _of_iso(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError("is none") from error


def _in_one_spelling(kind: Any, text: str) -> Any:
    read = kind.parse(text)
    if str(read) != text:
        raise ValueError(f"must be spelled {read}")
    return read


def _strings(items: Any, name: str, where: str) -> tuple[str, ...]:
    found = _exact(items, list, name, where)
    if not all(isinstance(text, str) for text in found):
        raise InputError(f"{where}: {name} must hold strings")
    return tuple(found)


def _number(found: Any, name: str, where: str) -> float:
    return found if isinstance(found, float) else float(_exact(found, int, name, where))


def _count(value: Any, name: str, where: str) -> int:
    """Read an integer that is not negative, nor larger than JSON keeps exact."""
    found: int = _exact(value, int, name, where)
    if found < 0:
        raise InputError(f"{where}: {name} is negative")
    if found > _LARGEST:
        raise InputError(f"{where}: {name} is larger than 2^53")
    return found


_VALUES: Final[Mapping[Any, Codec]] = {
    Any: Codec(lambda *found: found[0], lambda value: value),
    int: Codec(_count, int),
    float: Codec(_number, float),
    Path: text_of(Path),
    bytes: text_of(_of_base64, to_base64),
    datetime: text_of(_of_iso, datetime.isoformat),
}
