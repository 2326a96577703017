"""image (+ flake) -> a bill of materials: what lies in an image, under which licence, from where.

Of an image alone it is a pure function of the image, the same on every machine. A flake adds what
only evaluation knows: licences, derivations, the sources' addresses.

Bills of materials beside an image: put there as others look for them, and found again.

Whoever lists one is not believed: its bytes have the digest that its manifest names, and what it
says of store paths, hashes and references is what the image's own spec says.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError, NixSeedError
from nix_seed.core.events import Stage, tell
from nix_seed.core.values import dataclass
from nix_seed.flake.evaluate import Evaluation
from nix_seed.flake.nix import DerivationReader, Nix
from nix_seed.flake.rules.licence import combine, is_licence
from nix_seed.flake.rules.names import Package, name_of_output, parse_name
from nix_seed.formats.nix.store_path import Derivation, StorePath
from nix_seed.formats.oci.manifest import LICENSES, About, Descriptor
from nix_seed.image.read.spec import SeedImage
from nix_seed.licences.licences import Licences, assess_licences
from nix_seed.licences.rules.judge import Judged
from nix_seed.registry.open import AnyReference, Stores, find
from nix_seed.registry.store import ImageStore, check_subject, read_manifest
from nix_seed.roots.rules.roots import attributes_of
from nix_seed.sbom.rules.sbom import Origin, Sbom, build_sbom, check_describes, read_licences
from nix_seed.sbom.rules.spdx import write_spdx
from nix_seed.trust.attestations import list_document

Format = Literal["cyclonedx", "spdx"]


def sbom_of(image: SeedImage, nix: Nix | None = None, licences: Licences | None = None) -> Sbom:
    """Say what *image* holds; with *licences*, a flake's, whose derivations *nix* reads."""
    origins = None if nix is None or licences is None else origins_of(nix, licences)
    return build_sbom(image.descriptor.digest, image.manifest, image.spec, origins)


def write_sbom(sbom: Sbom, form: Format) -> bytes:
    """Return the document's bytes, the same for the same *sbom*."""
    if form == "spdx":
        return write_spdx(sbom)
    from nix_seed.sbom.cyclonedx import write_cyclonedx

    return write_cyclonedx(sbom)


def licences_of_image(
    nix: Nix, image: SeedImage, evaluation: Evaluation, attr: str | None
) -> Licences:
    """Judge the store paths of *image*, which *evaluation* must be the recipe of; build nothing.

    Raises ``CheckedFalse`` for an image with store paths that the flake knows nothing of.
    """
    paths = {*image.spec.paths, *(item.path for item in image.spec.withheld)}
    tell(Stage("licences", f"reading the licences of {len(paths)} store paths"))
    licences = assess_licences(nix, evaluation, attr, paths)
    known = {*licences.roots.makers, *(end.path for end in licences.roots.ends)}
    strange = sorted(paths - known)
    if strange:
        raise CheckedFalse(
            f"{image.name} is not of {evaluation.flake.url}: it holds {len(strange)} store paths"
            f" that this flake knows nothing of, first {strange[0]}",
            hint="name the flake, at the commit, that the image was built from",
        )
    return licences


def origins_of(nix: Nix, licences: Licences) -> dict[StorePath, Origin]:
    """Return what a flake says of each of the paths whose *licences* were judged."""
    read: Callable[[StorePath], Derivation] = DerivationReader(nix)
    fetched = {url for end in licences.roots.ends for url in end.urls}
    return {
        path: Origin(
            package=_package(item, read),
            derivation=item.derivation,
            declared=item.declared,
            concluded=_concluded(item),
            status=item.licence.status,
            url=item.url,
            fetched=item.url in fetched,
        )
        for path, item in licences.judgement.paths.items()
    }


def _concluded(item: Judged) -> str:
    """Return the licence that follows from others', where ``meta`` of the path itself states none.

    Of what is unknown, a name that happens to be known is only a part of the answer.
    """
    if item.declared or item.licence.status == "unknown" or not is_licence(item.licence.name):
        return ""
    return item.licence.name


def _package(item: Judged, read: Callable[[StorePath], Derivation]) -> Package:
    if item.derivation is None:
        return parse_name(item.path.name)
    derivation = read(item.derivation)
    output = next((n for n, o in derivation.outputs.items() if o.path == item.path), "")
    said = {key: text for key, text in attributes_of(derivation).items() if isinstance(text, str)}
    return name_of_output(item.derivation.name.removesuffix(".drv"), output, said)


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


def attach_sboms(image: SeedImage, sbom: Sbom, formats: Sequence[Format]) -> tuple[Descriptor, ...]:
    """Attach *sbom*, of *image*, in each format; return the manifests.

    They are a function of the image and of what is said of it: attaching again changes nothing.
    """
    found = []
    origins = (each.origin for each in sbom.components if not each.withheld)
    about = About(licenses=combine(each.declared or each.concluded for each in origins))
    for form in formats:
        tell(Stage("sbom", f"attaching {_FILES[form]}"))
        text = write_sbom(sbom, form)
        said, kind, title = about.annotations(), MEDIA_TYPES[form], _FILES[form]
        found.append(list_document(image.store, image.descriptor, text, kind, said, title=title))
    return tuple(found)


def listed_licences(stores: Stores, images: Sequence[AnyReference]) -> str:
    """Return the licences that the bills of materials listed beside all of *images* are under.

    It is their publisher's word, for which nothing is read but lists; empty where one lacks it.
    """
    found: set[str] = set()
    for reference in images:
        try:
            image = find(stores, reference)
            listed = () if image is None else stores.open(reference).referrers(image.digest)
        except NixSeedError:
            return ""
        said = {each.annotations[LICENSES] for each in listed if LICENSES in each.annotations}
        if len(said) != 1:
            return ""
        found |= said
    return combine(found)


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
