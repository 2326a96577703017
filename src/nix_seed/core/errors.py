"""Every error the project raises, in one tree.

::

    NixSeedError
    ├── CheckedFalse       exit 1   the check was made, and its answer is no
    ├── InputError         exit 2   wrong arguments, files or configuration
    ├── CouldNotCheck      exit 3   something was out of reach, so nothing is known
    └── NixFailed          exit 4   Nix itself refused; its own words are kept

*Checked and false* and *could not check* are different classes and different exit codes, so
that a caller can never mistake a silent registry for a lying one. Foreign errors (``OSError``, a
library's own) are mapped to one of these where they enter, inside the clients.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar


class NixSeedError(Exception):
    """What went wrong, while doing what, to what; and what to do next.

    ``message`` is one line. ``hint`` says what the user can do now (it may have several lines).
    ``detail`` carries foreign words verbatim, such as Nix's own error.
    """

    exit_code: ClassVar[int] = 3

    def __init__(self, message: str, *, hint: str | None = None, detail: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.detail = detail


class CheckedFalse(NixSeedError):
    """The check ran to its end and its answer is no."""

    exit_code = 1


class InputError(NixSeedError):
    """Arguments, files or configuration cannot mean what was asked."""

    exit_code = 2


class CouldNotCheck(NixSeedError):
    """A file, program or server was out of reach: nothing was proved either way."""

    exit_code = 3


class NixFailed(NixSeedError):
    """Nix exited with an error; ``detail`` holds its own message."""

    exit_code = 4


def foreign_error(error: NixSeedError) -> NixSeedError:
    """Return *error* as one about what a store or log gave: malformed, that is *false*.

    An ``InputError`` is for what the user gave, and nobody gave this.
    """
    if not isinstance(error, InputError):
        return error
    return CheckedFalse(error.message, hint=error.hint, detail=error.detail)


@contextmanager
def of_store() -> Iterator[None]:
    """Turn an error about malformed input, which a store gave, into *checked and false*."""
    try:
        yield
    except InputError as error:
        raise foreign_error(error) from error
