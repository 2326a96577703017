"""What there is of a commit before it is promoted: what stands in the way, what one goes on with.

A record that a promoter began is signed by the next one only if it could come to stand, and fits
into the ledger: one false promoter may neither spoil nor hold up what the others do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from nix_seed.clients.blobs import ImageStore
from nix_seed.flows.evidence import gather
from nix_seed.flows.ledger import Walked
from nix_seed.flows.ledgers import entries_of
from nix_seed.flows.promotion import judge_ledger
from nix_seed.flows.records import find_evidence
from nix_seed.flows.verify import Judges
from nix_seed.formats.intoto.commit import Commit
from nix_seed.ground.digests import Digest
from nix_seed.ground.errors import CheckedFalse, CouldNotCheck
from nix_seed.rules.policy import Policy
from nix_seed.rules.promotion import Record, could_stand, may_stand, stands
from nix_seed.rules.release import Release
from nix_seed.rules.release_evidence import Evidence

__all__ = ["Before"]


@dataclass(frozen=True, slots=True)
class Before:
    """What *places* and the ledgers hold about *commit* of *repository*, judged by the policy."""

    places: Sequence[ImageStore]
    commit: Commit
    repository: str
    policy: Policy
    judges: Judges

    def records(self, release: Release, notice: Callable[[str], None]) -> list[Record]:
        """Return the records of this very release.

        Raises where another one stands, by a record or by the root that this machine saw.
        """
        found = judge_ledger(gather(self.places, [self.commit.key]), self.policy, self.judges)
        if found.lies:
            raise CheckedFalse(found.lies[0], hint="`nix-seed audit` shows the evidence")
        if found.unread:
            raise self._untold(found.unread[0])
        same = []
        for record in found.records:
            if record.predicate.commit != self.commit:
                continue
            if record.predicate.root == release.root:
                same.append(record)
            elif stands(record, self.policy):
                raise _another_root(record, release)
            elif found.unchecked and may_stand(record, self.policy):
                # It may stand by what a log holds that is out of reach now.
                raise self._untold(found.unchecked[0])
            else:
                notice(_lone(record))
        self._check_pin(release)
        return same

    def lacking(self, root: Digest, otherwise: str) -> tuple[str, ...]:
        """Return the ledgers that do not hold the release yet; ``CheckedFalse``: one has another.

        *otherwise* says what was not done then.
        """
        lacking = []
        for ledger in self.judges.ledgers:
            held = entries_of(ledger, self.commit.key)
            other = next((each for each in held if each.root != root), None)
            if other is not None:
                raise CheckedFalse(
                    f"the ledger {ledger.name} has {self.commit} under another root, {other.root}",
                    hint=f"one commit is promoted once: {otherwise}",
                )
            if not held:
                lacking.append(ledger.name)
        return tuple(lacking)

    def check_walked(self, walked: Walked, release: Release, index: Digest) -> None:
        """Refuse where promoters of an accepted policy released something else, and only that.

        They may be promoters no more, so that nothing stands by the policy in force; an audit holds
        all records together. Where theirs is one of two, the right one may be signed again.
        """
        before = [
            each
            for each in walked.records
            if each.predicate.commit == self.commit
            and each.digest in walked.standing
            and each.predicate.policy in self.policy.accepts
        ]
        if not before or (release.root, index) in {_what(each) for each in before}:
            return
        raise CheckedFalse(
            f"{self.commit} was promoted before, under the accepted policy "
            f"{before[0].predicate.policy}, as something else: the root "
            f"{before[0].predicate.root} with the index {before[0].predicate.index}; it would be "
            f"{release.root} with {index} now",
            hint="one commit is promoted once: nothing was published. If only a thief of keys "
            "promoted it, take that policy out of `accepts` (docs/runbook.md)",
        )

    def usable(
        self,
        records: Sequence[Record],
        evidence: Evidence,
        index: Digest,
        walk: Callable[[], Walked],
    ) -> Record | None:
        """Return the record to go on with: one that stands, else one that another began well.

        *walk* reads the ledger, into which that must fit.
        """
        for record in records:
            if stands(record, self.policy):
                return record
        return next(self._begun(records, evidence, index, walk), None)

    def _begun(
        self,
        records: Sequence[Record],
        evidence: Evidence,
        index: Digest,
        walk: Callable[[], Walked],
    ) -> Iterator[Record]:
        # Each honest promoter then adds to the most signatures there are, whatever else is begun.
        for record in sorted(records, key=lambda each: -len(each.promoters)):
            said = record.predicate
            if (
                said.index == index
                and said.policy == self.policy.digest
                and could_stand(record, self.policy)
                and self._holds(record, evidence)
                and walk().admits(said)
            ):
                yield record

    def _holds(self, record: Record, evidence: Evidence) -> bool:
        """Whether the evidence of another's record is what was verified here, or part of it.

        It must name every builder that counts here. But of what one says again meanwhile, once is
        enough: else one builder could have each promoter begin anew.
        """
        if record.predicate.evidence == evidence.digest:
            return True
        try:
            found = find_evidence(self.places, record)
        except (CheckedFalse, CouldNotCheck):
            return False
        ours = {(v.system, v.builder, v.statement): v.logs for v in evidence.votes}
        theirs = {(v.system, v.builder, v.statement): v.logs for v in found.votes}
        builders = [{(system, builder) for system, builder, _ in each} for each in (ours, theirs)]
        return builders[0] == builders[1] and all(
            vote in ours and set(logs) <= set(ours[vote]) for vote, logs in theirs.items()
        )

    def _untold(self, why: str) -> CouldNotCheck:
        return CouldNotCheck(
            f"whether {self.commit} was promoted before: {why}",
            hint="nothing was published; run the same command again",
        )

    def _check_pin(self, release: Release) -> None:
        if self.judges.pins is None:
            return
        seen = self.judges.pins.seen(self.repository, self.commit)
        if seen is not None and seen != release.root:
            raise CheckedFalse(
                f"this machine saw {self.commit} promoted under the root {seen}, and it would be "
                f"{release.root} now",
                hint="one commit is promoted once; find out what changed: nix-seed audit",
            )


def _what(record: Record) -> tuple[Digest, Digest]:
    return record.predicate.root, record.predicate.index


def _another_root(record: Record, release: Release) -> CheckedFalse:
    names = ", ".join(each.id for each in record.promoters)
    return CheckedFalse(
        f"{record.predicate.commit} was promoted before, by {names}, under another root: "
        f"{record.predicate.root}; these images have {release.root}",
        hint="one commit is promoted once: nothing was published. `nix-seed verify --commit` shows "
        "what was promoted",
    )


def _lone(record: Record) -> str:
    names = ", ".join(sorted({s.promoter.id for s in record.signatures if s.promoter})) or "someone"
    root = record.predicate.root
    return f"{names} signed another root for this commit, which does not stand: {root}"
