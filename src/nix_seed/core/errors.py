"""Every error the project raises, in one tree.

::

    NixSeedError
    ├── CheckedFalse       exit 1   the check was made, and its answer is no
    ├── InputError         exit 2   wrong arguments, files or configuration
    ├── CouldNotCheck      exit 3   something was out of reach, so nothing is known
    └── NixFailed          exit 4   Nix itself refused; its own words are kept

*Checked and false* and *could not check* are different classes and different exit codes, so
that a caller can never mistake a silent registry for a lying one. ``foreign`` maps what a library
or the system raises to one of these, where it enters.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Final, TypeVar

from nix_seed.core.safe_text import safe_line

_T = TypeVar("_T")
_MOST_WORDS = 500  # characters of a library's own words
_PANIC = "pyo3_runtime"
_HINTS: Final = {
    errno.ENOSPC: "the disk is full: make room there, or choose another place; what was"
    " finished is kept and the next run goes on from it",
    errno.EDQUOT: "the disk quota is used up: make room there, or choose another place",
    errno.ENOENT: "see whether it was moved or deleted, or its directory is missing",
    errno.ENOTDIR: "a part of that path is a file: choose another place",
    errno.EISDIR: "that is a directory: name a file",
    errno.EACCES: "choose a place that you may write to",
    errno.EROFS: "choose a place that you may write to",
    errno.ENAMETOOLONG: "give a shorter path",
    errno.ELOOP: "its links lead in a circle: name the file itself",
}


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


def caught(error: Exception, doing: str) -> NixSeedError:
    """Return *error*, met while *doing*, as one of ours: what no one mapped is *could not check*.

    For a net around one item among many that others made: one must not hide the rest.
    """
    if isinstance(error, NixSeedError):
        return foreign_error(error)
    words = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return CouldNotCheck(f"{doing}: {words}")


@contextmanager
def of_store() -> Iterator[None]:
    """Turn an error about malformed input, which a store gave, into *checked and false*."""
    try:
        yield
    except InputError as error:
        raise foreign_error(error) from error


@contextmanager
def foreign(
    failed: str,
    *kinds: type[Exception],
    as_: type[NixSeedError] = CouldNotCheck,
    hint: str | None = None,
    quoted: bool = True,
) -> Iterator[None]:
    """Raise as *as_* what a library or the system raises inside: ``FAILED: its words``.

    Without *kinds* that is every error but our own, for libraries that promise nothing about what
    they raise on hostile bytes. Keep the block down to the call itself: it would hide our own
    faults, too. A library's words are left out unless *quoted*.
    """
    caught = kinds or (Exception,)
    try:
        yield
    except (NixSeedError, MemoryError):
        raise
    except caught as error:
        why = f": {_words_of(error)}" if quoted else ""
        raise as_(f"{failed}{why}", hint=hint or _hint_of(error)) from error
    except BaseException as error:
        # A panic of a library in Rust is no Exception.
        if kinds or type(error).__module__ != _PANIC:
            raise
        raise as_(f"{failed}: its reader gave up", hint=hint) from error


def unwritten(error: OSError, doing: str) -> CouldNotCheck | None:
    """Return *error*, met while *doing*, as a disk's or a terminal's; None if it is neither's."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
        return None
    return CouldNotCheck(f"{doing} failed: {_words_of(error)}", hint=_hint_of(error))


def misnamed(error: OSError) -> NixSeedError:
    """Return *error*, which names a file that no command expected to be odd, as one of ours."""
    kind = InputError if error.errno in (errno.ENAMETOOLONG, errno.ELOOP) else CouldNotCheck
    return kind(_words_of(error), hint=_hint_of(error))


def _words_of(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        named = isinstance(error.filename, str | bytes)
        return f"{error.strerror}: {os.fsdecode(error.filename)}" if named else error.strerror
    return safe_line(str(error))[:_MOST_WORDS] or type(error).__name__


def _hint_of(error: Exception) -> str | None:
    return _HINTS.get(error.errno or 0) if isinstance(error, OSError) else None
