"""Reads the seed spec out of an image's last layer: the one reader of ``seed.json``.

The image may lie in a layout or in a registry. What it says is checked against the narHash that the
verified manifest states.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nix_seed.core.errors import CheckedFalse, InputError
from nix_seed.core.values import dataclass
from nix_seed.flake.rules.outline import CONTENTS_PATH, SPEC_PATH
from nix_seed.formats.oci.manifest import ANNOTATION_NAR_HASH, Descriptor, Manifest
from nix_seed.image.read.stream import BlobReader, TarPieces
from nix_seed.image.read.tar import EntryKind, read_entries
from nix_seed.image.rules.spec import Spec
from nix_seed.registry.layout import Image
from nix_seed.registry.layout_store import LayoutStore
from nix_seed.registry.store import Fetched, ImageStore

if TYPE_CHECKING:
    from nix_seed.registry.open import AnyReference, Stores

# 100,000 store paths make a spec of some 50 MB; the database beside it is of the same order.
LARGEST_SPEC = 1 << 30


@dataclass(frozen=True, slots=True)
class RemoteSeed:
    """A verified manifest and the spec whose narHash it states. *fetched* is in bytes.

    *contents* is the table of contents as it lies there, unread; empty where there is none.
    """

    name: str
    manifest: Manifest
    spec: Spec
    fetched: int
    contents: bytes


@dataclass(frozen=True, slots=True)
class SeedImage(RemoteSeed):
    """The same, in the *store* that holds the image, and the manifest's *descriptor*."""

    store: ImageStore
    descriptor: Descriptor


def read_spec(image: Image) -> Spec:
    """Return the spec of *image*, which lies in a layout; raises as ``read_seed`` does."""
    return _read_seed(image.name, image.manifest, LayoutStore(image.layout)).spec


def read_seed(
    name: str, root: Fetched, source: BlobReader, largest: int = LARGEST_SPEC
) -> RemoteSeed:
    """Fetch the last layer of the image *root* and read its spec, of at most *largest* bytes.

    Raises ``InputError`` for an image that is not a seed, ``CheckedFalse`` for a spec that does
    not have the narHash stated, or not one layer for each of the manifest's.
    """
    return _read_seed(name, root.manifest(name), source, largest)


def open_seed_image(stores: Stores, reference: AnyReference, system: str) -> SeedImage:
    """Read the seed that *reference* names, of an index *system*'s; raises as ``read_seed`` does.

    Only the manifest and the last, small layer are fetched, both verified.
    """
    from nix_seed.registry.open import choose_system, fetch

    store = stores.open(reference)
    return seed_image(store, choose_system(store, fetch(store, reference), system), str(reference))


def seed_image(store: ImageStore, root: Fetched, name: str) -> SeedImage:
    """Read the seed whose manifest *root* is, which *store* holds."""
    seed = read_seed(name, root, store)
    parts = seed.name, seed.manifest, seed.spec, seed.fetched, seed.contents
    return SeedImage(*parts, store, root.descriptor)


def find_spec(name: str, manifest: Manifest, source: BlobReader) -> Spec | None:
    """Return the spec in the last layer, its own word alone; None where there is none."""
    return _read_last(name, manifest, source)[0]


def _read_seed(
    name: str, manifest: Manifest, source: BlobReader, largest: int = LARGEST_SPEC
) -> RemoteSeed:
    spec, contents, fetched = _read_last(name, manifest, source, largest)
    if spec is None:
        raise InputError(
            f"{name} is not a seed: its last layer holds no {SPEC_PATH}",
            hint="name an image that nix-seed made",
        )
    stated = manifest.annotations.get(ANNOTATION_NAR_HASH)
    problem = None
    if stated != str(spec.nar_hash):
        problem = f"the manifest states narHash {stated}, its spec has {spec.nar_hash}"
    elif len(spec.layers) + 1 != len(manifest.layers):
        listed = len(spec.layers) + 1
        problem = f"its spec lists {listed} layers, its manifest {len(manifest.layers)}"
    if problem is not None:
        raise CheckedFalse(
            f"{name}: {problem}", hint="the image is damaged or was altered: get it again"
        )
    return RemoteSeed(name, manifest, spec, fetched, contents)


def _read_last(
    name: str, manifest: Manifest, source: BlobReader, largest: int = LARGEST_SPEC
) -> tuple[Spec | None, bytes, int]:
    """Return spec and table of contents in the last layer, if there, and the bytes fetched."""
    if not manifest.layers:
        return None, b"", 0
    layer, label = manifest.layers[-1], f"{name}, last layer"
    files: dict[bytes, bytes] = {}
    wanted = (SPEC_PATH.encode(), CONTENTS_PATH.encode())
    with TarPieces(source.open_blob(layer), layer.media_type, LARGEST_SPEC, label, 0) as pieces:
        for entry in read_entries(pieces, label):
            if entry.name in wanted and entry.kind is EntryKind.FILE:
                if entry.size > largest:
                    raise CheckedFalse(
                        f"{entry.name.decode()} of {name} has {entry.size} bytes;"
                        f" {largest} are read here"
                    )
                files[entry.name] = pieces.read(entry.size)
        pieces.drain()
        fetched = pieces.spent.fetched
    text = files.get(wanted[0])
    spec = None if text is None else Spec.parse(text, f"{SPEC_PATH} of {name}")
    return spec, files.get(wanted[1], b""), fetched
