"""The words for how a check ended, and what an error comes to in them.

Whoever judges something says it with these; whoever catches an error while judging asks them what
it means. *Checked and false* and *could not check* are never confused, and a fault of ours is never
a yes.
"""

from enum import StrEnum
from typing import Self

from nix_seed.core.errors import CheckedFalse, CouldNotCheck, NixSeedError
from nix_seed.core.values import dataclass


class Fate(StrEnum):
    """The three ends of a check."""

    VERIFIED = "verified"
    FALSE = "checked and false"
    UNCHECKED = "could not check"

    @classmethod
    def of(cls, error: BaseException) -> Self:
        """Return what *error*, raised by a check, says of the thing checked.

        Only ``CheckedFalse`` is a no. An ``InputError`` here is about what the user gave: where
        foreign bytes are read, ``errors.of_store`` has made it a no before.
        """
        return cls.FALSE if isinstance(error, CheckedFalse) else cls.UNCHECKED

    @property
    def exit_code(self) -> int:
        """0 verified, 1 checked and false, 3 could not check."""
        return 0 if self is Fate.VERIFIED else self.error.exit_code

    @property
    def error(self) -> type[NixSeedError]:
        """What to raise for an end that is no yes."""
        return CheckedFalse if self is Fate.FALSE else CouldNotCheck


class Severity(StrEnum):
    """How bad a finding is, the worst first."""

    ALARM = "alarm"
    UNCHECKED = "could not check"
    WARNING = "warning"
    NOTICE = "notice"

    @classmethod
    def of(cls, error: BaseException) -> Self:
        """Return how bad it is that *error* was met: what is false is an alarm."""
        return cls.ALARM if Fate.of(error) is Fate.FALSE else cls.UNCHECKED


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked, how it ended, and the evidence in one line."""

    name: str
    fate: Fate
    reason: str

    @classmethod
    def failed(cls, name: str, error: NixSeedError) -> Self:
        """Return the check that *error* ended."""
        return cls(name, Fate.of(error), error.message)


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that stood in the way of an answer: it may have held a dissent."""

    fate: Fate
    reason: str

    @classmethod
    def of(cls, error: NixSeedError) -> Self:
        """Return the trouble that *error* is."""
        return cls(Fate.of(error), error.message)
