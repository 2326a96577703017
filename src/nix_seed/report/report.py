"""Everything there is to say of one image, gathered for a page; a part that is missing says why."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeVar

from nix_seed.core.digests import Digest
from nix_seed.core.errors import (
    CheckedFalse,
    CouldNotCheck,
    InputError,
    NixFailed,
    NixSeedError,
    of_store,
)
from nix_seed.core.events import OnEvent, Stage, ignore
from nix_seed.flake.nix import Nix
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.image.inspect import InspectedImage, inspect
from nix_seed.image.plan import compare_with_base
from nix_seed.image.read.spec import RemoteSeed, read_seed
from nix_seed.image.rules.changes import PlanDiff
from nix_seed.image.rules.spec import Spec
from nix_seed.licences.licences import Licences
from nix_seed.licences.rules.judge import Judged
from nix_seed.registry.open import AnyReference, Stores, fetch
from nix_seed.registry.store import ImageStore
from nix_seed.registry.transfer import choose_system
from nix_seed.release.rules.answer import Verification
from nix_seed.roots.roots import RootsReport, report_roots, roots_of_paths
from nix_seed.roots.rules.roots import Roots
from nix_seed.roots.rules.walk import Walk, walk_roots
from nix_seed.sbom.attach import attached_licences
from nix_seed.sbom.sbom import open_seed_image
from nix_seed.trust.rules.policy import Policy

_MOST_STOPS = 600  # a page of some 500 kB
_MOST_WAYS = 150

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Absent:
    """A part that is not there. *state* is why: the three reasons never look alike.

    *hint* says how to have it.
    """

    state: Literal["not asked", "could not check", "checked and false"]
    words: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """What whoever has the image *base* must pull.

    Sizes are of compressed layers, as they travel: *sizes* of each layer of the new image,
    *pull_bytes* of those numbered *pulled*.
    """

    base: str
    digest: Digest
    diff: PlanDiff
    sizes: tuple[int, ...]
    pulled: tuple[int, ...]

    @property
    def pull_bytes(self) -> int:
        """What is pulled, of ``total_bytes``."""
        return sum(self.sizes[n] for n in self.pulled)

    @property
    def total_bytes(self) -> int:
        """All layers."""
        return sum(self.sizes)


@dataclass(frozen=True, slots=True)
class JudgedPaths:
    """The licence of each store path of the image; *unjudged* are those the flake knows nothing of.

    Without a *flake* it is what a bill of materials says that is attached to the image. *problem*
    is why ``meta`` could not be read at all.
    """

    flake: str | None
    judged: tuple[Judged, ...]
    unjudged: tuple[StorePath, ...]
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class FoundRoots:
    """The ends of the image's graph, and the graph as a walk."""

    report: RootsReport
    walk: Walk


@dataclass(frozen=True, slots=True)
class TrustAnswer:
    """The answer of ``verify`` by *policy*, at the moment *now*."""

    policy: Policy
    verification: Verification
    now: datetime


@dataclass(frozen=True, slots=True)
class ImageReport:
    """One image and all that was found out about it. *reference* is as it was given."""

    reference: str
    image: InspectedImage
    spec: Spec
    change: Change | Absent
    licences: JudgedPaths | Absent
    trust: TrustAnswer | Absent
    roots: FoundRoots | Absent


def part(gather: Callable[[], Found]) -> Found | Absent:
    """Return what *gather* does, or why it does not: a report lacks a part rather than failing.

    ``InputError`` passes: whoever asked for something that cannot be is told so.
    """
    try:
        return gather()
    except CheckedFalse as error:
        return Absent("checked and false", _words(error), error.hint or "")
    except (CouldNotCheck, NixFailed) as error:
        return Absent("could not check", _words(error), error.hint or "")


def _words(error: NixSeedError) -> str:
    return error.message if not error.detail else f"{error.message}\n{error.detail}"


def open_report(
    stores: Stores, reference: AnyReference, system: str
) -> tuple[InspectedImage, RemoteSeed]:
    """Read the image that *reference* names, of an index *system*'s; only its last layer is read.

    Raises ``InputError`` where there is no such seed.
    """
    store = stores.open(reference)
    root = choose_system(store, fetch(store, reference), system)
    with of_store():
        image = inspect(stores, reference.at(root.descriptor.digest))
    if not isinstance(image, InspectedImage):
        raise InputError(f"{reference} is an index of images", hint="name one system: --system")
    return image, read_seed(str(reference), root, store)


def compare_images(
    stores: Stores, seed: RemoteSeed, image: InspectedImage, base: AnyReference
) -> Change:
    """Say what a consumer of *base* must pull; ``InputError`` if it is of another system."""
    store: ImageStore = stores.open(base)
    root = choose_system(store, fetch(store, base), seed.spec.system)
    old = read_seed(str(base), root, store)
    if old.spec.system != seed.spec.system:
        raise InputError(
            f"the base {base} is for {old.spec.system}, the image for {seed.spec.system}",
            hint="name a base of the same system",
        )
    at_hand = {layer.digest for layer in old.manifest.layers}
    layers = [layer.descriptor for layer in image.layers]
    pulled = tuple(n for n, layer in enumerate(layers) if layer.digest not in at_hand)
    return Change(
        base=str(base),
        digest=root.descriptor.digest,
        diff=compare_with_base(seed.spec, old.spec),
        sizes=tuple(layer.size for layer in layers),
        pulled=pulled,
    )


def judged_paths(
    spec: Spec, flake: str | None, known: Mapping[StorePath, Judged], problem: str | None = None
) -> JudgedPaths:
    """Say of each path of the image what is *known* of it, by *flake* or what is attached."""
    return JudgedPaths(
        flake=flake,
        judged=tuple(known[path] for path in sorted(spec.paths) if path in known),
        unjudged=tuple(path for path in sorted(spec.paths) if path not in known),
        problem=problem,
    )


def attached_paths(stores: Stores, reference: AnyReference, system: str) -> JudgedPaths | None:
    """Say what a bill of materials says that is attached to the image; None where there is none.

    Raises ``CheckedFalse`` where none of those attached is of this image, ``CouldNotCheck`` where
    it cannot be told which one to believe.
    """
    image = open_seed_image(stores, reference, system)
    told, trouble = attached_licences(image)
    if isinstance(trouble, InputError):
        raise CouldNotCheck(trouble.message, hint="name the flake: nix-seed report … --flake .")
    if trouble is not None:
        raise trouble
    return judged_paths(image.spec, None, told) if told else None


def find_image_roots(
    nix: Nix,
    seed: RemoteSeed,
    licences: Licences | None = None,
    on_event: OnEvent = ignore,
) -> FoundRoots:
    """Follow the image to its trust roots: by the flake's recipe, if *licences* were read of one.

    Else by what this machine's store knows of its paths.
    """
    on_event(Stage("roots", "following the image to its trust roots"))
    if not nix.is_at_hand():
        raise CouldNotCheck(
            "there is no Nix on this machine, which knows the derivations",
            hint="make the report where the image was built",
        )
    unknown: Sequence[StorePath]
    if licences is None:
        roots, unknown = _known_here(nix, seed)
    else:
        roots = licences.roots
        ends = {end.path for end in roots.ends}
        unknown = [p for p in seed.spec.paths if p not in roots.makers and p not in ends]
    report = report_roots(nix, roots, unknown, on_event)
    matter = [*report.findings.executed, *report.findings.binaries]
    wanted = [each.path for each in matter[:_MOST_WAYS]]
    return FoundRoots(report, walk_roots(roots, nix.read_derivation, _MOST_STOPS, wanted))


def _known_here(nix: Nix, seed: RemoteSeed) -> tuple[Roots, Sequence[StorePath]]:
    try:
        return roots_of_paths(nix, seed.name, seed.spec.paths)
    except InputError as error:
        # Nobody asked for the impossible: the image is merely from elsewhere.
        hint = "name the flake that the image was built from, with --flake"
        raise CouldNotCheck(error.message, hint=hint) from error
