"""Do the ledgers beside the logs say the same of a release as its record does?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nix_seed.clients.ledgers.base import Ledger, LedgerEntry
from nix_seed.ground.digests import Digest
from nix_seed.ground.errors import CheckedFalse, CouldNotCheck, NixSeedError
from nix_seed.rules.bundle_verify import Fate
from nix_seed.rules.promotion import Check, Record

if TYPE_CHECKING:
    from nix_seed.flows.verify import Judges

__all__ = ["ask_ledgers", "entries_of"]


def ask_ledgers(judges: Judges, record: Record) -> tuple[Check, ...]:
    """Ask each ledger for the commit of *record*, a check each. Never raises.

    One that may not be asked is *could not check*: the policy demands its word.
    """
    asked = (_ask(ledger, record) for ledger in judges.ledgers)
    return (*asked, *(_unasked(name, record) for name in judges.unasked))


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


def _unasked(name: str, record: Record) -> Check:
    words = (
        f"whether the ledger {name} holds {record.predicate.commit}: offline it is not asked, "
        "which --no-ledgers does without"
    )
    return Check(f"ledger {name}", Fate.UNCHECKED, words)


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
