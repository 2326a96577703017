"""registry -> seed.lock: pins the image of each system by its digest."""

from nix_seed.core.digests import NarHash
from nix_seed.core.errors import InputError
from nix_seed.formats.oci.reference import LayoutReference
from nix_seed.image.inspect import InspectedImage, inspect
from nix_seed.registry.open import AnyReference, Stores
from nix_seed.registry.rules.lock import LockedImage, SeedLock


def make_lock(stores: Stores, reference: AnyReference) -> SeedLock:
    """Read what *reference* names, an index or one image, and pin each system's seed.

    Raises ``InputError`` for what is not a seed, or an index with two images of one system.
    """
    found = inspect(stores, reference)
    images = (found,) if isinstance(found, InspectedImage) else found.images
    systems: dict[str, LockedImage] = {}
    for image in images:
        system, locked = _locked(image)
        if system in systems:
            raise InputError(f"{reference} has two images of {system}")
        systems[system] = locked
    return SeedLock(_repository(reference), systems)


def _locked(image: InspectedImage) -> tuple[str, LockedImage]:
    if image.kind != "seed" or image.system is None or image.nar_hash is None:
        raise InputError(
            f"{image.reference} is not a seed",
            hint="name an image that nix-seed build made, or an index of such",
        )
    return image.system, LockedImage(image.digest, NarHash.parse(image.nar_hash))


def _repository(reference: AnyReference) -> str:
    if isinstance(reference, LayoutReference):
        return f"oci:{reference.directory}"
    return f"{reference.registry}/{reference.repository}"
