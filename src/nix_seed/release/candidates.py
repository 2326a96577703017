"""Which image of each system is to be released: the one that has the policy's quorum, in logs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from nix_seed.core.digests import Digest, NarHash
from nix_seed.core.errors import CheckedFalse, CouldNotCheck
from nix_seed.core.verdict import Fate
from nix_seed.formats.intoto.promotion import Unverified
from nix_seed.formats.intoto.statement import Commit
from nix_seed.registry.open import AnyReference, Stores, holder_of, is_to_be_made
from nix_seed.release.rules.tree import Vote
from nix_seed.release.verifiers import Verifiers
from nix_seed.release.verify import Query, verify_image
from nix_seed.trust.attestations import gather, troubles_of
from nix_seed.trust.rules.claims import Finding, Standing
from nix_seed.trust.rules.policy import LoggedAt
from nix_seed.trust.rules.quorum import QuorumResult

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
    findings: tuple[Finding, ...]


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
        if each.builder and each.builder.id in counted and each.standing is Standing.AGREES
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
    beside = gather(places, [commit.key])
    for each in beside.attestations:
        said = Unverified.read(each.text)
        if said and (build := said.build) and build.system in found:
            found[build.system][build.image_digest] = None
    untold = [(Fate.FALSE, reason) for reason in beside.lies]
    untold += [(Fate.UNCHECKED, e.reason) for e in troubles_of(beside) if e.fate is Fate.UNCHECKED]
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
