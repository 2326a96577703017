"""What there is of a commit before it is promoted: what stands in the way, what one goes on with.

A record that a promoter began is signed by the next one only if it could come to stand, and fits
into the ledger: one false promoter may neither spoil nor hold up what the others do. A dissent that
a registry hides is looked for in the logs that can be asked by commit (Rekor v1).
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck
from nix_seed.core.values import dataclass
from nix_seed.formats.intoto.statement import Commit
from nix_seed.formats.tlog.entry import LogEntry
from nix_seed.formats.tlog.merkle import leaf_hash
from nix_seed.logs.log import Log
from nix_seed.registry.store import ImageStore
from nix_seed.release.ledger import LedgerWalk, Walked
from nix_seed.release.records import entries_of, find_evidence, judge_ledger
from nix_seed.release.rules.record import Record, could_stand, may_stand, stands
from nix_seed.release.rules.signed_entries import Explained, PromoterEntry, Sieve
from nix_seed.release.rules.tree import Evidence, Release
from nix_seed.release.verifiers import Verifiers
from nix_seed.trust.attestations import Discovered, gather
from nix_seed.trust.rules.bundle import Expected, Trust, evaluate_bundle
from nix_seed.trust.rules.policy import Builder, Policy
from nix_seed.trust.rules.signer import SignedBy


@dataclass(frozen=True, slots=True)
class Precedents:
    """What *places* and the ledgers hold about *commit* of *repository*, judged *by* the policy."""

    by: Verifiers
    places: Sequence[ImageStore]
    commit: Commit
    repository: str

    def records(self, release: Release) -> tuple[list[Record], list[str]]:
        """Return the records of this very release, and what is to be said of others.

        Raises where another one stands, by a record or by the root that this machine saw.
        """
        found = judge_ledger(gather(self.places, [self.commit.key]), self.by)
        if found.lies:
            raise CheckedFalse(found.lies[0], hint="`nix-seed audit` shows the evidence")
        if found.unread:
            raise self._untold(found.unread[0])
        same, notices = [], []
        for record in found.records:
            if record.predicate.commit != self.commit:
                continue
            if record.predicate.root == release.root:
                same.append(record)
            elif stands(record, self.by.policy):
                raise _another_root(record, release)
            elif found.unchecked and may_stand(record, self.by.policy):
                # It may stand by what a log holds that is out of reach now.
                raise self._untold(found.unchecked[0])
            else:
                notices.append(_lone(record))
        self._check_pin(release)
        return same, notices

    def lacking(self, root: Digest, otherwise: str) -> tuple[str, ...]:
        """Return the ledgers that do not hold the release yet; ``CheckedFalse``: one has another.

        *otherwise* says what was not done then.
        """
        lacking = []
        for ledger in self.by.ledgers:
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
            and each.predicate.policy in self.by.policy.accepts
        ]
        if not before or (release.root, index) in {
            (e.predicate.root, e.predicate.index) for e in before
        }:
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
        self, records: Sequence[Record], evidence: Evidence, index: Digest, ledger: LedgerWalk
    ) -> Record | None:
        """Return the record to go on with: one that stands, else one that another began well.

        It must fit into the *ledger*, which is read only then.
        """
        for record in records:
            if stands(record, self.by.policy):
                return record
        return next(self._begun(records, evidence, index, ledger), None)

    def _begun(
        self, records: Sequence[Record], evidence: Evidence, index: Digest, ledger: LedgerWalk
    ) -> Iterator[Record]:
        # Each honest promoter then adds to the most signatures there are, whatever else is begun.
        for record in sorted(records, key=lambda each: -len(each.promoters)):
            said = record.predicate
            if (
                said.index == index
                and said.policy == self.by.policy.digest
                and could_stand(record, self.by.policy)
                and self._holds(record, evidence)
                and ledger.walked().admits(said)
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
        if self.by.pins is None:
            return
        seen = self.by.pins.seen(self.repository, self.commit)
        if seen is not None and seen != release.root:
            raise CheckedFalse(
                f"this machine saw {self.commit} promoted under the root {seen}, and it would be "
                f"{release.root} now",
                hint="one commit is promoted once; find out what changed: nix-seed audit",
            )


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


_ANYTHING = Expected(subject=None, predicate_types=None)


def check_hidden_dissent(
    logs: Sequence[Log], commit: Commit, policy: Policy, shown: Discovered, trust: Trust
) -> tuple[str, ...]:
    """Ask the *logs* that have an index for all of *commit*; return which were out of reach.

    *trust* is that in the policy's builders: what none of them signed explains no entry. Raises
    ``CouldNotCheck`` where a builder signed what nothing *shown* explains, or a log that is there
    does not give all that its index has; ``CheckedFalse`` where it lies.
    """
    explained = _explained(shown, trust)
    absent = []
    for log in logs:
        if log.trusted.kind != "rekor-v1":
            continue
        try:
            log.checkpoint()
        except CouldNotCheck as error:
            absent.append(f"what {log.trusted.id} holds of {commit} is not known: {error.message}")
            continue
        for entry in _of_builders(log, commit, policy):
            if not explained.explains(entry):
                raise _hidden(entry, commit)
    return tuple(absent)


def _of_builders(log: Log, commit: Commit, policy: Policy) -> Iterator[PromoterEntry]:
    for value in log.lookup(commit.key.raw):
        entry = LogEntry.from_json(value, f"an entry of {log.trusted.id}")
        time = datetime.fromtimestamp(entry.integrated_time, UTC)
        then = replace(policy, builders=tuple(b for b in policy.builders if not _revoked(b, time)))
        sieve = Sieve(log.trusted.id, [then], builders=True)
        sieve.look(entry.index, entry.body, leaf_hash(entry.body))
        yield from sieve.found


def _revoked(builder: Builder, time: datetime) -> bool:
    """Whether what *builder* signed at *time* counts no more, and so is no dissent either."""
    return builder.revoked_at is not None and time >= builder.revoked_at


def _explained(shown: Discovered, trust: Trust) -> Explained:
    """Return what was signed and is there to be judged; a broken signature hides a dissent.

    What a builder signed and says badly, or says of something else, is shown all the same: it
    blocks nothing here. An audit, which only tells, explains less (``Gathering``).
    """
    votes: set[tuple[SignedBy, Digest]] = set()
    for each in shown.attestations:
        verdict = evaluate_bundle(each.text, trust, _ANYTHING, each.place)
        if verdict.signer is not None and verdict.bundle is not None:
            signed = verdict.bundle.envelope
            votes |= {(verdict.signer, Digest.of(e)) for e in (signed.pae, signed.payload)}
    return Explained(votes=votes)


def _hidden(entry: PromoterEntry, commit: Commit) -> CouldNotCheck:
    return CouldNotCheck(
        f"{entry.promoter} signed something about {commit}, which is entry {entry.index} of the "
        f"log {entry.log}, and no repository shows it: it may be a dissent",
        hint="nothing was published; get the attestation from the builder, and name the repository "
        "where it lies: --evidence REF",
    )
