"""Finds the previous image whose layers a new one keeps: given by name, or by ``seed.lock``."""

from __future__ import annotations

import tempfile
from pathlib import Path

from nix_seed.clients.blobs import Fetched, ImageStore
from nix_seed.clients.image_layout import open_image
from nix_seed.clients.nix import FlakeMetadata, Nix
from nix_seed.flows.plan import Base, read_base
from nix_seed.flows.pull import choose_system
from nix_seed.flows.stores import AnyReference, Stores, fetch
from nix_seed.formats.oci.descriptor import Descriptor, Index, Manifest
from nix_seed.formats.oci.reference import LayoutReference
from nix_seed.ground.errors import CheckedFalse, InputError
from nix_seed.rules.lock import LOCK_NAME, SeedLock

__all__ = ["locked_base", "open_base", "read_lock"]


def open_base(stores: Stores, reference: AnyReference, system: str) -> Base:
    """Read the spec of the image that *reference* names; of an index, *system*'s.

    Only the manifest, the configuration and the last, small layer are fetched, all verified.
    """
    store = stores.open(reference)
    root = choose_system(store, fetch(store, reference), system)
    with tempfile.TemporaryDirectory(prefix="nix-seed-") as directory:
        return _read(store, root, reference, Path(directory))


def read_lock(nix: Nix, flake: FlakeMetadata) -> SeedLock | None:
    """Read the flake's ``seed.lock``, if it has one."""
    path = nix.root / str(flake.source).lstrip("/") / LOCK_NAME
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    return SeedLock.parse(text, f"{LOCK_NAME} of {flake.url}")


def locked_base(stores: Stores, lock: SeedLock, system: str) -> Base | None:
    """Open the image that *lock* pins for *system*; ``CheckedFalse`` if it is another than stated.

    None where the lock does not speak of the system.
    """
    reference = lock.reference(system)
    if reference is None:
        return None
    base = open_base(stores, reference, system)
    wanted = lock.systems[system].nar_hash
    if base.spec.nar_hash != wanted:
        raise CheckedFalse(
            f"{LOCK_NAME} states narHash {wanted} for {reference}, which has {base.spec.nar_hash}",
            hint="someone changed the lock by hand, or the image is not what it says",
        )
    return base


def _read(store: ImageStore, root: Fetched, reference: AnyReference, work: Path) -> Base:
    """Lay out as much of the image as a spec is read from."""
    what = str(reference)
    manifest = Manifest.parse(root.body, what)
    if not manifest.layers:
        raise InputError(f"{what} has no layers: it is not a seed")
    blobs = work / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    (work / "oci-layout").write_bytes(b'{"imageLayoutVersion":"1.0.0"}')
    (blobs / root.descriptor.digest.hex).write_bytes(root.body)
    for blob in (manifest.config, manifest.layers[-1]):
        with open(blobs / blob.digest.hex, "wb") as file:
            for chunk in store.open_blob(blob):
                file.write(chunk)
    described = Descriptor(root.descriptor.media_type, root.descriptor.digest, len(root.body))
    (work / "index.json").write_bytes(Index((described,)).dump())
    base = read_base(open_image(LayoutReference(str(work), digest=described.digest)))
    return Base(what, base.spec)
