"""Release a commit: the images that a quorum stands for, as one record, and only then their index.

Nothing is believed that was not verified here, from logged evidence. Everything is published in an
order in which stopping anywhere leaves nothing that anyone would take for a release; and doing it
again, by the same or by another promoter, goes on from there.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError
from nix_seed.core.events import Stage, tell
from nix_seed.core.values import dataclass
from nix_seed.formats.intoto.statement import (
    PAYLOAD_TYPE,
    Commit,
    PromotionPredicate,
    promotion_statement,
)
from nix_seed.formats.oci.manifest import About
from nix_seed.image.index import ReadyIndex, prepare_index, publish_index
from nix_seed.logs.log import Log
from nix_seed.registry.store import ImageStore
from nix_seed.release.earlier import Precedents, check_hidden_dissent
from nix_seed.release.ledger import LedgerWalk, LoggedLedger
from nix_seed.release.records import attach_documents, attach_outputs, attach_record, has_documents
from nix_seed.release.rules import tree
from nix_seed.release.rules.record import Record, failed_checks, stands
from nix_seed.release.verifiers import Verifiers
from nix_seed.release.verify import Chosen, ReleasePlace, choose_members, votes
from nix_seed.trust.attestations import gather
from nix_seed.trust.rules.policy import Policy, Promoter, is_signer
from nix_seed.trust.sign import Signer, check_writable_logs, log_signed

ChooseOutputs = Callable[[Mapping[str, Digest]], tree.ReleasedOutputs]
"""Returns the outputs to release; it is given the digest of each system's seed."""

State = Literal["promoted", "already promoted", "signed, not yet promoted"]


@dataclass(frozen=True, slots=True)
class Promoted:
    """How far the release is, its *record*, and the *tags* that name its index now.

    *missing* is how many promoters must still sign; nothing is published before, nor before every
    ledger of the policy holds the release, which *notices* then say.
    """

    state: State
    record: Record
    release: tree.Release
    missing: int
    tags: tuple[str, ...]
    notices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Signing:
    """Who signs, and the *logs* that what is signed is entered in."""

    signer: Signer
    logs: Sequence[Log] = ()


def promote(
    by: Verifiers,
    commit: Commit,
    place: ReleasePlace,
    signing: Signing,
    earlier: Sequence[Verifiers] = (),
    outputs: ChooseOutputs | None = None,
) -> Promoted:
    """Release *commit* at *place*, as far as who is *signing* can.

    The record comes after those of the policy's promoters, and of the *earlier* policies'. With
    *outputs* it also holds what that chooses, built in the seeds that are released.

    Raises ``CheckedFalse`` where a system is absent, a quorum is unmet, a dissent stands or another
    root was promoted; ``CouldNotCheck`` where that cannot be told; ``InputError`` for a signer who
    is no promoter, or a tag that says something else. Nothing is published then.
    """
    for tag in place.tags:
        tree.check_release_tag(tag, commit, str(place.target))
    promotion = _Promotion(by, commit, place, signing, earlier)
    members = choose_members(by, commit, place)
    seeds = {system: each.digest for system, each in members.items()}
    return promotion.release(members, None if outputs is None else outputs(seeds))


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
    return policy.repository()


class _Promotion:
    """One promotion under way."""

    def __init__(
        self,
        by: Verifiers,
        commit: Commit,
        place: ReleasePlace,
        signing: Signing,
        earlier: Sequence[Verifiers],
    ) -> None:
        self._by = by
        self._commit = commit
        self._place = place
        self._signing = signing
        self._promoter = _promoter(by.policy, signing.signer)
        self._repository = _releases(by.policy)
        self._ledger = LedgerWalk(
            LoggedLedger((by, *earlier), self._places, self._repository), commit
        )
        self._notices: list[str] = []
        self._outputs: tree.ReleasedOutputs | None = None

    def release(
        self, members: Mapping[str, Chosen], outputs: tree.ReleasedOutputs | None = None
    ) -> Promoted:
        """Publish *members*, by system, as the release, and *outputs* with them."""
        self._outputs = outputs
        images = {system: (each.nar_hash, each.digest) for system, each in members.items()}
        release = tree.build_release(self._commit, images)
        index = prepare_index(
            self._by.stores,
            self._place.target,
            [each.reference for each in members.values()],
            self._by.policy.systems,
            About(self._repository, str(self._commit)),
        )
        evidence = tree.Evidence(
            release, tuple(sorted(v for m in members.values() for v in votes(m)))
        )
        records = self._records(release)
        self._check_logs(release)
        # Before anything is signed: what is in a log cannot be taken back.
        self._before.lacking(release.root, "nothing was signed, and nothing published")
        index = index.as_named(self._named(records))
        ours = self._before.usable(records, evidence, index.digest, self._ledger)
        if ours is None:
            # Another promoter may have written it since, and the ledger is read only now: a record
            # that comes after it would be a second one of this release.
            self._ledger.walked()
            records = self._records(release)
            ours = self._before.usable(records, evidence, index.digest, self._ledger)
        if ours is not None:
            self._check_outputs(ours)
        already = ours is not None and stands(ours, self._by.policy)
        if not already:
            self._before.check_walked(self._ledger.walked(), release, index.digest)
        if ours is None:
            ours = self._begin(release, index, evidence)
        else:
            if not already:
                self._check_can_log()
            self._document(ours, release, evidence)
            if not already and self._promoter.id not in {each.id for each in ours.promoters}:
                self._sign(ours.predicate, ours.payload, len(index.body))
        return self._finish(self._settle(release, ours.digest), release, index, already=already)

    def _named(self, records: Sequence[Record]) -> set[Digest]:
        """Return which indexes records of this very release name: those that stand, if any do."""
        standing = [each for each in records if stands(each, self._by.policy)]
        known = standing or (*records, *self._ledger.walked().records)
        return {each.predicate.index for each in known}

    def _check_logs(self, release: tree.Release) -> None:
        """Refuse where a log's index has what a builder signed, and nobody shows."""
        subjects = [self._commit.key, *(leaf.image_digest for leaf in release.leaves)]
        shown = gather(self._places, subjects)
        self._notices += check_hidden_dissent(
            self._signing.logs, self._commit, self._by.policy, shown, self._by.builders
        )

    @property
    def _target(self) -> ImageStore:
        """Where all is put; a layout is made now, if it is not there."""
        return self._by.stores.open(self._place.target, create=True)

    @property
    def _places(self) -> Sequence[ImageStore]:
        """What can be read: a target that is made meanwhile is one of them from then on."""
        return [self._by.stores.open(each) for each in self._place.sources]

    @property
    def _before(self) -> Precedents:
        return Precedents(self._by, self._places, self._commit, self._repository)

    def _records(self, release: tree.Release) -> list[Record]:
        records, notices = self._before.records(release)
        self._notices += notices
        return records

    def _begin(self, release: tree.Release, index: ReadyIndex, evidence: tree.Evidence) -> Record:
        """Write a new record, after all that the ledger holds."""
        self._check_can_log()
        walked = self._ledger.walked()
        predicate = PromotionPredicate(
            repository=self._repository,
            commit=self._commit,
            root=release.root,
            size=release.head.size,
            index=index.digest,
            policy=self._by.policy.digest,
            epoch=self._by.policy.epoch,
            evidence=evidence.digest,
            previous=walked.to_come_after(),
            outputs_root=None if self._outputs is None else self._outputs.root,
            outputs_size=0 if self._outputs is None else len(self._outputs.leaves),
        )
        payload = promotion_statement(predicate).dump()
        record = Record(Digest.of(payload), payload, predicate, ())
        attach_documents(self._target, record.digest, release, evidence)
        if self._outputs is not None:
            attach_outputs(self._target, record.digest, self._outputs)
        self._sign(predicate, payload, len(index.body))
        return record

    def _check_outputs(self, record: Record) -> None:
        """Refuse to go on with another's *record* that holds other outputs than were chosen here.

        One without outputs is gone on with where none were asked for.
        """
        said = record.predicate.outputs_root
        ours = None if self._outputs is None else self._outputs.root
        if said == ours:
            return
        raise CheckedFalse(
            f"the record {record.digest} of {self._commit} has {_rooted(said)}, and what builders "
            f"say now comes to {_rooted(ours)}",
            hint="one commit is promoted once: leave --outputs out where the record has none; or "
            "see what builders say now: nix-seed outputs check",
        )

    def _document(self, record: Record, release: tree.Release, evidence: tree.Evidence) -> None:
        """Put beside another's *record* what whoever began it may have left out.

        Without the proofs nobody could verify one system of the release.
        """
        target = self._target
        if not has_documents([target], record, self._by.policy.systems):
            attach_documents(target, record.digest, release, evidence)

    def _check_can_log(self) -> None:
        signing, needed = self._signing, max(self._by.policy.quorum.logs, 1)
        check_writable_logs(signing.logs, signing.signer.who, needed=needed)

    def _sign(self, predicate: PromotionPredicate, payload: bytes, size: int) -> None:
        tell(Stage("sign", f"signing the record as {self._promoter.id}"))
        signed = self._signing.signer.sign(PAYLOAD_TYPE, payload)
        needed = max(self._by.policy.quorum.logs, 1)
        bundles = log_signed(signed, self._signing.logs, needed=needed)
        if self._by.watch is not None:
            self._by.watch.refresh()
        attach_record(self._target, predicate, size, [bundle.dump() for bundle in bundles])

    def _settle(self, release: tree.Release, written: Digest) -> Record:
        """Read back what stands now: another promoter may have been at it at the same time."""
        records = self._records(release)
        standing = [each for each in records if stands(each, self._by.policy)]
        mine = [each for each in records if each.digest == written]
        found = next(iter((*standing, *mine)), None)
        if found is None:
            raise CouldNotCheck(
                f"the record {written} was written to {self._place.target}, and is not there",
                hint="run the same command again: what was logged is not logged twice",
            )
        return found

    def _finish(
        self, record: Record, release: tree.Release, index: ReadyIndex, *, already: bool
    ) -> Promoted:
        notices = tuple(dict.fromkeys(self._notices))
        if record.predicate.index != index.digest:
            raise CheckedFalse(
                f"the record {record.digest} names the index {record.predicate.index} over the "
                f"same images, whose index is {index.digest} here",
                hint="find out who wrote it: nix-seed audit",
            )
        if not stands(record, self._by.policy):
            missing = self._by.policy.quorum.promoters - len(record.promoters)
            if missing <= 0:
                problem = failed_checks(record, self._by.policy)[0]
                raise CheckedFalse(f"the record that was written does not stand: {problem.reason}")
            return Promoted("signed, not yet promoted", record, release, missing, (), notices)
        lacking = self._before.lacking(
            release.root, "the record is logged, its index not published"
        )
        if lacking:
            notices = (*notices, *(_waiting(name, self._commit) for name in lacking))
            return Promoted("signed, not yet promoted", record, release, 0, (), notices)
        tags = tuple(dict.fromkeys((str(self._commit), *self._place.tags)))
        named = (self._target.head_manifest(tag) for tag in tags)
        done = already and all(each and each.digest == index.digest for each in named)
        if not done:
            publish_index(self._by.stores, self._place.target, index, tags=tags)
        if self._by.pins is not None:
            self._by.pins.keep(self._repository, self._commit, release.root)
        state: State = "already promoted" if done else "promoted"
        return Promoted(state, record, release, 0, tags, notices)


def _rooted(root: Digest | None) -> str:
    return "no outputs" if root is None else f"outputs with the root {root}"


def _waiting(ledger: str, commit: Commit) -> str:
    return (
        f"the ledger {ledger} does not hold {commit} yet: have the builders sign (nix-seed ledger "
        "evm sign), enter it (nix-seed ledger evm publish), and run the same command again"
    )
