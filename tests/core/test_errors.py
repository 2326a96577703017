from __future__ import annotations

import errno
import os
import struct

import pytest

from nix_seed.cli.say import error_lines
from nix_seed.core.errors import (
    CheckedFalse,
    CouldNotCheck,
    InputError,
    NixFailed,
    NixSeedError,
    foreign,
)

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


def test_what_is_foreign_is_raised_as_ours() -> None:
    words = r"^the count: invalid literal for int.*'x'$"
    mapping = foreign("the count", ValueError, as_=InputError, hint="write digits")
    with pytest.raises(InputError, match=words) as raised, mapping:
        int("x")
    assert raised.value.hint == "write digits"
    assert isinstance(raised.value.__cause__, ValueError)


@pytest.mark.parametrize("error", [KeyError("k"), RecursionError("deep"), struct.error("short")])
def test_without_kinds_every_error_is_foreign(error: Exception) -> None:
    with pytest.raises(CouldNotCheck, match=r"^asking: "), foreign("asking"):
        raise error


@pytest.mark.parametrize("error", [InputError("ours"), MemoryError(), KeyboardInterrupt()])
def test_our_own_errors_and_an_end_of_memory_pass(error: BaseException) -> None:
    with pytest.raises(type(error)) as raised, foreign("asking", as_=CheckedFalse):
        raise error
    assert raised.value is error


def test_only_the_kinds_that_are_named_are_mapped() -> None:
    with pytest.raises(TypeError), foreign("asking", OSError, ValueError):
        raise TypeError


def test_a_librarys_words_stay_one_line_and_short() -> None:
    with pytest.raises(CouldNotCheck) as raised, foreign("reading"):
        raise ValueError("::error::a\nb\x1b[31m" + "x" * 9000)
    assert "\n" not in raised.value.message
    assert "\x1b" not in raised.value.message
    assert len(raised.value.message) < 600
    with pytest.raises(CouldNotCheck, match=r"^reading$"), foreign("reading", quoted=False):
        raise ValueError("secret")
    with pytest.raises(CouldNotCheck, match=r"^reading: AssertionError$"), foreign("reading"):
        raise AssertionError


def test_a_full_disk_is_named_with_its_file_and_what_to_do() -> None:
    with pytest.raises(CouldNotCheck) as raised, foreign("writing it"):
        raise OSError(errno.ENOSPC, "No space left on device", "/there/it")
    assert raised.value.message == "writing it: No space left on device: /there/it"
    assert "make room" in (raised.value.hint or "")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOENT, "its directory is missing"),
        (errno.ENOTDIR, "is a file"),
        (errno.EISDIR, "name a file"),
        (errno.EACCES, "may write to"),
    ],
)
def test_what_the_system_refuses_comes_with_what_to_do(number: int, words: str) -> None:
    with pytest.raises(CouldNotCheck) as raised, foreign("writing it"):
        raise OSError(number, os.strerror(number), "/there/it")
    assert words in (raised.value.hint or "")


def test_a_panic_of_a_library_in_rust_ends_nothing() -> None:
    panic = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})
    reading = pytest.raises(InputError, match="its reader gave up")
    with reading, foreign("the certificate", as_=InputError):
        raise panic("index out of range")
