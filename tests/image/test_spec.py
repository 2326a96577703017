from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from nix_seed.core import canonical_json
from nix_seed.core.digests import NarHash
from nix_seed.core.errors import InputError
from nix_seed.core.version import FORMAT
from nix_seed.image.rules.spec import Spec
from nix_seed.licences.rules.judge import UnknownLicence
from support.distribution import nix_env
from support.programs import need, run
from support.specs import tiny_spec

SPEC = tiny_spec()
TEXT = SPEC.dump()
VALUE: dict[str, Any] = json.loads(TEXT)


def leaves(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Name every member below *value* by the keys that lead to it."""
    if not isinstance(value, dict | list):
        return [at]
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return [at, *(leaf for key, inner in items for leaf in leaves(inner, (*at, key)))]


MEMBERS = leaves(VALUE)[1:]
GCC = next(path for path in VALUE["paths"] if "gcc" in path)


def changed(at: tuple[Any, ...], new: Any) -> bytes:
    """The spec with one member replaced, or taken away (``...``)."""
    value = json.loads(TEXT)
    inner = value
    for key in at[:-1]:
        inner = inner[key]
    if new is ...:
        del inner[at[-1]]
    else:
        inner[at[-1]] = new
    return canonical_json.dumps(value)


def test_what_is_written_is_read() -> None:
    assert Spec.parse(TEXT, "x") == SPEC
    assert Spec.parse(TEXT, "x").dump() == TEXT


def test_any_user_is_written_only_where_it_is_true() -> None:
    assert b"anyUser" not in TEXT
    shared = dataclasses.replace(SPEC, any_user=True)
    assert json.loads(shared.dump()) == VALUE | {"anyUser": True}
    assert Spec.parse(shared.dump(), "x") == shared
    with pytest.raises(InputError, match="not in canonical form"):
        Spec.parse(canonical_json.dumps(VALUE | {"anyUser": False}), "x")


def test_unknown_licences_are_written_only_where_there_are_any() -> None:
    """The bytes, and so the digest, of an image that has none say nothing of them."""
    assert b"unknown" not in TEXT
    first, second = sorted(SPEC.paths)[:2]
    items = (UnknownLicence(first), UnknownLicence(second, "Homegrown"))
    spec = dataclasses.replace(SPEC, unknown=items)
    assert json.loads(spec.dump()) == VALUE | {
        "unknown": [{"path": str(first)}, {"path": str(second), "licence": "Homegrown"}]
    }
    assert Spec.parse(spec.dump(), "x") == spec
    assert spec.nar_hash != SPEC.nar_hash


FIRST, SECOND = ({"path": path} for path in sorted(VALUE["paths"])[:2])


@pytest.mark.parametrize(
    ("unknown", "why"),
    [
        ([], "x is not in canonical form"),
        ([FIRST | {"licence": ""}], "x is not in canonical form"),
        ([FIRST | {"more": 1}], "x is not in canonical form"),
        ([SECOND, FIRST], "is not in it, or not in order"),
        ([FIRST, FIRST], "is not in it, or not in order"),
        ([{"path": VALUE["withheld"][0]["path"]}], "is not in it, or not in order"),
        ([{}], "x, unknown[0]: path must be a string"),
        (None, "x is not in canonical form"),
    ],
)
def test_a_wrong_list_of_unknown_licences(unknown: Any, why: str) -> None:
    with pytest.raises(InputError) as caught:
        Spec.parse(changed(("unknown",), unknown), "x")
    assert why in caught.value.message


def test_the_document_does_not_depend_on_the_order_of_mappings() -> None:
    backwards = dataclasses.replace(
        SPEC,
        paths=dict(reversed(list(SPEC.paths.items()))),
        inputs=dict(reversed(list(SPEC.inputs.items()))),
    )
    assert backwards.dump() == TEXT


def test_the_nar_hash_is_what_nix_takes_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "seed.json").write_bytes(TEXT)
    told = run(need("nix"), "hash", "path", tmp_path / "seed.json", env=nix_env())
    assert NarHash.parse(told.decode().strip()) == SPEC.nar_hash


def other(value: Any) -> Any:
    """A value of the same kind, but not the same."""
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case str():
            return value + "0"
        case list():
            return value[:-1]
        case dict():
            return {key: value[key] for key in list(value)[1:]}
    return "0"


@pytest.mark.parametrize("at", MEMBERS, ids=lambda at: ".".join(map(str, at)))
def test_any_other_member_is_another_seed_or_none(at: tuple[Any, ...]) -> None:
    inner: Any = VALUE
    for key in at:
        inner = inner[key]
    replacements: list[Any] = [other(inner), ..., None, [], "x", -1]
    for new in replacements:
        if new == inner and type(new) is type(inner):
            continue
        text = changed(at, new)
        try:
            spec = Spec.parse(text, "x")
        except InputError:
            continue
        assert spec != SPEC
        assert spec.nar_hash != SPEC.nar_hash
        assert spec.dump() == text


@pytest.mark.parametrize("at", [at for at in MEMBERS if len(at) == 1], ids=str)
def test_every_member_is_needed(at: tuple[Any, ...]) -> None:
    with pytest.raises(InputError):
        Spec.parse(changed(at, ...), "x")


@pytest.mark.parametrize(
    "text",
    [
        TEXT + b"\n",
        b" " + TEXT,
        json.dumps(VALUE).encode(),
        json.dumps(VALUE, separators=(",", ":")).encode() + b" ",
        TEXT.replace(b'"tiny"', b'"\\u0074iny"'),
        TEXT.replace(b'"narSize":3000', b'"narSize":3000.0'),
        TEXT.replace(b'"narSize":3000', b'"narSize":3e3'),
        TEXT.replace(str(NarHash.of(b"bash-5.2")).encode(), NarHash.of(b"bash-5.2").nix32.encode()),
        changed(("config", "cmd"), []),  # a default is left out
    ],
)
def test_only_the_canonical_spelling_is_read(text: bytes) -> None:
    assert text != TEXT
    with pytest.raises(
        InputError,
        match=r"x is not in canonical form|narSize must be an integer|narHash must be spelled",
    ):
        Spec.parse(text, "x")


@pytest.mark.parametrize("number", [0, FORMAT + 1, "1", None, 1.5])
def test_another_format_is_named(number: Any) -> None:
    with pytest.raises(
        InputError, match=rf"x is of format .*; this release reads formats 1 to {FORMAT}"
    ):
        Spec.parse(changed(("format",), number), "x")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"[]", "x: an object is wanted, not list"),
        (b"{", "x is not valid JSON"),
        (changed(("format",), True), "x: format must be an integer"),
        (changed(("kind",), "both"), "x: kind is 'both'; it must be seed or run"),
        (changed(("more",), 1), "x: there is no member 'more'"),
        (changed(("layers", 0, "paths"), []), "each of its paths exactly once"),
        (changed(("layers",), VALUE["layers"][:1]), "each of its paths exactly once"),
        (changed(("layers",), VALUE["layers"] * 2), "each of its paths exactly once"),
        (changed(("paths",), {}), "each of its paths exactly once"),
        (changed(("layers", 1, "tier"), "apps"), "of a tier that is not listed"),
        (changed(("tiers",), []), "of a tier that is not listed"),
        (
            changed(("layers", 0, "paths"), VALUE["layers"][0]["paths"][::-1]),
            "paths of a layer are not in order",
        ),
        (changed(("paths", GCC, "narSize"), -1), "narSize is negative"),
        (
            changed(("paths", GCC, "references"), [GCC.replace("gcc", "absent")]),
            "which is not in it",
        ),
        (changed(("compressor",), {}), "x, compressor: name must be a string"),
        (changed(("compressor", "level"), 99), "zstd level 99 is not from 1 to 19"),
        (changed(("files", 1, "path"), "bin/x"), "bin/x cannot be in the image: bin is a link"),
        (changed(("files", 1, "path"), "../x"), "'../x' cannot be a file of an image"),
    ],
)
def test_what_is_wrong_is_named(text: bytes, why: str) -> None:
    with pytest.raises(InputError) as caught:
        Spec.parse(text, "x")
    assert why in caught.value.message


@given(st.integers(0, len(TEXT) - 1), st.integers(1, 255))
def test_no_byte_can_change_unnoticed(at: int, by: int) -> None:
    text = TEXT[:at] + bytes([TEXT[at] ^ by]) + TEXT[at + 1 :]
    try:
        spec = Spec.parse(text, "x")
    except InputError:
        return
    assert spec.dump() == text
    assert spec.nar_hash != SPEC.nar_hash
