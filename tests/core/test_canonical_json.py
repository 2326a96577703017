from __future__ import annotations

import json
import math
import struct
import sys
import time
from contextlib import suppress
from typing import Any

import pytest
import rfc8785
from hypothesis import given, strategies as st

from nix_seed.core.canonical_json import dumps, loads
from nix_seed.core.errors import InputError

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    # A double from 2^53 on is written without a point, and read as an integer that is refused.
    | st.floats(-(2**53), 2**53, exclude_min=True, exclude_max=True)
    | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=20,
)


@given(VALUES)
def test_what_is_written_is_read_and_written_alike(value: Any) -> None:
    text = dumps(value)
    assert loads(text, label="x") == value
    assert dumps(loads(text, label="x")) == text
    # Order and spelling do not depend on how the value came about.
    loose = json.dumps(value, indent=3, ensure_ascii=True).encode()
    assert dumps(loads(loose, label="x")) == text


@given(VALUES)
def test_the_quick_way_spells_as_the_other(value: Any) -> None:
    assert dumps(value) == rfc8785.dumps(value)


@pytest.mark.parametrize(
    "character", [*map(chr, range(128)), "\x80", "\u2028", "\uffff", "\U0001f600"]
)
def test_each_character_as_a_key_and_a_word(character: str) -> None:
    value = {character: [character * 3, "é"], f"a{character}": character, "a": character}
    for each in (value, {character: "b"}, [f"{character}{character}"]):
        assert dumps(each) == rfc8785.dumps(each)


# RFC 8785, appendix B: the bits of a double, and its one spelling.
NUMBERS = {
    0x0000000000000000: "0",
    0x8000000000000000: "0",
    0x0000000000000001: "5e-324",
    0x7FEFFFFFFFFFFFFF: "1.7976931348623157e+308",
    0x4340000000000000: "9007199254740992",
    0x4430000000000000: "295147905179352830000",
    0x44B52D02C7E14AF5: "9.999999999999997e+22",
    0x44B52D02C7E14AF6: "1e+23",
    0x444B1AE4D6E2EF4E: "999999999999999700000",
    0x444B1AE4D6E2EF50: "1e+21",
    0x3EB0C6F7A0B5ED8C: "9.999999999999997e-7",
    0x3EB0C6F7A0B5ED8D: "0.000001",
    0x41B3DE4355555554: "333333333.33333325",
}


@pytest.mark.parametrize(("bits", "text"), NUMBERS.items(), ids=str)
def test_numbers_are_spelled_as_in_rfc_8785(bits: int, text: str) -> None:
    number = struct.unpack(">d", bits.to_bytes(8, "big"))[0]
    assert dumps(number).decode() == text


def test_the_example_of_rfc_8785() -> None:
    source = rb"""{"numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string":
        "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/", "literals": [null, true, false]}"""
    assert (
        dumps(loads(source, label="x"))
        == (
            '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
            '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
        ).encode()
    )


def test_keys_are_sorted_by_utf_16() -> None:
    value = dict.fromkeys(["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\x80", "\xf6"], 0)
    keys = list(json.loads(dumps(value)))
    assert keys == ["\r", "1", "\x80", "\xf6", "\u20ac", "\U0001f600", "\ufb33"]


@pytest.mark.parametrize(
    "value",
    [2**53, -(2**53), math.nan, math.inf, -math.inf, "\ud800", {"\udfff": 1}, {1: 2}, b"x", {1}],
    ids=repr,
)
def test_what_json_cannot_hold_is_not_written(value: Any) -> None:
    with pytest.raises(InputError, match="this value has no canonical JSON: "):
        dumps(value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b"1 2", "Extra data"),
        (b"[1,]", "x is not valid JSON"),
        (b'{"a":1,"b":2,"a":1}', "key 'a' is given twice"),
        (b'[{"a":{"b":1,"b":1}}]', "key 'b' is given twice"),
        (b'{"a":1,"\\u0061":1}', "key 'a' is given twice"),
        (b"NaN", "NaN is not JSON"),
        (b"[-Infinity]", "-Infinity is not JSON"),
        (b"1e400", "1e400 is too large a number"),
        (b"-1e400", "-1e400 is too large a number"),
        (b'"\\ud800"', "half a surrogate pair"),
        (b'{"\\uDFFF":1}', "half a surrogate pair"),
        (b'["\\ude00\\ud83d"]', "half a surrogate pair"),
        (b'"\xff"', "can't decode byte"),
        (b'"\xed\xa0\x80"', "can't decode byte"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b'"\n"', "Invalid control character"),
        (b"9" * 5000, "4300 digits"),
        (b"01", "Extra data"),
    ],
)
def test_what_is_not_json_is_not_read(text: bytes, why: str) -> None:
    with pytest.raises(InputError, match=r"^x is not valid JSON: ") as caught:
        loads(text, label="x")
    assert why in caught.value.message


def test_a_whole_pair_of_surrogates_is_one_character() -> None:
    assert loads(b'"\\ud83d\\ude00"', label="x") == "\U0001f600"


def test_deep_nesting_has_no_spelling() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InputError, match="nested too deep"):
        dumps(deep)
    while deep:  # or freeing it would be as deep
        deep = deep[0]


@pytest.mark.parametrize(
    ("text", "depth"),
    [
        (b"[" * 500 + b"]" * 500, 500),
        (b"[" * 501 + b"]" * 501, 501),
        (b'{"a":' * 500 + b"1" + b"}" * 500, 500),
        (b"[" + b"[]," * 1000 + b'{"[":"\\"[["}]', 2),
        (b'[{"a":' * 251 + b"1" + b"}]" * 251, 502),
        # A bracket in a string closes nothing.
        (b'["]]",' * 501 + b"1" + b"]" * 501, 501),
        (b'["\\"]",' * 501 + b"1" + b"]" * 501, 501),
    ],
)
def test_how_deep_is_read_is_the_same_in_every_python(text: bytes, depth: int) -> None:
    """Python's own limit is its stack from 3.14 on: one machine would read what another cannot."""
    if depth <= 500:
        assert loads(text, label="x") == json.loads(text)
        return
    with pytest.raises(InputError, match="x is not valid JSON: it is nested too deep"):
        loads(text, label="x")


@pytest.mark.parametrize("text", [b"[", b'{"a":', b'["\\"[",', b"[}", b"]"])
def test_no_text_goes_through_the_stack_however_far_it_may_go(text: bytes) -> None:
    """A library may raise Python's limit for the whole process."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1 << 30)
    try:
        with pytest.raises(InputError, match="x is not valid JSON"):
            loads(text * 1_000_000, label="x")
    finally:
        sys.setrecursionlimit(limit)


def test_a_key_given_twice_among_many_is_found_in_no_time() -> None:
    keys = ",".join(f'"k{i}":0' for i in range(100_000))
    start = time.process_time()
    with pytest.raises(InputError, match="key 'k99999' is given twice"):
        loads(f'{{{keys},"k99999":0}}'.encode(), label="x")
    assert time.process_time() - start < 5


@given(st.binary())
def test_bytes_are_read_or_refused(text: bytes) -> None:
    with suppress(InputError):
        loads(text, label="x")
