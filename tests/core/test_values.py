"""A value of ours is the value that the standard library would have made."""

import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, asdict, dataclass as standard, field, fields, replace
from typing import Any, ClassVar

import pytest

from nix_seed.core.values import dataclass


def _kinds(make: Callable[..., Any]) -> tuple[Any, ...]:
    @make(frozen=True, slots=True, order=True)
    class Base:
        """Documented."""

        number: int
        text: str = "x"
        closed: ClassVar = True
        parts: tuple[int, ...] = field(default_factory=tuple)
        unseen: int | None = field(default=None, init=False, compare=False, repr=False)

        def __post_init__(self) -> None:
            if self.number < 0:
                raise ValueError("negative")
            object.__setattr__(self, "unseen", self.number * 2)

    @make(frozen=True, slots=True)
    class Derived(Base):
        last: int = 3

    @make(frozen=True, slots=True)
    class Empty:
        pass

    @make(frozen=True, slots=True)
    class One:  # noqa: PLW1641
        only: object

        def __eq__(self, other: object) -> bool:
            return other == "one"

    return Base, Derived, Empty, One


@dataclass(frozen=True, slots=True)
class Pickled:
    """At the top of a module, where pickle finds it."""

    one: int
    two: tuple[str, ...] = ()


def _seen(kinds: tuple[Any, ...]) -> list[object]:
    base, derived, empty, one = kinds
    value = base(1, parts=(2,))
    return [
        repr(value).replace(base.__qualname__, ""),
        value == base(1, "x", (2,)),
        value == base(2),
        value == derived(1, parts=(2,)),
        value != (1, "x", (2,)),
        hash(value) == hash(base(1, "x", (2,))),
        sorted([base(2), base(1, "y"), base(1)]) == [base(1), base(1, "y"), base(2)],
        base(1) <= base(1),
        base(1).__lt__(derived(1)),
        repr(replace(value, text="q")).replace(base.__qualname__, ""),
        asdict(derived(1)),
        [(each.name, each.type, each.default) for each in fields(derived)],
        (base.__match_args__, base.__slots__, derived.__slots__, base.__doc__),
        (empty() == empty(), hash(empty()) == hash(empty()), value.unseen, base.closed),
        (one(1) == "one", one(1) == one(1), hash(one(1)) == hash(one(1))),
    ]


def test_values_are_those_of_the_standard_library() -> None:
    assert _seen(_kinds(dataclass)) == _seen(_kinds(standard))


@pytest.mark.parametrize("make", [dataclass, standard])
def test_values_do_not_change(make: Callable[..., Any]) -> None:
    base, *_ = _kinds(make)
    value = base(1)
    with pytest.raises(FrozenInstanceError, match="number"):
        value.number = 2
    with pytest.raises(FrozenInstanceError, match="text"):
        del value.text
    with pytest.raises(ValueError, match="negative"):
        base(-1)
    with pytest.raises(TypeError, match="number"):
        base()
    assert not hasattr(value, "__dict__")


def test_values_travel_between_processes() -> None:
    value = Pickled(1, ("a",))
    assert pickle.loads(pickle.dumps(value)) == value


def test_what_is_not_frozen_is_left_to_the_standard_library() -> None:
    @dataclass(slots=True)
    class Open:
        one: int

    value = Open(1)
    value.one = 2
    assert value == Open(2)
    assert repr(value).endswith("Open(one=2)")
