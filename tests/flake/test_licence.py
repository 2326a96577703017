from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from nix_seed.flake.rules.licence import (
    Licence,
    LicencePolicy,
    combine,
    evaluate_expression,
    is_licence,
    join,
    read_facts,
    read_licence,
)

FREE = {"spdxId": "MIT", "free": True}
UNFREE = {"shortName": "unfree", "free": False}
FIRMWARE = {"shortName": "unfreeRedistributable", "free": False, "redistributable": True}
ODD = {"fullName": "Homegrown"}


@pytest.mark.parametrize(
    ("entries", "name", "status"),
    [
        ([FREE], "MIT", "redistributable"),
        ([UNFREE], "unfree", "withheld"),
        ([FIRMWARE], "unfreeRedistributable", "redistributable"),
        ([ODD], "Homegrown", "unknown"),
        # A set that forbids passing on is believed, however free it calls itself.
        ([{**FREE, "redistributable": False}], "MIT", "withheld"),
        ([FREE, UNFREE], "MIT AND unfree", "withheld"),
        ([FREE, ODD], "MIT AND Homegrown", "unknown"),
        ([ODD, UNFREE], "Homegrown AND unfree", "withheld"),
        ([FREE, {"spdxId": "ISC OR MIT"}], "MIT AND (ISC OR MIT)", "redistributable"),
        ([{"text": "Apache-2.0"}], "Apache-2.0", "redistributable"),
        ([{"text": "proprietary"}], "proprietary", "withheld"),
        ([{"text": "\x1b[31mMIT\nand more"}], "\ufffd[31mMIT and more", "unknown"),
        ([{"malformed": "int"}], "malformed (int)", "unknown"),
        ([{}], "malformed (a set without a name)", "unknown"),
        ([7], "malformed (?)", "unknown"),
        ([], "", "unknown"),
        (None, "", "unknown"),
        ("MIT", "", "unknown"),
    ],
)
def test_read_licence(entries: Any, name: str, status: Any) -> None:
    assert read_licence(entries) == Licence(name, status)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("MIT", "redistributable"),
        ("mit", "redistributable"),
        ("GPL-2.0-or-later", "redistributable"),
        ("GPL-2.0+", "redistributable"),
        ("GPL-2.0-only WITH Classpath-exception-2.0", "redistributable"),
        ("MIT OR LicenseRef-secret", "redistributable"),
        ("MIT AND LicenseRef-secret", "unknown"),
        ("(MIT OR X) AND (ISC OR Y)", "redistributable"),
        ("MIT OR X AND Y", "redistributable"),
        ("(MIT OR X) AND Y", "unknown"),
        ("GPL-9.0-only", "unknown"),
        ("LicenseRef-MIT", "unknown"),
        ("", "unknown"),
        ("MIT MIT", "unknown"),
        ("(MIT", "unknown"),
        ("MIT OR", "unknown"),
        ("MIT OR (OR ISC)", "unknown"),
        ("( )", "unknown"),
        ("MIT WITH", "unknown"),
        (")", "unknown"),
        ("(" * 100_000, "unknown"),
        ("see the file COPYING", "unknown"),
    ],
)
def test_expressions(text: str, status: str) -> None:
    assert evaluate_expression(text) == status


@pytest.mark.parametrize(
    ("texts", "together"),
    [
        (["MIT"], "MIT"),
        (["MIT", "Apache-2.0 AND MIT", "MIT"], "Apache-2.0 AND MIT"),
        (["MIT OR ISC", "Zlib"], "(MIT OR ISC) AND Zlib"),
        (["(MIT OR ISC) AND Zlib", "(MIT OR ISC)"], "(MIT OR ISC) AND Zlib"),
        (["GPL-2.0-only WITH Classpath-exception-2.0", "MIT"],) * 2,
        (["MIT", "no such licence"], ""),
        (["MIT", "accepted by the recipe"], ""),
        (["MIT", ""], ""),
        ([], ""),
    ],
)
def test_all_together(texts: list[str], together: str) -> None:
    wanted = together if isinstance(together, str) else " AND ".join(together)
    assert combine(texts) == wanted
    assert combine([wanted]) == wanted


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_nothing_that_meta_says_is_an_error(value: Any) -> None:
    assert read_licence(value).status in ("redistributable", "withheld", "unknown")
    read_facts(value)
    read_facts([{"drv": "/nix/store/x.drv", "licences": value, "homepage": value}])


@given(st.text(alphabet="MIT()ANDORWH -.2+x"))
def test_no_expression_is_an_error(text: str) -> None:
    assert evaluate_expression(text) in ("redistributable", "unknown")


def test_what_is_made_of_several_works() -> None:
    mit, gpl = Licence("MIT", "redistributable"), Licence("GPL-3.0-only", "redistributable")
    secret, odd = Licence("unfree", "withheld"), Licence("", "unknown")
    assert join([mit, gpl, mit]) == Licence("GPL-3.0-only AND MIT", "redistributable")
    assert join([mit, secret, odd]) == secret
    assert join([mit, odd]) == odd
    assert join([]) == Licence("", "unknown")


def test_the_recipe_has_the_last_word() -> None:
    odd, secret, mit = (Licence(n, s) for n, s in _THREE)  # type: ignore[arg-type]
    policy = LicencePolicy(accept=("Homegrown", "tool"), withhold=("MIT", "both"))
    assert policy.apply(odd) == Licence("Homegrown", "redistributable")
    assert policy.apply(secret, "tool-1.0", "tool") == Licence("unfree", "redistributable")
    assert policy.apply(secret, "other") == secret
    assert policy.apply(mit) == Licence("MIT", "withheld")
    # Named in both lists, it stays here.
    assert LicencePolicy(("both",), ("both",)).apply(mit, "both").status == "withheld"
    assert policy.apply(Licence("", "unknown"), "tool").name == "accepted by the recipe"


_THREE = (("Homegrown", "unknown"), ("unfree", "withheld"), ("MIT", "redistributable"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("MIT", True),
        ("seed licence", True),
        ("see the seed licence", False),
        ("", False),
        ("see LICENSE", False),
        ("MIT AND see COPYING", False),
        ("malformed (int)", False),
        ("MIT AND (malformed (a set without a name) OR x)", False),
        ("withheld by the recipe", False),
        ("accepted by the recipe", False),
    ],
)
def test_what_is_a_licence_and_what_a_remark(name: str, expected: bool) -> None:
    assert is_licence(name) is expected
