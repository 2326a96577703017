"""What an error comes to, and what to raise for an end that is no yes."""

from __future__ import annotations

import pytest

from nix_seed.core.errors import (
    CheckedFalse,
    CouldNotCheck,
    InputError,
    NixFailed,
    NixSeedError,
    foreign_error,
)
from nix_seed.core.verdict import Check, Fate, Severity, Trouble


@pytest.mark.parametrize("error", [CouldNotCheck("x"), InputError("x"), NixFailed("x"), OSError()])
def test_only_a_check_that_ended_with_no_is_false(error: Exception) -> None:
    assert Fate.of(CheckedFalse("x")) is Fate.FALSE
    assert Fate.of(error) is Fate.UNCHECKED
    assert (Severity.of(CheckedFalse("x")), Severity.of(error)) == ("alarm", "could not check")


def test_what_a_store_gave_malformed_is_false() -> None:
    found = foreign_error(InputError("x is malformed", hint="h", detail="d"))
    assert (type(found), found.message, found.hint, found.detail) == (
        CheckedFalse,
        "x is malformed",
        "h",
        "d",
    )
    silent = CouldNotCheck("x is silent")
    assert foreign_error(silent) is silent


@pytest.mark.parametrize("kind", [CheckedFalse, CouldNotCheck])
def test_an_end_and_its_error_are_each_others(kind: type[NixSeedError]) -> None:
    fate = Fate.of(kind("x"))
    assert (fate.error, fate.exit_code) == (kind, kind.exit_code)
    assert Check.failed("name", kind("why")) == Check("name", fate, "why")
    assert Trouble.of(kind("why")) == Trouble(fate, "why")


def test_verified_ends_well() -> None:
    assert Fate.VERIFIED.exit_code == 0
