"""Release a commit: the images that a quorum stands for, as one record, and only then their index.

Nothing is believed that was not verified here, from logged evidence. Everything is published in an
order in which stopping anywhere leaves nothing that anyone would take for a release; and doing it
again, by the same or by another promoter, goes on from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from nix_seed.clients.blobs import ImageStore
from nix_seed.clients.logs.base import Log
from nix_seed.clients.signers.base import Signer
from nix_seed.flows.candidates import Member, Place, choose_members
from nix_seed.flows.events import OnEvent, Stage, ignore
from nix_seed.flows.evidence import gather
from nix_seed.flows.index import ReadyIndex, prepare_index, publish_index
from nix_seed.flows.ledger import walk_ledger
from nix_seed.flows.logging import log_signed
from nix_seed.flows.promotion import judge_ledger
from nix_seed.flows.records import attach_documents, attach_record, find_evidence
from nix_seed.flows.stores import Stores
from nix_seed.flows.verify import Judges
from nix_seed.formats.intoto.commit import Commit
from nix_seed.formats.intoto.envelope import PAYLOAD_TYPE
from nix_seed.formats.intoto.promotion import MOST_PREVIOUS, PromotionPredicate, build_statement
from nix_seed.formats.oci.reference import check_tag
from nix_seed.ground.digests import Digest
from nix_seed.ground.errors import CheckedFalse, CouldNotCheck, InputError
from nix_seed.rules.claims import Standing
from nix_seed.rules.policy import Policy, Promoter, is_signer
from nix_seed.rules.promotion import Record, judge_record, stands
from nix_seed.rules.release import Release, build_release
from nix_seed.rules.release_evidence import Evidence, LoggedAt, Vote

__all__ = ["Promoted", "State", "promote", "votes"]

State = Literal["promoted", "already promoted", "signed, not yet promoted"]


@dataclass(frozen=True, slots=True)
class Promoted:
    """How far the release is, its *record*, and the *tags* that name its index now.

    *missing* is how many promoters must still sign; nothing is published before, nor before every
    ledger of the policy holds the release, which *notices* then say.
    """

    state: State
    record: Record
    release: Release
    missing: int
    tags: tuple[str, ...]
    notices: tuple[str, ...]


def promote(
    stores: Stores,
    commit: Commit,
    place: Place,
    policy: Policy,
    judges: Judges,
    signer: Signer,
    logs: Sequence[Log],
    now: datetime,
    on_event: OnEvent = ignore,
) -> Promoted:
    """Release *commit* at *place*, as far as *signer* can.

    Raises ``CheckedFalse`` where a system is absent, a quorum is unmet, a dissent stands or another
    root was promoted; ``CouldNotCheck`` where that cannot be told; ``InputError`` for a signer who
    is no promoter. Nothing is published then.
    """
    promoter = _promoter(policy, signer)
    repository = _releases(policy)
    for tag in place.tags:
        check_tag(tag, str(place.target))
    places = [stores.open(place.target, create=True), *map(stores.open, place.evidence)]
    work = _Work(
        stores, commit, place, policy, judges, signer, logs, on_event, promoter, repository, places
    )
    members = choose_members(stores, commit, place, policy, judges, now, on_event)
    return work.release(members)


def _promoter(policy: Policy, signer: Signer) -> Promoter:
    for promoter in policy.promoters:
        if is_signer(promoter.signer, signer.who):
            return promoter
    names = ", ".join(each.id for each in policy.promoters) or "nobody"
    raise InputError(
        f"{signer.identity} may not promote: by the policy {names} may",
        hint="sign with a promoter's key (--key), or have the policy changed: [[promoters]]",
    )


def _releases(policy: Policy) -> str:
    """Return of which repository the releases by *policy* are, which must be logged."""
    if not policy.logs:
        raise InputError(
            "the policy names no log, and a release is made of logged evidence alone",
            hint="add one: [[logs]]; `nix-seed log serve DIR` makes one",
        )
    if policy.source is None:
        raise InputError(
            "the policy does not say of which repository it is",
            hint='add source = "https://…" to it: a record must say whose release it is',
        )
    return policy.source


@dataclass
class _Work:
    """One promotion under way."""

    stores: Stores
    commit: Commit
    place: Place
    policy: Policy
    judges: Judges
    signer: Signer
    logs: Sequence[Log]
    on_event: OnEvent
    promoter: Promoter
    repository: str
    places: Sequence[ImageStore]
    notices: list[str] = field(default_factory=list)

    def release(self, members: Mapping[str, Member]) -> Promoted:
        """Publish *members*, by system, as the release."""
        images = {system: (each.nar_hash, each.digest) for system, each in members.items()}
        release = build_release(self.commit, images)
        index = prepare_index(
            self.stores,
            self.place.target,
            [each.reference for each in members.values()],
            self.policy.systems,
        )
        evidence = Evidence(release, tuple(sorted(v for m in members.values() for v in votes(m))))
        before = self._records(release)
        ours = self._ours(before, evidence, index)
        already = ours is not None and stands(ours, self.policy)
        if ours is None:
            ours = self._begin(release, index, evidence)
        elif not already and not self._has_signed(ours):
            self._sign(ours.predicate, ours.payload, len(index.body))
        return self._finish(self._settle(release, ours.digest), release, index, already=already)

    def _records(self, release: Release) -> list[Record]:
        """Return the records of this very release; refuse where another one stands."""
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
            elif found.unchecked:
                # It may stand by what a log holds that is out of reach now.
                raise self._untold(found.unchecked[0])
            else:
                self.notices.append(_lone(record))
        self._check_pin(release)
        return same

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

    def _ours(
        self, records: Sequence[Record], evidence: Evidence, index: ReadyIndex
    ) -> Record | None:
        """Return the record to go on with: one that stands, else one that could."""
        standing = [each for each in records if stands(each, self.policy)]
        usable = [
            each
            for each in records
            if each.predicate.index == index.digest
            and each.predicate.policy == self.policy.digest
            and each.predicate.repository == self.repository
            and self._holds(each, evidence)
        ]
        return next(iter((*standing, *usable)), None)

    def _holds(self, record: Record, evidence: Evidence) -> bool:
        """Whether the evidence of another's record is what was verified here, or part of it."""
        if record.predicate.evidence == evidence.digest:
            return True
        try:
            found = find_evidence(self.places, record)
        except (CheckedFalse, CouldNotCheck):
            return False
        ours = {(v.system, v.builder, v.statement) for v in evidence.votes}
        theirs = {(v.system, v.builder, v.statement) for v in found.votes}
        return theirs == ours

    def _begin(self, release: Release, index: ReadyIndex, evidence: Evidence) -> Record:
        """Write a new record, after all that the ledger holds."""
        self.on_event(Stage("ledger", "reading the ledger"))
        walked = walk_ledger(self.places, self.repository, self.policy, self.judges)
        if walked.lies:
            raise CheckedFalse(walked.lies[0], hint="`nix-seed audit` shows the evidence")
        if walked.unread:
            raise CouldNotCheck(
                f"what the ledger holds before {self.commit}: {walked.unread[0]}",
                hint="nothing was published; run the same command again",
            )
        predicate = PromotionPredicate(
            repository=self.repository,
            commit=self.commit,
            root=release.root,
            size=release.head.size,
            index=index.digest,
            policy=self.policy.digest,
            epoch=self.policy.epoch,
            evidence=evidence.digest,
            previous=walked.heads[:MOST_PREVIOUS] if walked.records else (),
        )
        payload = build_statement(predicate).dump()
        record = Record(Digest.of(payload), payload, predicate, ())
        attach_documents(self.places[0], record.digest, release, evidence)
        self._sign(predicate, payload, len(index.body))
        return record

    def _sign(self, predicate: PromotionPredicate, payload: bytes, size: int) -> None:
        self.on_event(Stage("sign", f"signing the record as {self.promoter.id}"))
        signed = self.signer.sign(PAYLOAD_TYPE, payload)
        needed = max(self.policy.quorum.logs, 1)
        bundles = log_signed(signed, self.logs, self.on_event, needed=needed)
        if self.judges.watch is not None:
            self.judges.watch.refresh()
        attach_record(self.places[0], predicate, size, [bundle.dump() for bundle in bundles])

    def _settle(self, release: Release, written: Digest) -> Record:
        """Read back what stands now: another promoter may have been at it at the same time."""
        records = self._records(release)
        standing = [each for each in records if stands(each, self.policy)]
        mine = [each for each in records if each.digest == written]
        found = next(iter((*standing, *mine)), None)
        if found is None:
            raise CouldNotCheck(
                f"the record {written} was written to {self.place.target}, and is not there",
                hint="run the same command again: what was logged is not logged twice",
            )
        return found

    def _finish(
        self, record: Record, release: Release, index: ReadyIndex, *, already: bool
    ) -> Promoted:
        notices = tuple(dict.fromkeys(self.notices))
        if record.predicate.index != index.digest:
            raise CheckedFalse(
                f"the record {record.digest} names the index {record.predicate.index} over the "
                f"same images, whose index is {index.digest} here",
                hint="find out who wrote it: nix-seed audit",
            )
        if not stands(record, self.policy):
            missing = self.policy.quorum.promoters - len(record.promoters)
            if missing <= 0:
                problem = next(c for c in judge_record(record, self.policy) if c.fate != "verified")
                raise CheckedFalse(f"the record that was written does not stand: {problem.words}")
            return Promoted("signed, not yet promoted", record, release, missing, (), notices)
        lacking = self._lacking(record)
        if lacking:
            notices = (*notices, *lacking)
            return Promoted("signed, not yet promoted", record, release, 0, (), notices)
        tags = tuple(dict.fromkeys((str(self.commit), *self.place.tags)))
        done = already and self._named(index.digest, tags)
        if not done:
            publish_index(
                self.stores,
                self.place.target,
                index,
                tags=tags,
                jobs=self.place.jobs,
                on_event=self.on_event,
            )
        if self.judges.pins is not None:
            self.judges.pins.keep(self.repository, self.commit, release.root)
        state: State = "already promoted" if done else "promoted"
        return Promoted(state, record, release, 0, tags, notices)

    def _lacking(self, record: Record) -> list[str]:
        """Return which ledgers do not hold the release yet; refuse where one holds another."""
        lacking = []
        for ledger in self.judges.ledgers:
            held = ledger.by_commit(self.commit.key)
            other = next((each for each in held if each.root != record.predicate.root), None)
            if other is not None:
                raise CheckedFalse(
                    f"the ledger {ledger.name} has {self.commit} under another root, {other.root}",
                    hint="one commit is promoted once: nothing was published",
                )
            if not held:
                lacking.append(
                    f"the ledger {ledger.name} does not hold {self.commit} yet: have the builders "
                    "sign (nix-seed ledger evm sign), enter it (nix-seed ledger evm publish), and "
                    "run the same command again"
                )
        return lacking

    def _named(self, index: Digest, tags: Sequence[str]) -> bool:
        found = [self.places[0].head_manifest(tag) for tag in tags]
        return all(each is not None and each.digest == index for each in found)

    def _has_signed(self, record: Record) -> bool:
        return any(each.id == self.promoter.id for each in record.promoters)


def votes(member: Member) -> list[Vote]:
    """Return the attestations that counted for *member*, and where logs hold them."""
    found: dict[tuple[str, Digest], set[LoggedAt]] = {}
    quorum = member.quorum
    names = {
        claim.claim.name: claim.builder
        for claim in quorum.claims
        if claim.builder and claim.standing is Standing.AGREES
    }
    counted = {builder.id for builder in quorum.counted}
    pae_of: dict[bytes, str] = {}
    for finding in member.findings:
        builder = names.get(finding.name)
        if builder is not None and builder.id in counted and finding.verdict.bundle is not None:
            pae_of[finding.verdict.bundle.envelope.pae] = builder.id
    for finding in member.findings:
        bundle = finding.verdict.bundle
        if bundle is None or not finding.verdict.verified or bundle.envelope.pae not in pae_of:
            continue
        key = (pae_of[bundle.envelope.pae], Digest.of(bundle.envelope.pae))
        held = found.setdefault(key, set())
        held |= {
            LoggedAt(log, index, Digest(leaf.hex())) for log, index, leaf in finding.logs.entries
        }
    return [
        Vote(member.system, builder, statement, tuple(sorted(logs)))
        for (builder, statement), logs in sorted(found.items())
    ]


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
