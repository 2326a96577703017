"""Is this image what independent builders got from the commit, and was it promoted as that?

One answer from all evidence: for a reference, or for a commit by its hash alone.

Which image of each system is to be released: the one that has the policy's quorum, in logs.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace

from nix_seed.core.digests import Digest, NarHash
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError, of_store
from nix_seed.core.events import Stage, tell
from nix_seed.core.values import dataclass
from nix_seed.core.verdict import Check, Fate, Trouble
from nix_seed.formats.intoto.bundle import Unverified
from nix_seed.formats.intoto.statement import Commit
from nix_seed.image.inspect import InspectedImage, InspectedIndex, inspect
from nix_seed.registry.open import AnyReference, Stores, fetch, holder_of, is_to_be_made
from nix_seed.registry.store import ImageStore
from nix_seed.release import records as recorded
from nix_seed.release.rules import answer, record
from nix_seed.release.rules.tree import Vote
from nix_seed.release.verifiers import Verifiers
from nix_seed.trust import attestations as attached
from nix_seed.trust.rules import claims as judging
from nix_seed.trust.rules.policy import LoggedAt
from nix_seed.trust.rules.quorum import QuorumResult, evaluate_quorum
from nix_seed.trust.watch_logs import LogDoubts, doubt_logs


@dataclass(frozen=True, slots=True)
class Query:
    """The question: of which *commit* (None: of any that builders name), for which *system*.

    *deep* also recomputes all that the image claims from its layers. *promotion* asks whether the
    commit was promoted as just this; None: if the policy knows promoters. *evidence* names further
    repositories whose attestations are taken into account.
    """

    commit: Commit | None = None
    system: str | None = None
    deep: bool = False
    promotion: bool | None = None
    evidence: tuple[AnyReference, ...] = ()


def verify_image(by: Verifiers, reference: AnyReference, query: Query) -> answer.Verification:
    """Verify what *reference* names, an image or an index of images.

    Raises ``InputError`` where *reference* names nothing, ``CouldNotCheck`` where its store is out
    of reach and ``CheckedFalse`` where that store contradicts itself; every other end is an answer.
    """
    store = by.stores.open(reference)
    root = fetch(store, reference)
    with of_store():
        found = inspect(by.stores, reference.at(root.descriptor.digest))
        images = _chosen(found, query)
    # What lies beside a commit is asked for by each of its images, and by its promotion.
    beside = attached.Listings((store, *(by.stores.open(each) for each in query.evidence)))
    answers = tuple(
        _verify_one(by, beside, image, query, root.descriptor.digest) for image in images
    )
    complete = isinstance(found, InspectedIndex) and query.system is None
    there = {image.system for image in images}
    missing = [system for system in by.policy.systems if complete and system not in there]
    fate, reason = answer.evaluate_images(answers, missing)
    promotion = None
    if bool(by.policy.promoters) if query.promotion is None else query.promotion:
        index = root.descriptor.digest if isinstance(found, InspectedIndex) else None
        promotion = recorded.judge_promotion(
            by, beside, answers, query.commit, index, whole=complete
        )
        if promotion is None and fate is Fate.VERIFIED:
            fate, reason = Fate.FALSE, "its images are of no one commit that could be promoted"
            for left in filter(None, (each.left_open for each in answers)):
                fate, reason = Fate.UNCHECKED, left
    awaits = fate is Fate.VERIFIED and promotion is not None and promotion.absent
    fate, reason = answer.join_promotion(fate, reason, promotion)
    policy = by.policy
    return answer.Verification(
        str(reference), policy.digest, policy.epoch, answers, fate, reason, promotion, awaits
    )


def _chosen(found: InspectedImage | InspectedIndex, query: Query) -> tuple[InspectedImage, ...]:
    """Return the images asked about; one system has one image."""
    images = found.images if isinstance(found, InspectedIndex) else (found,)
    systems = [image.system for image in images]
    if len(set(systems)) != len(systems):
        raise CheckedFalse(f"{found.reference} has several images for one system")
    if query.system is None:
        return images
    chosen = tuple(image for image in images if image.system == query.system)
    if not chosen:
        there = ", ".join(str(system) for system in systems)
        raise CheckedFalse(f"{found.reference} has no image for {query.system}, but for {there}")
    return chosen


def _verify_one(
    by: Verifiers, beside: attached.Listings, image: InspectedImage, query: Query, root: Digest
) -> answer.ImageVerification:
    """Judge one image by what is said of it, and of the commits that it is said to be of."""
    tell(Stage("verify", f"verifying {image.reference}"))
    here = beside.of(image.digest)
    findings = _examine(by, here)
    if query.commit is not None:
        chosen = judging.AttestedCommits((query.commit,))
    else:
        named = judging.name_commits(image.digest, findings.values(), by.policy)
        released = _released(beside, root) if len(named) > judging.MOST_COMMITS else frozenset()
        chosen = judging.AttestedCommits.choose(named, by.policy, released)
    # What builders say of the commit lies beside their own images, which may be other ones: those
    # are the dissents.
    elsewhere = beside.of(*(commit.key for commit in chosen.commits))
    findings |= _examine(by, elsewhere, known=findings)
    doubts = doubt_logs(findings.values(), by.watch)

    def count(distrusted: frozenset[str]) -> tuple[QuorumResult, ...]:
        claims = judging.claims_of(findings.values(), by.policy, distrusted)
        asked = (attached.agreement_of(image, commit) for commit in chosen.commits)
        return tuple(evaluate_quorum(by.policy, each, claims, by.now) for each in asked)

    quorums = count(doubts.distrusted)
    # A log proves times as well. Who is cut off from one is not told yes where it would say no.
    otherwise = count(doubts.lying) if doubts.unasked else quorums
    met = {each.asked.commit for each in quorums if each.met}
    troubles = _troubles((here, elsewhere), doubts)
    depth = _depth(beside.stores[0], image) if query.deep else None
    if isinstance(depth, Trouble):
        troubles, depth = (*troubles, depth), None
    sure = bool(met) and met <= {each.asked.commit for each in otherwise if each.met}
    barring = _barring(troubles, doubts, chosen, met=sure)
    lies = (*doubts.lies, *here.lies, *elsewhere.lies)
    fate, reason = answer.evaluate_image(quorums, findings.values(), barring, depth, lies)
    return answer.ImageVerification(
        reference=image.reference,
        digest=image.digest,
        system=image.system or "",
        nar_hash=image.nar_hash or "",
        findings=tuple(findings.values()),
        troubles=troubles,
        quorums=quorums,
        dissents=attached.detail_dissents(beside.stores, image, quorums),
        depth=depth,
        fate=fate,
        reason=reason,
        left_open=chosen.left_open,
    )


def _examine(
    by: Verifiers, listed: attached.Discovered, known: Container[bytes] = ()
) -> dict[bytes, judging.Finding]:
    """Judge each attestation that is *listed*, but for those that are *known*; by their bytes."""
    return {
        each.text: judging.examine(each.place, each.text, by.builders)
        for each in attached.attestations(listed)
        if each.text not in known
    }


def _troubles(listed: Sequence[attached.Discovered], doubts: LogDoubts) -> tuple[Trouble, ...]:
    """Return what went wrong in looking, what stores lied about, and what is wrong with logs."""
    lies = (*(lie for each in listed for lie in each.lies), *doubts.split.values())
    return (
        *(trouble for each in listed for trouble in attached.troubles_of(each)),
        *(Trouble(Fate.FALSE, lie) for lie in lies),
        *(trouble for log, trouble in doubts.watched.items() if log not in doubts.split),
    )


def _barring(
    troubles: Sequence[Trouble], doubts: LogDoubts, chosen: judging.AttestedCommits, *, met: bool
) -> Sequence[Trouble]:
    """Return what bars a verdict that all is well; *met*: a commit surely has its quorum."""
    if met:
        # A log that is out of reach proves nothing; where others prove enough, that bars nobody.
        idle = set(doubts.watched.values())
        return [each for each in troubles if each not in idle]
    left = [Trouble(Fate.UNCHECKED, chosen.left_open)] if chosen.left else []
    return [*troubles, *left]


def _released(beside: attached.Listings, root: Digest) -> frozenset[Commit]:
    """Return the commits of what is listed as a record of *root*, an index; nothing is verified."""
    records = (Unverified.read(each.text) for each in beside.of(root).attestations)
    return frozenset(each.promotion.commit for each in records if each and each.promotion)


def _depth(store: ImageStore, image: InspectedImage) -> answer.Depth | Trouble:
    """Read every layer; what cannot be read leaves the image unchecked, not disproved."""
    # Only here, for what unpacks layers takes a while to import.
    from nix_seed.image.read.check import deep_check

    tell(Stage("deep", f"reading every layer of {image.reference}", len(image.layers)))
    try:
        fetched = store.get_manifest(image.digest)
        if fetched is None:
            raise CouldNotCheck(f"{image.reference} was there a moment ago, and is gone")
        found = deep_check(store, fetched, image.reference)
    except CouldNotCheck as error:
        return Trouble(Fate.UNCHECKED, error.message)
    except (CheckedFalse, InputError) as error:
        return answer.Depth(len(image.layers), 0, 0, (error.message,))
    return answer.Depth(found.layers, found.paths, found.size, found.problems)


def verify_commit(by: Verifiers, reference: AnyReference, query: Query) -> answer.Verification:
    """Verify what ``query.commit`` was promoted as in the repository *reference*.

    That is the record's index, or the one image of ``query.system``, for which neither the index
    nor the other images are read. Raises as ``verify_image`` does.
    """
    commit, policy = query.commit, by.policy
    if commit is None:
        raise InputError("no commit was asked about")
    if not policy.promoters:
        raise InputError(
            "the policy knows no promoters, so nothing is promoted by it",
            hint="add [[promoters]] and quorum.promoters, or verify an image by its reference",
        )
    places = (reference, *query.evidence)
    beside = attached.Listings(tuple(by.stores.open(each) for each in places))
    found = recorded.judge_ledger(beside.of(commit.key), by)
    ours = (each for each in found.records if each.predicate.commit == commit)
    records = [each for each in ours if record.stands(each, policy)]
    # Before anything is fetched: what is known to be false stays so, whatever cannot be had.
    pinned = recorded.pinned_root(by, commit, records) if records else None
    so_far = record.evaluate_promotion(policy, commit, found, record.Shown(proofs={}), pinned)
    if not records:
        return _answer(by, reference, so_far)
    so_far = replace(so_far, checks=(*so_far.checks, *recorded.ask_ledgers(by, records[0])))
    if so_far.fate is Fate.FALSE:
        return _answer(by, reference, so_far)
    promoted: Digest | Check = records[0].predicate.index
    if query.system is not None:
        foreign = record.foreign_system(records[0], policy, query.system)
        proof = foreign or recorded.find_proof(beside.stores, records, query.system)
        promoted = proof if isinstance(proof, Check) else proof.leaf.image_digest
    if isinstance(promoted, Check):
        reason = f"{commit} was promoted, and for {query.system}: {promoted.reason}"
        return _answer(by, reference, _lacks(so_far, reason, promoted.fate))
    held = holder_of(by.stores, places, promoted)
    if held is None:
        reason = f"{commit} was promoted as {promoted}, which is not in {reference}"
        return _answer(by, reference, _lacks(so_far, reason, Fate.UNCHECKED))
    where, rest = held
    return verify_image(by, where.at(promoted), replace(query, evidence=tuple(rest)))


def _answer(
    by: Verifiers, reference: AnyReference, result: record.PromotionResult
) -> answer.Verification:
    policy = by.policy
    return answer.Verification(
        str(reference), policy.digest, policy.epoch, (), result.fate, result.reason, result
    )


def _lacks(so_far: record.PromotionResult, reason: str, fate: Fate) -> record.PromotionResult:
    return replace(so_far, checks=(Check("member", fate, reason), *so_far.checks))


WhyNot = tuple[Fate, str]
"""Why an image is no member of the release."""


@dataclass(frozen=True, slots=True)
class ReleasePlace:
    """Where a release is published, and *evidence*: where else attestations and images may lie."""

    target: AnyReference
    evidence: Sequence[AnyReference] = ()
    tags: Sequence[str] = ()

    @property
    def sources(self) -> tuple[AnyReference, ...]:
        """What can be read: all but a target that is made only when something is put there."""
        target = () if is_to_be_made(self.target) else (self.target,)
        return *target, *self.evidence


@dataclass(frozen=True, slots=True)
class Chosen:
    """A system's image, where it lies, and the quorum it has."""

    system: str
    digest: Digest
    nar_hash: NarHash
    reference: AnyReference
    quorum: QuorumResult
    findings: tuple[judging.Finding, ...]


def choose_members(by: Verifiers, commit: Commit, place: ReleasePlace) -> Mapping[str, Chosen]:
    """Return the image of each of the policy's systems.

    Raises ``CheckedFalse``, or ``CouldNotCheck`` where something could not be told, and lists every
    system that lacks one, with the reason.
    """
    policy = by.policy
    by = replace(by, policy=policy.logged)
    named, unread = _named(by.stores, place.sources, commit, policy.systems)
    members: dict[str, Chosen] = {}
    failed: dict[str, Sequence[WhyNot]] = {}
    for system in policy.systems:
        answers: list[Chosen | WhyNot] = [
            _verify(by, place.sources, digest, commit, system) for digest in named[system]
        ]
        answers += unread[system]
        good = next((each for each in answers if isinstance(each, Chosen)), None)
        if good is not None:
            members[system] = good
        else:
            failed[system] = [each for each in answers if not isinstance(each, Chosen)]
    if failed:
        raise _refusal(commit, failed)
    return members


def votes(member: Chosen) -> list[Vote]:
    """Return the attestations that counted for *member*, and where logs hold them."""
    quorum = member.quorum
    counted = {builder.id for builder in quorum.counted}
    names = {
        each.claim.name: each.builder.id
        for each in quorum.claims
        if each.builder and each.builder.id in counted and each.standing is judging.Standing.AGREES
    }
    good = [
        (finding, finding.verdict.bundle.envelope.pae)
        for finding in member.findings
        if finding.verdict.verified and finding.verdict.bundle is not None
    ]
    builders = {pae: names[finding.name] for finding, pae in good if finding.name in names}
    found: dict[tuple[str, Digest], set[LoggedAt]] = {}
    for finding, pae in good:
        if pae in builders:
            at = found.setdefault((builders[pae], Digest.of(pae)), set())
            at.update(finding.logs.entries)
    return [
        Vote(member.system, builder, statement, tuple(sorted(logs)))
        for (builder, statement), logs in sorted(found.items())
    ]


def _named(
    stores: Stores, references: Sequence[AnyReference], commit: Commit, systems: Sequence[str]
) -> tuple[dict[str, tuple[Digest, ...]], dict[str, list[WhyNot]]]:
    """Return the images that attestations of *commit*, or its tags, name; nothing is believed.

    And why it is not known what a tag names: it matters only where no other image is right.
    """
    places = [stores.open(each) for each in references]
    found: dict[str, dict[Digest, None]] = {system: {} for system in systems}
    unread: dict[str, list[WhyNot]] = {system: [] for system in systems}
    for place in places:
        for system in systems:
            tag = f"{commit}-{system}"
            try:
                tagged = place.head_manifest(tag)
            except (CheckedFalse, CouldNotCheck) as error:
                unread[system].append(_because(f"the tag {tag} of {place}", error))
                continue
            if tagged is not None:
                found[system][tagged.digest] = None
    beside = attached.gather(places, [commit.key])
    for each in beside.attestations:
        said = Unverified.read(each.text)
        if said and (build := said.build) and build.system in found:
            found[build.system][build.image_digest] = None
    untold = [(Fate.FALSE, reason) for reason in beside.lies]
    untold += [
        (Fate.UNCHECKED, e.reason) for e in attached.troubles_of(beside) if e.fate is Fate.UNCHECKED
    ]
    named = {system: tuple(digests) for system, digests in found.items()}
    return named, {system: [*reasons, *untold] for system, reasons in unread.items()}


def _because(label: str, error: CheckedFalse | CouldNotCheck) -> WhyNot:
    return Fate.of(error), f"{label}: {error.message}"


def _verify(
    by: Verifiers, references: Sequence[AnyReference], digest: Digest, commit: Commit, system: str
) -> Chosen | WhyNot:
    """Return the image as a member of the release if it has its quorum, else why not."""
    try:
        held = holder_of(by.stores, references, digest)
        if held is None:
            return Fate.FALSE, f"builders name {digest}, which is in none of the repositories"
        reference = held[0].at(digest)
        query = Query(commit, system, promotion=False, evidence=tuple(held[1]))
        found = verify_image(by, reference, query)
    except (CheckedFalse, CouldNotCheck) as error:
        return _because(str(digest), error)
    if found.fate is not Fate.VERIFIED:
        return found.fate, f"{digest}: {found.reason}"
    # A tag may name an index, of which the one system's image is what was verified.
    image = found.images[0]
    quorum = next(each for each in image.quorums if each.met)
    nar_hash, where = NarHash.parse(image.nar_hash), reference.at(image.digest)
    return Chosen(system, image.digest, nar_hash, where, quorum, image.findings)


def _refusal(
    commit: Commit, failed: Mapping[str, Sequence[WhyNot]]
) -> CheckedFalse | CouldNotCheck:
    """Return the error for the systems that *failed*, with what each of their images lacks."""
    reason = {name: "; ".join(why for _, why in reasons) for name, reasons in failed.items()}
    lines = "\n".join(
        f"{system}: {why or 'no image of this commit was found'}" for system, why in reason.items()
    )
    names = ", ".join(failed)
    if any(fate is Fate.UNCHECKED for reasons in failed.values() for fate, _ in reasons):
        return CouldNotCheck(
            f"{commit} is not promoted: {names} could not be checked",
            detail=lines,
            hint="nothing was published; run the same command again",
        )
    if not any(failed.values()):
        return CheckedFalse(
            f"{commit} is not promoted: no image of it was found for {names}",
            detail=lines,
            hint="nothing was published; have the builders publish and attest, or name the "
            "repository where that lies: --to, or --evidence REF",
        )
    return CheckedFalse(
        f"{commit} is not promoted: {names} has no quorum",
        detail=lines,
        hint="nothing was published; have the builders attest, or settle what they disagree on",
    )
