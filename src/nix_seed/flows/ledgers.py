"""Do the ledgers beside the logs say the same of a release as its record does?"""

from __future__ import annotations

from collections.abc import Sequence

from nix_seed.clients.ledgers.base import Ledger, LedgerEntry
from nix_seed.ground.digests import Digest
from nix_seed.ground.errors import CheckedFalse, CouldNotCheck, NixSeedError
from nix_seed.rules.bundle_verify import Fate
from nix_seed.rules.promotion import Check, Record

__all__ = ["ask_ledgers", "entries_of"]


def ask_ledgers(ledgers: Sequence[Ledger], record: Record) -> tuple[Check, ...]:
    """Ask each ledger for the commit of *record*, a check each. Never raises."""
    return tuple(_ask(ledger, record) for ledger in ledgers)


def entries_of(ledger: Ledger, commit_key: Digest) -> tuple[LedgerEntry, ...]:
    """Return what *ledger* holds for a commit.

    ``CheckedFalse`` where it lies; whatever else goes wrong in its client is ``CouldNotCheck``.
    """
    try:
        return ledger.by_commit(commit_key)
    except (CheckedFalse, CouldNotCheck):
        raise
    except NixSeedError as error:
        raise CouldNotCheck(error.message, hint=error.hint, detail=error.detail) from error
    except Exception as error:
        raise CouldNotCheck(
            f"the ledger {ledger.name} could not be asked: {type(error).__name__}: {error}"
        ) from error


def _ask(ledger: Ledger, record: Record) -> Check:
    said, name = record.predicate, f"ledger {ledger.name}"
    try:
        held = entries_of(ledger, said.commit.key)
    except CheckedFalse as error:
        return Check(name, Fate.FALSE, error.message)
    except CouldNotCheck as error:
        return Check(name, Fate.UNCHECKED, error.message)
    if not held:
        return Check(name, Fate.FALSE, f"{said.commit} is not in the ledger {ledger.name}")
    for entry in held:
        if entry.root != said.root:
            words = f"the ledger {ledger.name} has the root {entry.root}, not {said.root}"
            return Check(name, Fate.FALSE, words)
    return Check(name, Fate.VERIFIED, f"the same root, at {held[0].position}")
