"""What a ledger holds for a commit."""

from __future__ import annotations

from dataclasses import dataclass

from nix_seed.core.digests import Digest


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One release: *root* is the Merkle root over its systems, *record* its statement's SHA-256.

    *position* says, for people, where the entry lies: ``block 12, transaction 0x…`` or ``index 7``;
    it is empty for one that is yet to be published.
    """

    commit_key: Digest
    root: Digest
    record: Digest
    position: str = ""

    def says(self, other: LedgerEntry) -> bool:
        """Whether both say the same, wherever they lie."""
        mine = (self.commit_key, self.root, self.record)
        return mine == (other.commit_key, other.root, other.record)
