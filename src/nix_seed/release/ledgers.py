"""What every ledger can do, whatever keeps it (docs/formats-promotion.md), and how one is opened.

The add-on that a policy's ledger needs is imported only then.
"""

from collections.abc import Iterator
from typing import Protocol

from nix_seed.core.digests import Digest
from nix_seed.core.errors import InputError
from nix_seed.release.rules.ledger_entry import LedgerEntry
from nix_seed.trust.rules.policy import LedgerSpec


class LedgerReader(Protocol):
    """A ledger of releases, by commit and by root.

    ``CouldNotCheck``: it is out of reach. ``CheckedFalse``: it answered, and what it says is false
    or forbids what was asked.
    """

    @property
    def name(self) -> str:
        """What people call it; also names it in errors."""
        ...

    def by_commit(self, commit_key: Digest) -> tuple[LedgerEntry, ...]:
        """Return what it holds for a commit: more than one entry is an alarm."""
        ...

    def by_root(self, root: Digest) -> tuple[LedgerEntry, ...]:
        """Return the entries with this root."""
        ...

    def entries(self, since: int | None = None) -> Iterator[LedgerEntry]:
        """Replay the ledger from its first entry, or from *since* (a block, or an index) on."""
        ...


class Ledger(LedgerReader, Protocol):
    """One that takes an entry by itself. To that of the logs, promoters' signatures are entered."""

    def publish(self, entry: LedgerEntry) -> LedgerEntry:
        """Enter *entry* (its position is not read), or find it entered; return it as it lies there.

        Raises ``CheckedFalse`` if the ledger holds another root, or another record, for the commit.
        """
        ...


def open_ledger(spec: LedgerSpec) -> Ledger:
    """Return the ledger *spec*, as the add-on for its kind opens it.

    Raises ``InputError`` where no add-on for this kind is installed.
    """
    from importlib.metadata import entry_points

    for add_on in entry_points(group="nix_seed.ledgers", name=spec.kind):
        ledger: Ledger = add_on.load()(spec)
        return ledger
    raise InputError(
        f"the policy names a ledger of the kind {spec.kind}, and nothing here can read one",
        hint=f"install it with: pip install 'nix-seed[{spec.kind}]'",
    )
