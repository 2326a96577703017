"""What a CI job does for a seed: find it in the registry, or make, prove, push and attest it.

For its report it says what of the seed before is used again.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError, NixFailed, NixSeedError
from nix_seed.core.events import OnEvent, ignore
from nix_seed.core.verdict import Fate
from nix_seed.flake.nix import Nix
from nix_seed.formats.intoto.unverified import Unverified
from nix_seed.formats.oci.reference import Reference
from nix_seed.image.build import Built, Destination, assemble_image, store_image
from nix_seed.image.inspect import InspectedImage, inspect
from nix_seed.image.layer_cache import LayerCache, LayerRecords
from nix_seed.image.plan import (
    Base,
    Evaluated,
    Plan,
    Request,
    compare_with_base,
    evaluate_request,
    locked_base,
    open_base,
    plan_image,
    read_lock,
)
from nix_seed.image.publishable import check_publishable
from nix_seed.image.push import Pushed, find_by_key, name_image, push_image, tags_of
from nix_seed.image.rules.changes import PlanDiff
from nix_seed.image.rules.spec import Spec
from nix_seed.registry.client import Repository
from nix_seed.registry.errors import Denied
from nix_seed.registry.open import AnyReference, Stores
from nix_seed.registry.rules.lock import LOCK_NAME, SeedLock
from nix_seed.release.attest import (
    Attested,
    Attester,
    SourceTree,
    Workshop,
    attest,
    prepare_attest,
)
from nix_seed.setup.ci_promote import ReleaseAuthority, promoted_images, verify_release
from nix_seed.trust.attestations import discover
from nix_seed.use.prove import Proof, check_proof, prove_built

_LATEST = "latest"


@dataclass(frozen=True, slots=True)
class LastSeed:
    """The image *name*; so many *layers* of the new one, and *size* bytes, it has already."""

    name: str
    layers: int
    size: int
    diff: PlanDiff


@dataclass(frozen=True, slots=True)
class SeedBefore:
    """The seed *name* as it was before this job changed anything."""

    name: str
    spec: Spec
    layers: frozenset[Digest]


def last_reference(lock: SeedLock | None, repository: Reference, system: str) -> AnyReference:
    """Name the seed before this one: ``seed.lock``'s, or else what was promoted last."""
    locked = None if lock is None else lock.reference(system)
    return locked or repository.at(_LATEST)


def read_last(stores: Stores, reference: AnyReference, system: str) -> SeedBefore | None:
    """Read the seed that *reference* names; None where it cannot be.

    There may be none yet, it may be private or foreign: no reason for a job to fail.
    """
    try:
        base = open_base(stores, reference, system)
        found = inspect(stores, reference)
    except NixSeedError:
        return None
    images = (found,) if isinstance(found, InspectedImage) else found.images
    layers = frozenset(
        layer.descriptor.digest
        for image in images
        if image.system == system
        for layer in image.layers
    )
    return SeedBefore(str(reference), base.spec, layers)


def compare_with_last(before: SeedBefore, built: Built) -> LastSeed:
    """Say what of *built* who has the seed *before* has already, and who changed the rest."""
    made = [layer.layer.descriptor for layer in built.layers]
    kept = [layer for layer in made if layer.digest in before.layers]
    diff = compare_with_base(built.plan.spec, before.spec)
    return LastSeed(before.name, len(kept), sum(layer.size for layer in kept), diff)


_SHOWN = 10  # store paths that a notice names


@dataclass(frozen=True, slots=True)
class Publication:
    """Under which *tags*, and by whom: without an *attester* the image is pushed, not attested.

    With *releases*, a policy that has commits promoted, each commit needs the word of its builders,
    unless all its images have been promoted already.
    """

    tags: tuple[str, ...]
    tree: SourceTree
    attester: Attester | None = None
    releases: ReleaseAuthority | None = None


@dataclass(frozen=True, slots=True)
class SeedResult:
    """What there is now. *size* is what a pull with nothing at hand fetches, in bytes.

    *built* is false where the registry had the image; *published* says whether it is there now.
    *sent* are the bytes that had to be pushed, *proof* is None where nothing was proved, and
    *unproved* says why. *notices* are for people to know.
    """

    system: str
    digest: Digest
    nar_hash: str
    input_key: str
    reference: str
    built: bool
    published: bool
    layers: int
    size: int
    tags: tuple[str, ...] = ()
    sent: int = 0
    proof: Proof | None = None
    unproved: str | None = None
    attested: Attested | None = None
    last: LastSeed | None = None
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SeedJob:
    """The seed of *request*, wanted in *repository*, or without a *publication* here."""

    stores: Stores
    nix: Nix
    request: Request
    repository: Reference
    cache: Path
    publication: Publication | None
    want_proof: bool = True


def make_seed(job: SeedJob, on_event: OnEvent = ignore) -> SeedResult:
    """See that there is the seed of *job*.

    One HEAD request tells whether the registry has it. Who publishes and signs, and has not yet
    attested the image that is there, makes it himself all the same. An image is given its tags
    only when all that is said of it lies beside it. Raises as evaluation, the build, the registry
    and the signer do; ``CheckedFalse`` where the seed lacks what its flake needs.
    """
    stores, nix, request = job.stores, job.nix, job.request
    repository, cache, publication = job.repository, job.cache, job.publication
    evaluated = evaluate_request(nix, request, on_event)
    remote = stores.registry(repository.registry).repository(repository.repository)
    there = _find(stores, remote, repository, evaluated, publication)
    notices: list[str] = []
    if there is not None and publication is not None:
        seeds = _Seeds(job, remote, evaluated, notices)
        there = there if seeds.is_done(there, publication) else None
    if there is not None:
        return _named(remote, there, evaluated, publication)
    lock = read_lock(nix, evaluated.evaluation.flake)
    system = evaluated.evaluation.recipe.outline.system
    if publication is not None:
        if publication.attester is not None:
            prepare_attest(publication.tree, publication.attester, system, on_event)
        remote.check_writable()
    base = _base(stores, lock, system, publication, notices)
    before = read_last(stores, last_reference(lock, repository, system), system)
    plan = plan_image(nix, request, base, on_event, evaluated)
    if publication is not None:
        # Before any work: what may not be passed on is not made either.
        check_publishable(plan.spec, repository, plan.licences.problem)
    else:
        notices.extend(_why_refused(plan, repository))
    layers = LayerCache(cache)
    built = assemble_image(nix, plan, layers, reuse=False, on_event=on_event)
    destination = Destination("oci", cache / "images", plan.input_key)
    here = store_image(built, layers, destination, on_event)
    proof, unproved = None, None
    if job.want_proof:
        proof, unproved = _prove(nix, built, destination, cache, on_event)
    pushed, attested = None, None
    tags: tuple[str, ...] = ()
    if publication is not None:
        pushed = _push(nix, plan, remote, repository, layers, on_event)
        image = repository.at(pushed.built.digest)
        attested = _attest(stores, nix, image, layers, publication, on_event)
        # Last: whoever finds the image by a name finds its builder's word as well.
        tags = name_image(remote, image, (*tags_of(evaluated), *publication.tags))
    return SeedResult(
        system=plan.spec.system,
        digest=built.digest,
        nar_hash=str(plan.spec.nar_hash),
        input_key=plan.input_key,
        reference=here if pushed is None else pushed.reference,
        built=True,
        published=pushed is not None,
        layers=len(built.layers),
        size=sum(each.layer.descriptor.size for each in built.layers),
        tags=tags,
        sent=0 if pushed is None else pushed.sent,
        proof=proof,
        unproved=unproved,
        attested=attested,
        last=None if before is None else compare_with_last(before, built),
        notices=tuple(notices),
    )


def _find(
    stores: Stores,
    remote: Repository,
    repository: Reference,
    evaluated: Evaluated,
    publication: Publication | None,
) -> InspectedImage | None:
    """Return the image of this recipe, if the registry has it and we need add nothing to it."""
    try:
        found = find_by_key(remote, evaluated)
        image = None if found is None else inspect(stores, repository.at(found.digest))
    except Denied:
        if publication is not None:
            # To read what is not there yet is denied by some registries, whoever asks.
            remote.check_writable()
        return None
    except CouldNotCheck:
        if publication is not None:
            raise
        return None  # Who only builds need not be let in.
    return image if isinstance(image, InspectedImage) else None


def _base(
    stores: Stores,
    lock: SeedLock | None,
    system: str,
    publication: Publication | None,
    notices: list[str],
) -> Base | None:
    """Return the seed that *lock* names, whose layers are kept.

    What is published must be what everyone makes, and needs it. Who only builds, a fork that may
    not read it for one, does without.
    """
    try:
        return None if lock is None else locked_base(stores, lock, system)
    except CouldNotCheck as error:
        if publication is not None:
            raise
        notices.append(
            f"{LOCK_NAME} names a seed that could not be read, so the layers are divided as if "
            f"there were none: {error.message}"
        )
        return None


def _why_refused(plan: Plan, repository: Reference) -> Iterator[str]:
    """Yield why *repository* would not be sent this seed: a pull request is the time to know."""
    try:
        check_publishable(plan.spec, repository, plan.licences.problem)
    except CheckedFalse as error:
        lines = (error.detail or "").splitlines()
        shown = [*lines[:_SHOWN], *([f"and {len(lines) - _SHOWN} more"] if lines[_SHOWN:] else [])]
        yield f"publishing would be refused: {error.message}: {'; '.join(shown)} ({error.hint})"


@dataclass(frozen=True, slots=True)
class _Seeds:
    """The seeds of one commit, and what was said of them."""

    job: SeedJob
    remote: Repository
    evaluated: Evaluated
    notices: list[str]

    def is_done(self, image: InspectedImage, publication: Publication) -> bool:
        """Whether *image* needs no word of this builder any more."""
        if publication.attester is None:
            return True
        # Unverified: it only saves work. Who could plant it could as well remove the image.
        found = discover(self.remote, image.digest).attestations
        words = [said.build for each in found if (said := Unverified.read(each.text))]
        own = [each for each in words if each and each.builder == publication.attester.builder]
        revision = self.evaluated.evaluation.flake.revision
        if any(each.source.commit.hex == revision for each in own):
            return True
        releases = publication.releases
        return bool(own) and (releases is None or self._are_promoted(image, releases))

    def _are_promoted(self, own: InspectedImage, releases: ReleaseAuthority) -> bool:
        """Whether the last release is of just the images that this commit evaluates to.

        Each system's job asks that of all systems, not of its own alone: where one of them has a
        new image, a release of this commit needs the word of them all.
        """
        released = promoted_images(self.job.stores, self.job.repository)
        if released is None or set(released[1]) != set(releases.policy.systems):
            return False
        index, images = released
        others = [system for system in images if system != own.system]
        if images.get(own.system or "") != own.digest:
            return False
        found = verify_release(self.job.stores, self.job.repository.at(index), releases)
        if found.fate is not Fate.VERIFIED:
            self.notices.append(f"the last release counts for nothing here: {found.words}")
            return False
        return all(self._image_of(system) == images[system] for system in others)

    def _image_of(self, system: str) -> Digest | None:
        """Return the image of the recipe for another *system*; None where that cannot be told."""
        try:
            evaluated = evaluate_request(self.job.nix, replace(self.job.request, system=system))
        except (NixFailed, InputError) as error:
            self.notices.append(
                f"the flake cannot be evaluated for {system} on this machine, so this commit is "
                f"attested though all its seeds may be released: {error.message}"
            )
            return None
        found = find_by_key(self.remote, evaluated)
        return None if found is None else found.digest


def _named(
    remote: Repository,
    image: InspectedImage,
    evaluated: Evaluated,
    publication: Publication | None,
) -> SeedResult:
    """Give the image that is there the tags of this commit."""
    tags: tuple[str, ...] = ()
    if publication is not None:
        where = Reference.parse(image.reference)
        tags = name_image(remote, where, (*tags_of(evaluated)[1:], *publication.tags))
    return SeedResult(
        system=image.system or evaluated.evaluation.recipe.outline.system,
        digest=image.digest,
        nar_hash=image.nar_hash or "",
        input_key=evaluated.input_key,
        reference=image.reference,
        built=False,
        published=True,
        layers=len(image.layers),
        size=image.size,
        tags=tags,
    )


def _prove(
    nix: Nix, built: Built, place: Destination, cache: Path, on_event: OnEvent
) -> tuple[Proof | None, str | None]:
    """Prove the seed, or return why it could not be tried: macOS has no engine, for one."""
    if built.plan.spec.kind != "seed":
        return None, None
    try:
        proof = prove_built(nix, built, place, cache, on_event)
    except CouldNotCheck as error:
        return None, f"{error.message}: {error.hint}" if error.hint else error.message
    check_proof(proof)
    return proof, None


def _push(
    nix: Nix,
    plan: Plan,
    remote: Repository,
    repository: Reference,
    layers: LayerCache,
    on_event: OnEvent,
) -> Pushed:
    """Send what the registry lacks of the layers just made; the image gets no tag yet."""
    # Records of its own: what this job pushes, this job has made.
    with tempfile.TemporaryDirectory(prefix="nix-seed-") as records:
        return push_image(
            nix,
            plan,
            remote,
            repository,
            records=LayerRecords(Path(records)),
            cache=layers,
            tags=None,
            on_event=on_event,
        )


def _attest(
    stores: Stores,
    nix: Nix,
    image: Reference,
    layers: LayerCache,
    publication: Publication,
    on_event: OnEvent,
) -> Attested | None:
    if publication.attester is None:
        return None
    shop = Workshop(stores, nix, layers, on_event)
    return attest(shop, image, publication.tree, publication.attester)
