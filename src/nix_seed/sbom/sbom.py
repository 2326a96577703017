"""image (+ flake) -> a bill of materials: what lies in an image, under which licence, from where.

Of an image alone it is a pure function of the image, the same on every machine. A flake adds what
only evaluation knows: licences, derivations, the sources' addresses.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from nix_seed.core.errors import CheckedFalse, InputError
from nix_seed.core.events import OnEvent, Stage, ignore
from nix_seed.flake.evaluate import Evaluation
from nix_seed.flake.nix import DerivationReader, Nix
from nix_seed.flake.rules.licence import is_licence
from nix_seed.flake.rules.names import Package, name_of_output, parse_name
from nix_seed.formats.nix.store_path import Derivation, StorePath
from nix_seed.formats.oci.manifest import Descriptor, Manifest
from nix_seed.image.read.spec import read_seed
from nix_seed.image.rules.spec import Spec
from nix_seed.licences.licences import Licences, assess_licences
from nix_seed.licences.rules.judge import Judged
from nix_seed.registry.open import AnyReference, Stores, fetch
from nix_seed.registry.store import Fetched, ImageStore
from nix_seed.registry.transfer import choose_system
from nix_seed.roots.rules.roots import attributes_of
from nix_seed.sbom.rules.sbom import Origin, Sbom, build_sbom
from nix_seed.sbom.rules.spdx import write_spdx

Format = Literal["cyclonedx", "spdx"]


@dataclass(frozen=True, slots=True)
class SeedImage:
    """An image that nix-seed made, in the *store* that holds it, and its spec."""

    name: str
    store: ImageStore
    descriptor: Descriptor
    manifest: Manifest
    spec: Spec


def open_seed_image(stores: Stores, reference: AnyReference, system: str) -> SeedImage:
    """Read the manifest and spec that *reference* names, of an index *system*'s; no other layer.

    Raises ``InputError`` for what is no seed, ``CheckedFalse`` for a spec that is not the image's.
    """
    store = stores.open(reference)
    return seed_image(store, choose_system(store, fetch(store, reference), system), str(reference))


def seed_image(store: ImageStore, root: Fetched, name: str) -> SeedImage:
    """Read the spec of the image *root*, which *store* holds."""
    seed = read_seed(name, root, store)
    return SeedImage(name, store, root.descriptor, seed.manifest, seed.spec)


def sbom_of(image: SeedImage, nix: Nix | None = None, licences: Licences | None = None) -> Sbom:
    """Say what *image* holds; with *licences*, a flake's, whose derivations *nix* reads."""
    origins = None if nix is None or licences is None else origins_of(nix, licences)
    return build_sbom(image.descriptor.digest, image.manifest, image.spec, origins)


def write_sbom(sbom: Sbom, form: Format) -> bytes:
    """Return the document's bytes, the same for the same *sbom*.

    Raises ``InputError`` where CycloneDX is asked for and its library is not installed.
    """
    if form == "spdx":
        return write_spdx(sbom)
    check_cyclonedx()
    from nix_seed.sbom.cyclonedx import write_cyclonedx

    return write_cyclonedx(sbom)


def formats_at_hand() -> tuple[Format, ...]:
    """Return the formats that can be written with what is installed."""
    return ("cyclonedx", "spdx") if _has_cyclonedx() else ("spdx",)


def licences_of_image(
    nix: Nix, image: SeedImage, evaluation: Evaluation, attr: str | None, on_event: OnEvent = ignore
) -> Licences:
    """Judge the store paths of *image*, which *evaluation* must be the recipe of; build nothing.

    Raises ``CheckedFalse`` for an image with store paths that the flake knows nothing of.
    """
    paths = {*image.spec.paths, *(item.path for item in image.spec.withheld)}
    on_event(Stage("licences", f"reading the licences of {len(paths)} store paths"))
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


def _has_cyclonedx() -> bool:
    """Whether the library is installed; importing it would take a while."""
    return importlib.util.find_spec("cyclonedx") is not None


def check_cyclonedx() -> None:
    """Raise ``InputError`` if the library is not installed."""
    if not _has_cyclonedx():
        raise InputError(
            "CycloneDX is written by the library cyclonedx-python-lib, which is not installed",
            hint="install it: pip install 'cyclonedx-python-lib>=11.5,<12'; SPDX needs no library",
        )
