"""Identifiers and expressions of SPDX: what is one, and in which spelling."""

from __future__ import annotations

import json
from importlib import resources

import pytest
from cyclonedx.spdx import is_expression
from hypothesis import given
from hypothesis import strategies as st

from nix_seed.sbom.rules.spdx_list import EXCEPTIONS, LICENCES, read_expression

SCHEMA = "spdx.SNAPSHOT.schema.json"


def test_the_list_is_the_one_that_cyclonedx_takes() -> None:
    file = resources.files("cyclonedx.schema._res") / SCHEMA
    assert sorted(json.loads(file.read_text())["enum"]) == sorted([*LICENCES, *EXCEPTIONS])


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("MIT", "MIT"),
        ("mit", "MIT"),
        ("gpl-2.0+", "GPL-2.0+"),
        ("Apache-2.0+", "Apache-2.0+"),
        (" MIT  or(isc)", "MIT OR (ISC)"),
        ("GPL-2.0-only with classpath-exception-2.0", "GPL-2.0-only WITH Classpath-exception-2.0"),
        ("(MIT AND ISC) OR 0BSD", "(MIT AND ISC) OR 0BSD"),
        ("", None),
        ("unfree", None),
        ("MIT AND unfree", None),
        ("MIT ISC", None),
        ("MIT OR", None),
        ("(MIT", None),
        ("MIT)", None),
        ("OR MIT", None),
        ("MIT WITH", None),
        ("MIT WITH ISC", None),
        ("Classpath-exception-2.0", None),
        ("LicenseRef-x", None),
        ("MIT; rm -rf /", None),
        ("<script>", None),
        ("(" * 900 + "MIT", None),
        ("MIT AND " * 400 + "MIT", None),
    ],
)
def test_what_is_an_expression(text: str, expression: str | None) -> None:
    assert read_expression(text) == expression


OLD = [
    "MIT",
    "ISC",
    "0BSD",
    "Apache-2.0",
    "GPL-3.0-or-later",
    "GPL-2.0-only WITH GCC-exception-2.0",
]
TERMS = st.recursive(
    st.sampled_from(OLD),
    lambda inner: st.tuples(inner, st.sampled_from(["AND", "OR"]), inner).map(
        lambda parts: f"({' '.join(parts)})"
    ),
    max_leaves=8,
)


@given(TERMS)
def test_expressions_keep_their_meaning_and_others_take_them(text: str) -> None:
    assert read_expression(text) == text
    assert read_expression(text.lower().replace(" and ", " AND ").replace(" or ", " OR ")) == text
    assert is_expression(text)


@given(st.text(max_size=300))
def test_no_text_is_an_error(text: str) -> None:
    found = read_expression(text)
    assert found is None or read_expression(found) == found
