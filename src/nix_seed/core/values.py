"""Frozen, slotted values: what ``dataclasses.dataclass`` makes, in less time.

The standard library compiles six methods for each class, which was up to a quarter of what it took
to load a command. Here only the constructor is compiled; the rest is made of closures.
"""

from dataclasses import MISSING, FrozenInstanceError, fields
from operator import attrgetter, ge, gt, le, lt
from typing import TYPE_CHECKING, Any, Final

__all__ = ["dataclass"]

if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    from dataclasses import dataclass as _standard

    def dataclass(cls=None, /, **how):
        """As the standard library's; what is not frozen and slotted is left to that."""
        if cls is None:
            return lambda cls: dataclass(cls, **how)
        rest = {name: asked for name, asked in how.items() if name != "order"}
        if rest != {"frozen": True, "slots": True}:
            return _standard(cls, **how)
        documented = cls.__doc__
        cls.__doc__ = documented or cls.__name__  # else the standard library makes one up
        # Python itself notes None for a class that has an equality and no hash of its own.
        written = {name for name, value in vars(cls).items() if value is not None}
        made = _standard(cls, init=False, repr=False, eq=False, slots=True)
        made.__doc__ = documented
        for name, method in _methods(made, order=how.get("order", False)).items():
            if name not in written:
                setattr(made, name, method)
        return made


_UNSET: Final = object()
_ORDER: Final = {"__lt__": lt, "__le__": le, "__gt__": gt, "__ge__": ge}


def _methods(cls: type, *, order: bool) -> dict[str, Any]:
    every = fields(cls)
    names = tuple(each.name for each in every)
    values = _getter(names)
    compared = _getter(tuple(each.name for each in every if each.compare))
    hashed = _getter(tuple(f.name for f in every if (f.compare if f.hash is None else f.hash)))
    shown = tuple(each.name for each in every if each.repr)

    def __eq__(self: Any, other: Any) -> Any:
        if other.__class__ is self.__class__:
            return compared(self) == compared(other)
        return NotImplemented

    def __hash__(self: Any) -> int:
        return hash(hashed(self))

    def __repr__(self: Any) -> str:
        text = ", ".join([f"{name}={getattr(self, name)!r}" for name in shown])
        return f"{self.__class__.__qualname__}({text})"

    def __getstate__(self: Any) -> Any:
        return values(self)

    def __setstate__(self: Any, state: tuple[Any, ...]) -> None:
        for name, value in zip(names, state, strict=True):
            object.__setattr__(self, name, value)

    methods = {
        "__init__": _constructor(cls),
        "__eq__": __eq__,
        "__hash__": __hash__,
        "__repr__": __repr__,
        "__getstate__": __getstate__,
        "__setstate__": __setstate__,
        "__setattr__": _refuse_setting,
        "__delattr__": _refuse_deleting,
    }
    return methods | ({n: _comparison(compared, o) for n, o in _ORDER.items()} if order else {})


def _getter(names: tuple[str, ...]) -> Any:
    """Return what gives the attributes *names* of a value, as a tuple."""
    if len(names) > 1:
        return attrgetter(*names)
    return (lambda value: (getattr(value, names[0]),)) if names else lambda _value: ()


def _comparison(compared: Any, holds: Any) -> Any:
    def compare(self: Any, other: Any) -> Any:
        if other.__class__ is self.__class__:
            return holds(compared(self), compared(other))
        return NotImplemented

    return compare


def _constructor(cls: type) -> Any:
    known: dict[str, Any] = {"_set": object.__setattr__, "_unset": _UNSET}
    taken, lines = [], []
    for each in fields(cls):
        name = value = each.name
        if each.default_factory is not MISSING:
            known[f"_of_{name}"] = each.default_factory
            value = (
                f"_of_{name}() if {name} is _unset else {name}" if each.init else f"_of_{name}()"
            )
            default = "=_unset"
        elif each.default is not MISSING:
            known[f"_of_{name}"] = each.default
            value = name if each.init else f"_of_{name}"
            default = f"=_of_{name}"
        else:
            default = ""
        if each.init:
            taken.append(name + default)
        lines.append(f"  _set(self, {name!r}, {value})\n")
    if hasattr(cls, "__post_init__"):
        lines.append("  self.__post_init__()\n")
    parameters = ", ".join(["self", *taken])
    exec(f"def __init__({parameters}):\n{''.join(lines) or '  pass'}", known)
    return known["__init__"]


def _refuse_setting(_self: object, name: str, _value: object) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_deleting(_self: object, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")
