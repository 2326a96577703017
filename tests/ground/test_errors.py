from __future__ import annotations

import pytest

from nix_seed.cli.say import error_lines
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError, NixFailed, NixSeedError

CODES = {CheckedFalse: 1, InputError: 2, CouldNotCheck: 3, NixFailed: 4}


@pytest.mark.parametrize(("kind", "code"), CODES.items(), ids=str)
def test_every_class_has_its_own_exit_code(kind: type[NixSeedError], code: int) -> None:
    assert kind("x").exit_code == code


def test_no_class_is_without_a_code_of_its_own() -> None:
    assert set(NixSeedError.__subclasses__()) >= set(CODES)
    todo = list(NixSeedError.__subclasses__())
    while todo:
        kind = todo.pop()
        assert kind.exit_code in CODES.values()
        todo += kind.__subclasses__()


def test_an_error_of_no_known_kind_proves_nothing() -> None:
    assert NixSeedError("x").exit_code == CouldNotCheck.exit_code


def test_the_report_is_one_line_then_foreign_words_then_the_hint() -> None:
    error = NixFailed("building: nix failed", detail="error: a\n  at b", hint="do c")
    assert list(error_lines(error)) == [
        "error: building: nix failed",
        "  | error: a",
        "  |   at b",
        "hint: do c",
    ]
    assert list(error_lines(InputError("short"))) == ["error: short"]
    assert str(error) == error.message
