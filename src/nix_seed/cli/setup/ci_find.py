"""What a CI job finds of a seed in the registry: mostly it is there, and only gets its names.

To make one is ``ci_make``'s, whose many imports this spares the job.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from nix_seed.cli.setup.ci_job import CiJob
from nix_seed.core.digests import Digest
from nix_seed.core.errors import CouldNotCheck, InputError, NixFailed
from nix_seed.core.files import cache_directory
from nix_seed.core.values import dataclass
from nix_seed.core.verdict import Fate
from nix_seed.flake.nix import Nix
from nix_seed.formats.intoto.bundle import Unverified
from nix_seed.formats.oci.reference import Reference
from nix_seed.image import request as requests
from nix_seed.image.inspect import InspectedImage, inspect
from nix_seed.registry.errors import Denied
from nix_seed.setup.rules.ci_inputs import parse_switch

if TYPE_CHECKING:
    from nix_seed.image.rules.changes import PlanDiff
    from nix_seed.registry.client import Repository
    from nix_seed.release.attest import Attested
    from nix_seed.release.attester import Attester, SourceTree
    from nix_seed.release.verifiers import Verifiers
    from nix_seed.use.prove import Proof


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
    releases: Verifiers | None = None


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


class SeedJob:
    """The seed that *job* is about, to be published or, without a *publication*, made here.

    *notices* are for people to know; more come while it is made.
    """

    def __init__(self, job: CiJob, publication: Publication | None) -> None:
        self.publication = publication
        self.nix = Nix()
        self.request = job.request()
        self.stores = job.stores
        self.repository = job.repository
        self.cache = cache_directory()
        self.want_proof = parse_switch(job.options["prove"] or "true", "prove")
        self.notices: list[str] = []

    def find(self) -> SeedResult | requests.Evaluated:
        """Return the seed that is there, with this commit's tags; or what was evaluated for it.

        One HEAD request tells whether the registry has it. Who publishes and signs, and has not yet
        attested the image that is there, has to make it himself all the same. Raises as evaluation
        and the registry do.
        """
        evaluated = requests.evaluate_request(self.nix, self.request)
        there = self._find(evaluated)
        if there is not None and self._is_done(there, evaluated):
            return self._named(there, evaluated)
        return evaluated

    @property
    def remote(self) -> Repository:
        """The repository that the seed is wanted in."""
        return self.stores.repository(self.repository)

    def _find(self, evaluated: requests.Evaluated) -> InspectedImage | None:
        """Return the image of this recipe, if the registry has it."""
        try:
            found = requests.find_by_key(self.remote, evaluated)
            at = None if found is None else self.repository.at(found.digest)
            image = None if at is None else inspect(self.stores, at)
        except Denied:
            if self.publication is not None:
                # To read what is not there yet is denied by some registries, whoever asks.
                self.remote.check_writable()
            return None
        except CouldNotCheck:
            if self.publication is not None:
                raise
            return None  # Who only builds need not be let in.
        return image if isinstance(image, InspectedImage) else None

    def _is_done(self, image: InspectedImage, evaluated: requests.Evaluated) -> bool:
        """Whether *image* needs no word of this builder any more."""
        publication = self.publication
        if publication is None or publication.attester is None:
            return True
        from nix_seed.trust.attestations import discover

        # Unverified: it only saves work. Who could plant it could as well remove the image.
        found = discover(self.remote, image.digest).attestations
        words = [said.build for each in found if (said := Unverified.read(each.text))]
        own = [each for each in words if each and each.builder == publication.attester.builder]
        revision = evaluated.evaluation.flake.revision
        if any(each.source.commit.hex == revision for each in own):
            return True
        releases = publication.releases
        return bool(own) and (releases is None or self._are_promoted(image, releases))

    def _are_promoted(self, own: InspectedImage, releases: Verifiers) -> bool:
        """Whether the last release is of just the images that this commit evaluates to.

        Each system's job asks that of all systems, not of its own alone: where one of them has a
        new image, a release of this commit needs the word of them all.
        """
        from nix_seed.cli.setup.ci_promote import promoted_images
        from nix_seed.release.verify import Query, verify_image

        released = promoted_images(self.stores, self.repository)
        if released is None or set(released[1]) != set(releases.policy.systems):
            return False
        index, images = released
        others = [system for system in images if system != own.system]
        if images.get(own.system or "") != own.digest:
            return False
        found = verify_image(releases, self.repository.at(index), Query())
        if found.fate is not Fate.VERIFIED:
            self.notices.append(f"the last release counts for nothing here: {found.reason}")
            return False
        return all(self._image_of(system) == images[system] for system in others)

    def _image_of(self, system: str) -> Digest | None:
        """Return the image of the recipe for another *system*; None where that cannot be told."""
        try:
            chosen = replace(self.request.choice, system=system)
            evaluated = requests.evaluate_request(self.nix, replace(self.request, choice=chosen))
        except (NixFailed, InputError) as error:
            self.notices.append(
                f"the flake cannot be evaluated for {system} on this machine, so this commit is "
                f"attested though all its seeds may be released: {error.message}"
            )
            return None
        found = requests.find_by_key(self.remote, evaluated)
        return None if found is None else found.digest

    def _named(self, image: InspectedImage, evaluated: requests.Evaluated) -> SeedResult:
        """Give the image that is there the tags of this commit."""
        tags: tuple[str, ...] = ()
        if self.publication is not None:
            wanted = (*requests.tags_of(evaluated)[1:], *self.publication.tags)
            tags = requests.name_image(self.remote, Reference.parse(image.reference), wanted)
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
