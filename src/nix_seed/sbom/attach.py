"""Bills of materials beside an image: put there as others look for them, and found again.

Whoever lists one is not believed: its bytes have the digest that its manifest names, and what it
says of store paths, hashes and references is what the image's own spec says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError, NixSeedError
from nix_seed.core.events import OnEvent, Stage, ignore
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.formats.oci.manifest import Descriptor
from nix_seed.licences.rules.judge import Judged
from nix_seed.registry.store import ImageStore, check_subject, read_manifest
from nix_seed.sbom.rules.sbom import Sbom, check_describes, read_licences
from nix_seed.sbom.sbom import Format, SeedImage, sbom_of, write_sbom
from nix_seed.trust.attestations import list_document

MEDIA_TYPES: Final[Mapping[Format, str]] = {
    "cyclonedx": "application/vnd.cyclonedx+json",
    "spdx": "application/spdx+json",
}
"""The media type of each format, which is also the referrer's artifact type."""

_FILES: Final[Mapping[Format, str]] = {
    "cyclonedx": "sbom.cdx.json",
    "spdx": "sbom.spdx.json",
}
_LARGEST: Final = 512 << 20  # bytes; 100,000 store paths make some 280 MB of SPDX


@dataclass(frozen=True, slots=True)
class Attached:
    """A bill of materials as it was found: the *digest* of its manifest, and its bytes."""

    digest: Digest
    text: bytes


def attach_sboms(
    image: SeedImage, sbom: Sbom, formats: Sequence[Format], on_event: OnEvent = ignore
) -> tuple[Descriptor, ...]:
    """Attach *sbom*, of *image*, in each format; return the manifests.

    They are a function of the image and of what is said of it: attaching again changes nothing.
    """
    found = []
    for form in formats:
        on_event(Stage("sbom", f"attaching {_FILES[form]}"))
        text = write_sbom(sbom, form)
        found.append(
            list_document(
                image.store, image.descriptor, text, MEDIA_TYPES[form], title=_FILES[form]
            )
        )
    return tuple(found)


def list_attached(image: SeedImage, form: Format) -> tuple[Descriptor, ...]:
    """Return the manifests of what is listed as a bill of materials of *image*; nothing is read."""
    return image.store.referrers(image.descriptor.digest, MEDIA_TYPES[form])


def find_attached(image: SeedImage, form: Format, wanted: Digest | None = None) -> Attached:
    """Return the one attached bill of materials that describes *image*.

    *wanted* is the digest of its manifest, where there are several. Raises ``InputError`` where
    there is none, or more than one to choose from; ``CheckedFalse`` where none is of the image,
    ``CouldNotCheck`` where that is not known. What is bad among them hides nothing that is good.
    """
    listed = list_attached(image, form)
    if wanted is not None:
        listed = tuple(item for item in listed if item.digest == wanted)
    if not listed:
        raise InputError(
            f"{image.name} has no {form} bill of materials attached",
            hint="without --attached it is computed from the image; publish attaches one",
        )
    expected = sbom_of(image)
    good, reasons, unread = [], [], None
    for item in listed:
        try:
            found = _read(image.store, item, image.descriptor.digest, form)
            check_describes(found.text, form, expected, f"{image.store}@{item.digest}")
        except (CheckedFalse, InputError) as error:
            reasons.append(error.message)
        except CouldNotCheck as error:
            unread = error
        else:
            good.append(found)
    if not good and unread is not None:
        raise unread
    if not good:
        raise CheckedFalse(
            f"no bill of materials attached to {image.name} describes it",
            detail="\n".join(reasons),
            hint="do not use it; without --attached one is computed from the image itself",
        )
    return _only(good, image, form)


def attached_licences(
    image: SeedImage,
) -> tuple[Mapping[StorePath, Judged], NixSeedError | None]:
    """Return what an attached bill of materials says of the licences of *image*'s store paths.

    Nothing where none is attached; and the error where some are, and none can be believed.
    """
    for form in MEDIA_TYPES:
        if list_attached(image, form):
            try:
                found = find_attached(image, form)
                return read_licences(found.text, form, f"{image.store}@{found.digest}"), None
            except (InputError, CheckedFalse) as error:
                return {}, error
    return {}, None


def _only(found: Sequence[Attached], image: SeedImage, form: Format) -> Attached:
    if len({item.text for item in found}) > 1:
        raise InputError(
            f"{image.name} has {len(found)} {form} bills of materials attached, which differ in"
            " what they say beyond the image",
            hint="choose one: " + ", ".join(f"--attached-digest {item.digest}" for item in found),
        )
    return found[0]


def _read(store: ImageStore, item: Descriptor, subject: Digest, form: Format) -> Attached:
    place = f"{store}@{item.digest}"
    manifest = read_manifest(store, item, subject)
    check_subject(manifest, subject, place)
    blobs = [each for each in manifest.layers if each.media_type == MEDIA_TYPES[form]]
    if len(blobs) != 1 or blobs[0].size > _LARGEST:
        raise CheckedFalse(f"{place} does not hold one {MEDIA_TYPES[form]} of a readable size")
    return Attached(item.digest, b"".join(store.open_blob(blobs[0])))
