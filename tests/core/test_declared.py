"""Documents read from just the object that a dataclass declares, and written as it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest

from nix_seed.core import declared
from nix_seed.core.digests import Digest
from nix_seed.core.errors import InputError

SOME, OTHER = Digest.of(b"some"), Digest.of(b"other")


class Pair(NamedTuple):
    key: str
    number: int


@dataclass(frozen=True)
class Inner:
    raw_bytes: bytes
    digest: Digest | None


@dataclass(frozen=True)
class Document:
    is_whole: bool
    inner: tuple[Inner, ...]
    pairs: tuple[Pair, ...]
    names: tuple[str, ...]
    seen: frozenset[Digest]
    more: Mapping[str, Any]
    root: Digest = field(metadata=declared.at("tree.root"))
    size: int = field(metadata=declared.at("tree.size"))
    spared: str | None = field(default=None, metadata=declared.at(omit=True))

    def __post_init__(self) -> None:
        if not self.size:
            raise InputError("an empty tree")


MADE = Document(
    True,
    (Inner(b"x", SOME), Inner(b"", None)),
    (Pair("k", 7),),
    ("a", "b"),
    frozenset({SOME, OTHER}),
    {"any": [1]},
    OTHER,
    1 << 53,
)
SPELLED: dict[str, Any] = {
    "isWhole": True,
    "inner": [{"rawBytes": "eA==", "digest": str(SOME)}, {"rawBytes": "", "digest": None}],
    "pairs": [{"key": "k", "number": 7}],
    "names": ["a", "b"],
    "seen": sorted([str(SOME), str(OTHER)]),
    "more": {"any": [1]},
    "tree": {"root": str(OTHER), "size": 1 << 53},
}


def test_what_is_declared_is_what_is_written_and_read() -> None:
    assert declared.write(MADE) == SPELLED
    assert declared.read(Document, SPELLED | {"unknown": 1}, "it") == MADE


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"isWhole": 1}, "it: isWhole must be true or false"),
        ({"isWhole": None}, "it: isWhole must be true or false"),
        ({"is_whole": True}, "it: member 'is_whole' must be spelled 'isWhole'"),
        ({"inner": {}}, "it: inner must be an array"),
        ({"inner": [{}]}, "it, inner[0]: rawBytes must be a string"),
        ({"inner": [{"rawBytes": "eB=="}]}, "it, inner[0]: rawBytes is not standard base64"),
        ({"inner": [7]}, "it, inner[0]: an object is wanted, not int"),
        ({"pairs": [["k", 7]]}, "it, pairs[0]: an object is wanted, not list"),
        ({"pairs": [{"key": "k", "number": -1}]}, "it, pairs[0]: number is negative"),
        ({"pairs": [{"key": "k", "number": 7.0}]}, "it, pairs[0]: number must be an integer"),
        ({"pairs": [{"key": "k", "number": True}]}, "it, pairs[0]: number must be an integer"),
        ({"names": ["a", None]}, "it: names must hold strings"),
        ({"seen": ["x"]}, "it: seen[0]: 'x' is not a digest of the form sha256:<64 hex digits>"),
        ({"more": []}, "it: more must be an object"),
        ({"tree": None}, "it: tree must be an object"),
        ({"tree": {"root": str(SOME)}}, "it, tree: size must be an integer"),
        ({"tree": {"root": str(SOME), "size": (1 << 53) + 1}}, "it, tree: size is larger than "),
        ({"tree": {"root": str(SOME), "size": 1, "Root": 1}}, "it, tree: member 'Root' must be "),
        ({"tree": {"root": str(SOME), "size": 0}}, "it: an empty tree"),
        ({"spared": 1}, "it: spared must be a string"),
    ],
)
def test_what_is_not_declared_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        declared.read(Document, SPELLED | change, "it")
    assert caught.value.message.startswith(said)
