"""The ledger that needs no chain: records in registries, keyed by commit, which logs prove.

What keeps it from leaving out a record is an audit, which replays the logs; what it shows is true.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from nix_seed.clients.blobs import ImageStore
from nix_seed.flows.evidence import gather
from nix_seed.flows.ledger import Earlier, walk_ledger
from nix_seed.flows.promotion import judge_ledger
from nix_seed.flows.verify import Judges
from nix_seed.ground.digests import Digest
from nix_seed.ground.errors import CheckedFalse, CouldNotCheck
from nix_seed.rules.ledger_entry import LedgerEntry
from nix_seed.rules.policy import Policy
from nix_seed.rules.promotion import Record, stands

__all__ = ["LoggedLedger"]


@dataclass(frozen=True, slots=True)
class LoggedLedger:
    """The ledger of *repository* in *places*, as a ``LedgerReader``; ``promote`` writes it.

    Records of *earlier* policies count by these. Only what stands is an entry.
    """

    places: Sequence[ImageStore]
    repository: str
    policy: Policy
    judges: Judges
    earlier: Sequence[Earlier] = ()

    @property
    def name(self) -> str:
        """The repository whose releases these are."""
        return self.repository

    def by_commit(self, commit_key: Digest) -> tuple[LedgerEntry, ...]:
        """Return what is listed by the commit; more than one root is an alarm."""
        listed = gather(self.places, [commit_key])
        found: dict[Digest, LedgerEntry] = {}
        for by in (Earlier(self.policy, self.judges), *self.earlier):
            step = judge_ledger(listed, by.policy, by.judges)
            self._check(step.lies, step.unchecked)
            for record in step.records:
                if record.predicate.commit.key == commit_key and self._counts(record, by.policy):
                    found.setdefault(record.digest, _entry(record))
        return tuple(found[each] for each in sorted(found))

    def by_root(self, root: Digest) -> tuple[LedgerEntry, ...]:
        """Return the entries with this root; the whole ledger is read for it."""
        return tuple(entry for entry in self.entries() if entry.root == root)

    def entries(self, since: int | None = None) -> Iterator[LedgerEntry]:
        """Yield every entry that the first one leads to, in order, or those from *since* on."""
        walked = walk_ledger(
            self.places, self.repository, self.policy, self.judges, earlier=self.earlier
        )
        self._check(walked.lies, walked.unchecked)
        standing = [each for each in walked.records if each.digest in walked.standing]
        for record in standing[since or 0 :]:
            yield _entry(record)

    def _counts(self, record: Record, policy: Policy) -> bool:
        return record.predicate.repository == self.repository and stands(record, policy)

    def _check(self, lies: Iterable[str], unchecked: Iterable[str]) -> None:
        for words in lies:
            raise CheckedFalse(words, hint="`nix-seed audit` shows the evidence")
        for words in unchecked:
            raise CouldNotCheck(f"what the ledger of {self.repository} holds: {words}")


def _entry(record: Record) -> LedgerEntry:
    said = record.predicate
    signers = ", ".join(each.id for each in record.promoters)
    return LedgerEntry(said.commit.key, said.root, record.digest, f"signed by {signers}")
