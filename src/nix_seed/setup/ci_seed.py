"""What a CI job does for a seed: find it in the registry, or make, prove, push and attest it.

For its report it says what of the seed before is used again.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError, NixFailed, NixSeedError
from nix_seed.core.events import OnEvent, ignore
from nix_seed.core.verdict import Fate
from nix_seed.flake.nix import Nix
from nix_seed.formats.intoto.promotion import Unverified
from nix_seed.formats.oci.reference import Reference
from nix_seed.image import plan as planning
from nix_seed.image.build import Assembly, Built, Destination, store_image
from nix_seed.image.inspect import InspectedImage, inspect
from nix_seed.image.layer_cache import LayerCache, LayerRecords
from nix_seed.image.plan import Base, Plan
from nix_seed.image.push import check_publishable, name_image, push_image
from nix_seed.image.read.spec import RemoteSeed, read_seed
from nix_seed.image.read.unpack import private_cache
from nix_seed.image.request import Evaluated, Request, evaluate_request, find_by_key, tags_of
from nix_seed.image.rules.changes import PlanDiff
from nix_seed.registry.client import Repository
from nix_seed.registry.errors import Denied
from nix_seed.registry.open import AnyReference, Stores, choose_system, fetch
from nix_seed.registry.rules.lock import LOCK_NAME, SeedLock
from nix_seed.release.attest import Attested, Attester, SourceTree, Workshop, attest, prepare_attest
from nix_seed.release.verify import Query, verify_image
from nix_seed.setup.ci_promote import ReleaseAuthority, promoted_images
from nix_seed.trust.attestations import discover
from nix_seed.use.prove import Proof, check_proof, prove_built

_LATEST = "latest"
_SHOWN = 10  # store paths that a notice names


@dataclass(frozen=True, slots=True)
class LastSeed:
    """The image *name*; so many *layers* of the new one, and *size* bytes, it has already."""

    name: str
    layers: int
    size: int
    diff: PlanDiff


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
    """The seed of *request*, wanted in *repository*, or without a *publication* here.

    *notices* are for people to know; more come while it is made.
    """

    stores: Stores
    nix: Nix
    request: Request
    repository: Reference
    cache: Path
    publication: Publication | None
    want_proof: bool = True
    on_event: OnEvent = ignore
    notices: list[str] = field(default_factory=list)

    def make(self) -> SeedResult:
        """See that there is the seed.

        One HEAD request tells whether the registry has it. Who publishes and signs, and has not yet
        attested the image that is there, makes it himself all the same. An image is given its tags
        only when all that is said of it lies beside it. Raises as evaluation, the build, the
        registry and the signer do; ``CheckedFalse`` where the seed lacks what its flake needs.
        """
        evaluated = evaluate_request(self.nix, self.request, self.on_event)
        there = self._find(evaluated)
        if there is not None and self._is_done(there, evaluated):
            return self._named(there, evaluated)
        lock = planning.read_lock(self.nix, evaluated.evaluation.flake)
        system = evaluated.evaluation.recipe.outline.system
        if self.publication is not None:
            if self.publication.attester is not None:
                tree, attester = self.publication.tree, self.publication.attester
                prepare_attest(tree, attester, system, self.on_event)
            self._remote.check_writable()
        base, last = self._base(lock, system), self._last(lock, system)
        plan = planning.plan_image(self.nix, self.request, base, self.on_event, evaluated)
        if self.publication is not None:
            # Before any work: what may not be passed on is not made either.
            check_publishable(plan.spec, self.repository, plan.licences.problem)
        else:
            self.notices.extend(_why_refused(plan, self.repository))
        # What this job pushes, this job has made.
        how = Assembly(self.nix, LayerCache(self.cache), reuse=False, on_event=self.on_event)
        built = how.assemble(plan)
        destination = Destination("oci", self.cache / "images", plan.input_key)
        here = store_image(built, how.cache, destination, self.on_event)
        proof, unproved = self._prove(built, destination)
        made = SeedResult(
            system=plan.spec.system,
            digest=built.digest,
            nar_hash=str(plan.spec.nar_hash),
            input_key=plan.input_key,
            reference=here,
            built=True,
            published=False,
            layers=len(built.layers),
            size=sum(each.layer.descriptor.size for each in built.layers),
            proof=proof,
            unproved=unproved,
            last=None if last is None else _compare(last, built),
            notices=tuple(self.notices),
        )
        return made if self.publication is None else self._publish(made, plan, how)

    @property
    def _remote(self) -> Repository:
        return self.stores.repository(self.repository)

    def _find(self, evaluated: Evaluated) -> InspectedImage | None:
        """Return the image of this recipe, if the registry has it."""
        try:
            found = find_by_key(self._remote, evaluated)
            at = None if found is None else self.repository.at(found.digest)
            image = None if at is None else inspect(self.stores, at)
        except Denied:
            if self.publication is not None:
                # To read what is not there yet is denied by some registries, whoever asks.
                self._remote.check_writable()
            return None
        except CouldNotCheck:
            if self.publication is not None:
                raise
            return None  # Who only builds need not be let in.
        return image if isinstance(image, InspectedImage) else None

    def _is_done(self, image: InspectedImage, evaluated: Evaluated) -> bool:
        """Whether *image* needs no word of this builder any more."""
        publication = self.publication
        if publication is None or publication.attester is None:
            return True
        # Unverified: it only saves work. Who could plant it could as well remove the image.
        found = discover(self._remote, image.digest).attestations
        words = [said.build for each in found if (said := Unverified.read(each.text))]
        own = [each for each in words if each and each.builder == publication.attester.builder]
        revision = evaluated.evaluation.flake.revision
        if any(each.source.commit.hex == revision for each in own):
            return True
        releases = publication.releases
        return bool(own) and (releases is None or self._are_promoted(image, releases))

    def _are_promoted(self, own: InspectedImage, releases: ReleaseAuthority) -> bool:
        """Whether the last release is of just the images that this commit evaluates to.

        Each system's job asks that of all systems, not of its own alone: where one of them has a
        new image, a release of this commit needs the word of them all.
        """
        released = promoted_images(self.stores, self.repository)
        if released is None or set(released[1]) != set(releases.policy.systems):
            return False
        index, images = released
        others = [system for system in images if system != own.system]
        if images.get(own.system or "") != own.digest:
            return False
        found = verify_image(releases.by, self.repository.at(index), Query())
        if found.fate is not Fate.VERIFIED:
            self.notices.append(f"the last release counts for nothing here: {found.reason}")
            return False
        return all(self._image_of(system) == images[system] for system in others)

    def _image_of(self, system: str) -> Digest | None:
        """Return the image of the recipe for another *system*; None where that cannot be told."""
        try:
            evaluated = evaluate_request(self.nix, replace(self.request, system=system))
        except (NixFailed, InputError) as error:
            self.notices.append(
                f"the flake cannot be evaluated for {system} on this machine, so this commit is "
                f"attested though all its seeds may be released: {error.message}"
            )
            return None
        found = find_by_key(self._remote, evaluated)
        return None if found is None else found.digest

    def _named(self, image: InspectedImage, evaluated: Evaluated) -> SeedResult:
        """Give the image that is there the tags of this commit."""
        tags: tuple[str, ...] = ()
        if self.publication is not None:
            wanted = (*tags_of(evaluated)[1:], *self.publication.tags)
            tags = name_image(self._remote, Reference.parse(image.reference), wanted)
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

    def _base(self, lock: SeedLock | None, system: str) -> Base | None:
        """Return the seed that *lock* names, whose layers are kept.

        What is published must be what everyone makes, and needs it. Who only builds, a fork that
        may not read it for one, does without.
        """
        try:
            return None if lock is None else planning.locked_base(self.stores, lock, system)
        except CouldNotCheck as error:
            if self.publication is not None:
                raise
            self.notices.append(
                f"{LOCK_NAME} names a seed that could not be read, so the layers are divided as if "
                f"there were none: {error.message}"
            )
            return None

    def _last(self, lock: SeedLock | None, system: str) -> RemoteSeed | None:
        """Return the seed before this one: the lock's, or what was promoted last; None without.

        There may be none yet, it may be private or foreign: no reason for a job to fail.
        """
        locked = None if lock is None else lock.reference(system)
        reference: AnyReference = locked or self.repository.at(_LATEST)
        try:
            store = self.stores.open(reference)
            root = choose_system(store, fetch(store, reference), system)
            return read_seed(str(reference), root, store)
        except NixSeedError:
            return None

    def _prove(self, built: Built, place: Destination) -> tuple[Proof | None, str | None]:
        """Prove the seed, or return why it could not be tried: macOS has no engine, for one."""
        if not self.want_proof or built.plan.spec.kind != "seed":
            return None, None
        try:
            proof = prove_built(self.nix, built, place, private_cache(self.cache), self.on_event)
        except CouldNotCheck as error:
            return None, f"{error.message}: {error.hint}" if error.hint else error.message
        check_proof(proof)
        return proof, None

    def _publish(self, made: SeedResult, plan: Plan, how: Assembly) -> SeedResult:
        """Send what the registry lacks of the layers just made, attest the image, and name it."""
        publication, remote = self.publication, self._remote
        assert publication is not None
        with tempfile.TemporaryDirectory(prefix="nix-seed-") as name:
            records = LayerRecords(Path(name))
            # The cache holds what was just made, and each blob is hashed anew before it is sent.
            ours = replace(how, reuse=True)
            pushed = push_image(ours, plan, remote, self.repository, records, tags=None)
        image, attested = self.repository.at(pushed.built.digest), None
        if publication.attester is not None:
            shop = Workshop(self.stores, self.nix, how.cache, self.on_event)
            attested = attest(shop, image, publication.tree, publication.attester)
        # Last: whoever finds the image by a name finds its builder's word as well.
        tags = name_image(remote, image, (*tags_of(plan.evaluated), *publication.tags))
        made = replace(made, reference=pushed.reference, published=True, sent=pushed.sent)
        return replace(made, attested=attested, tags=tags)


def _compare(last: RemoteSeed, built: Built) -> LastSeed:
    """Say what of *built* who has the seed *last* has already, and who changed the rest."""
    at_hand = {layer.digest for layer in last.manifest.layers}
    made = [layer.layer.descriptor for layer in built.layers]
    kept = [layer.size for layer in made if layer.digest in at_hand]
    diff = planning.compare_with_base(built.plan.spec, last.spec)
    return LastSeed(last.name, len(kept), sum(kept), diff)


def _why_refused(plan: Plan, repository: Reference) -> Iterator[str]:
    """Yield why *repository* would not be sent this seed: a pull request is the time to know."""
    try:
        check_publishable(plan.spec, repository, plan.licences.problem)
    except CheckedFalse as error:
        lines = (error.detail or "").splitlines()
        shown = [*lines[:_SHOWN], *([f"and {len(lines) - _SHOWN} more"] if lines[_SHOWN:] else [])]
        yield f"publishing would be refused: {error.message}: {'; '.join(shown)} ({error.hint})"
