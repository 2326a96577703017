"""Identifiers and expressions of SPDX: what is one, and in which spelling."""

from __future__ import annotations

import json
from importlib import resources

import pytest
from cyclonedx.spdx import is_expression
from hypothesis import given, strategies as st

from nix_seed.sbom.rules.spdx import read_expression, spdx_list

SCHEMA = "spdx.SNAPSHOT.schema.json"


# Newer than the list that the library ships (3.27): names here, until it is newer itself.
NEWER = """
    ALGLIB-Documentation Advanced-Cryptics-Dictionary BOLA-1.1 BSD-3-Clause-Tso
    BSD-Mark-Modifications Buddy CAPEC-tou ESA-PL-permissive-2.4 ESA-PL-strong-copyleft-2.4
    ESA-PL-weak-copyleft-2.4 HPND-SMC HPND-sell-variant-critical-systems ISO-permission MIT-STK
    MMPL-1.0.1 NIST-PD-TNT OSC-1.0 OSSP OpenMDW-1.0 ParaType-Free-Font-1.3 SGMLUG-PM TekHVC UnRAR
    Vixie-Cron WTFNMFPL WordNet X11-no-permit-persons hyphen-bulgarian
    Classpath-exception-2.0-short Simple-Library-Usage-exception kvirc-openssl-exception
    rsync-linking-exception sqlitestudio-OpenSSL-exception GPL-2.0-with-bison-exception
"""
# Written with a plus, as SPDX allows of any licence; CycloneDX takes them as expressions.
PLUS = {"AGPL-1.0+", "AGPL-3.0+", "GFDL-1.1+", "GFDL-1.2+", "GFDL-1.3+"}


def test_the_list_is_the_one_that_cyclonedx_takes_but_for_its_newest() -> None:
    file = resources.files("cyclonedx.schema._res") / SCHEMA
    known = set(json.loads(file.read_text())["enum"])
    licences, exceptions = spdx_list()
    assert known - {*licences.values(), *exceptions.values()} == set(NEWER.split())
    assert {*licences.values(), *exceptions.values()} - known == PLUS
    assert not set(licences) & set(exceptions)


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
        ("MIT OR (OR ISC)", None),
        ("( )", None),
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
