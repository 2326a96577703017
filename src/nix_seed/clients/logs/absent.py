"""A log that is not where it should be: whoever has others to write to goes on without it."""

from __future__ import annotations

from typing import NoReturn

from nix_seed.clients.logs.base import Entry, evaluate_own
from nix_seed.formats.tlog.body import LoggedSignature
from nix_seed.ground.errors import CouldNotCheck
from nix_seed.rules.log_verify import EntryResult, TrustedLog

__all__ = ["AbsentLog"]


class AbsentLog:
    """The log *trusted*, out of reach for the reason *why*; satisfies ``Log``, as one down does."""

    def __init__(self, trusted: TrustedLog, why: CouldNotCheck) -> None:
        self._trusted = trusted
        self._why = why

    @property
    def trusted(self) -> TrustedLog:
        """The log's identity and key."""
        return self._trusted

    def verify(self, entry: Entry, logged: LoggedSignature) -> EntryResult:
        """Judge *entry* by this log's key alone."""
        return evaluate_own(self._trusted, entry, logged)

    def _fail(self, *_: object, **__: object) -> NoReturn:
        raise CouldNotCheck(self._why.message, hint=self._why.hint) from self._why

    append = checkpoint = consistency = lookup = _fail
