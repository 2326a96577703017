"""One index of several systems' images, complete or not at all; ``seed.lock`` pins each."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Self

from nix_seed.core.digests import Digest, NarHash
from nix_seed.core.errors import CheckedFalse, InputError
from nix_seed.core.events import Stage, tell
from nix_seed.core.values import dataclass
from nix_seed.core.words import plural
from nix_seed.formats.oci import manifest as oci
from nix_seed.formats.oci.reference import LayoutReference, Reference, check_tag
from nix_seed.image.inspect import InspectedImage, inspect, read_config
from nix_seed.image.push import check_images_publishable
from nix_seed.registry.open import AnyReference, Stores, fetch
from nix_seed.registry.rules.lock import LockedImage, SeedLock
from nix_seed.registry.store import Fetched, ImageStore
from nix_seed.registry.transfer import TagMoved, transfer


def make_lock(stores: Stores, reference: AnyReference) -> SeedLock:
    """Read what *reference* names, an index or one image, and pin each system's seed.

    Raises ``InputError`` for what is not a seed, or an index with two images of one system.
    """
    found = inspect(stores, reference)
    images = (found,) if isinstance(found, InspectedImage) else found.images
    systems: dict[str, LockedImage] = {}
    for image in images:
        if image.kind != "seed" or image.system is None or image.nar_hash is None:
            raise InputError(
                f"{image.reference} is not a seed",
                hint="name an image that nix-seed build made, or an index of such",
            )
        system, locked = image.system, LockedImage(image.digest, NarHash.parse(image.nar_hash))
        if system in systems:
            raise InputError(f"{reference} has two images of {system}")
        systems[system] = locked
    return SeedLock(_repository(reference), systems)


def _repository(reference: AnyReference) -> str:
    if isinstance(reference, LayoutReference):
        return f"oci:{reference.directory}"
    return f"{reference.registry}/{reference.repository}"


@dataclass(frozen=True, slots=True)
class Member:
    """An image of the index: its system and where it came from."""

    system: str
    source: str
    descriptor: oci.Descriptor


@dataclass(frozen=True, slots=True)
class Indexed:
    """The index that was published, its members sorted by system, and the tags that name it."""

    descriptor: oci.Descriptor
    members: tuple[Member, ...]
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class IndexPlan:
    """What an index is to be: of an image for each of *systems*, if they are given.

    Its further *tags* are moved last; *about* is what it says of itself.
    """

    systems: Sequence[str] = ()
    tags: Sequence[str] = ()
    about: oci.About = oci.UNSAID


def build_index(
    stores: Stores,
    target: AnyReference,
    images: Sequence[AnyReference],
    plan: IndexPlan = IndexPlan(),
) -> Indexed:
    """Publish at *target* an index of *images*, and then move the *plan*'s tags to it.

    Raises ``InputError``, before anything is published, where one of its systems lacks, an image is
    for none of them, or two are for one system. Images that lie elsewhere are copied first.
    """
    wanted = list(dict.fromkeys([*([target.tag] if target.tag else []), *plan.tags]))
    if not wanted:
        raise InputError(f"{target} names no tag for the index", hint=f"add one: {target}:latest")
    for tag in wanted:
        check_tag(tag, str(target))
    ready = prepare_index(stores, target, images, plan.systems, plan.about)
    return publish_index(stores, target, ready, tags=wanted)


@dataclass(frozen=True, slots=True)
class ReadyIndex:
    """An index that is known and not yet anywhere: its *body* and where its images come from."""

    members: tuple[Member, ...]
    images: tuple[tuple[AnyReference, ImageStore, Fetched], ...]
    about: oci.About = oci.UNSAID

    @property
    def body(self) -> bytes:
        """The bytes that it will have."""
        descriptors = tuple(each.descriptor for each in self.members)
        return oci.Index(descriptors, self.about.annotations()).dump()

    @property
    def digest(self) -> Digest:
        """The digest that the index will have."""
        return Digest.of(self.body)

    def as_named(self, digests: Collection[Digest]) -> Self:
        """Return the form that *digests* name: older ones say nothing of themselves."""
        bare = replace(self, about=oci.UNSAID)
        return bare if bare.digest in digests and self.digest not in digests else self


def prepare_index(
    stores: Stores,
    target: AnyReference,
    images: Sequence[AnyReference],
    systems: Sequence[str] = (),
    about: oci.About = oci.UNSAID,
) -> ReadyIndex:
    """Make the index of *images*, one for each of *systems*; nothing is published.

    Raises ``CheckedFalse`` where one of them must not be published at *target*.
    """
    found = tuple(_read_all(stores, images))
    members = tuple(sorted((_member(*each) for each in found), key=lambda member: member.system))
    _check_complete(members, systems)
    for _, store, root in found:
        check_images_publishable(store, root, target)
    return ReadyIndex(members, found, about)


def publish_index(
    stores: Stores, target: AnyReference, ready: ReadyIndex, *, tags: Sequence[str]
) -> Indexed:
    """Copy the images of *ready* to *target*, store the index there, and then move *tags*."""
    neighbours = _neighbours(target, [reference for reference, _, _ in ready.images])
    store = stores.open(target, create=True, mount_from=neighbours)
    for reference, origin, root in ready.images:
        tell(Stage("image", f"making sure that {target} has {reference}"))
        transfer(origin, root, store, jobs=stores.jobs)
    tell(Stage("index", f"publishing the index at {target}"))
    stored = store.put_manifest(ready.body, oci.MediaType.INDEX)
    for tag in tags:
        store.put_manifest(ready.body, oci.MediaType.INDEX, tag)
        tell(TagMoved(tag, stored.digest))
    return Indexed(stored, ready.members, tuple(tags))


def _read_all(
    stores: Stores, images: Sequence[AnyReference]
) -> Iterator[tuple[AnyReference, ImageStore, Fetched]]:
    """Yield each of *images*; ``InputError`` names all that are not there, not the first alone."""
    missing = []
    for reference in images:
        try:
            store = stores.open(reference)
            yield reference, store, fetch(store, reference)
        except InputError as error:
            missing.append(f"{reference}: {error.message}")
    if missing:
        label = plural(len(missing), "image of the index is", "images of the index are")
        raise InputError(
            f"{label} not there; nothing was published",
            detail="\n".join(missing),
            hint="build each on a machine of its system: nix-seed build --push REF; or name the"
            " images that are there, one after the other, and leave out --flake",
        )


def _member(reference: AnyReference, store: ImageStore, root: Fetched) -> Member:
    label = str(reference)
    manifest = root.manifest(label)
    system = manifest.annotations.get(oci.ANNOTATION_SYSTEM)
    if system is None:
        raise InputError(f"{label} does not say for which system it is: it is no seed of ours")
    config = read_config(store, manifest, label)
    platform = oci.platform_of(system)
    said = oci.Platform.from_json(config, f"{label}, config")
    if said != platform:
        raise CheckedFalse(f"{label} is for {system}, but its configuration says {said}")
    kept = {
        key: manifest.annotations[key]
        for key in (oci.ANNOTATION_SYSTEM, oci.ANNOTATION_NAR_HASH)
        if key in manifest.annotations
    }
    found = root.descriptor
    descriptor = oci.Descriptor(found.media_type, found.digest, found.size, kept, platform)
    return Member(system, label, descriptor)


def _check_complete(members: Sequence[Member], systems: Sequence[str]) -> None:
    have = [member.system for member in members]
    twice = sorted({system for system in have if have.count(system) > 1})
    if twice:
        sources = ", ".join(member.source for member in members if member.system == twice[0])
        raise InputError(f"two images are for {twice[0]}: {sources}")
    if not have:
        raise InputError("an index of no images is refused", hint="name one image a system")
    missing = sorted(set(systems) - set(have))
    if missing:
        raise InputError(
            f"the index lacks {', '.join(missing)}; it has {', '.join(have)}",
            hint="build and push the images that lack, then make the index; nothing was published",
        )
    extra = sorted(set(have) - set(systems)) if systems else []
    if extra:
        raise InputError(f"no image for {', '.join(extra)} is declared in the recipe's systems")


def _neighbours(target: AnyReference, images: Sequence[AnyReference]) -> tuple[str, ...]:
    if not isinstance(target, Reference):
        return ()
    return tuple(
        dict.fromkeys(
            image.repository
            for image in images
            if isinstance(image, Reference) and image.registry == target.registry
        )
    )
