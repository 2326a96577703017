"""Pulls an image, or one system's image of an index, into a layout on disk; all of it verified."""

from __future__ import annotations

from pathlib import Path

from nix_seed.clients.blobs import Fetched, ImageStore
from nix_seed.clients.image_layout import Image, open_image
from nix_seed.clients.layout import Layout
from nix_seed.flows.events import OnEvent, Stage, ignore
from nix_seed.flows.stores import AnyReference, Stores, fetch
from nix_seed.flows.transfer import JOBS, Transferred, transfer
from nix_seed.formats.oci import media_types
from nix_seed.formats.oci.descriptor import Descriptor, Index, Platform
from nix_seed.formats.oci.reference import LayoutReference, Reference
from nix_seed.ground.errors import CheckedFalse, InputError
from nix_seed.rules.image import platform_of

__all__ = ["choose_system", "open_here", "pull"]


def pull(
    stores: Stores,
    source: AnyReference,
    target: LayoutReference,
    *,
    system: str | None = None,
    jobs: int = JOBS,
    on_event: OnEvent = ignore,
) -> Transferred:
    """Make the layout *target* hold what *source* names, under the target's tag or the source's.

    Of an index, *system* (``x86_64-linux``) takes that one image; without it all are taken.
    """
    origin = stores.open(source)
    root = fetch(origin, source)
    if system is not None:
        root = choose_system(origin, root, system)
    if target.digest not in (None, root.descriptor.digest):
        raise InputError(f"{source} is {root.descriptor.digest}, not the {target.digest} wanted")
    tag = target.tag or source.tag or root.descriptor.digest.hex[:12]
    on_event(Stage("pull", f"pulling {source} to {target}"))
    return transfer(
        origin, root, stores.open(target, create=True), [tag], jobs=jobs, on_event=on_event
    )


def open_here(
    stores: Stores, reference: AnyReference, kept: Path, system: str, on_event: OnEvent = ignore
) -> Image:
    """Open the image that *reference* names, of an index *system*'s, with all of it on this disk.

    What is in a registry is pulled into the layout *kept* first, verified; a digest that lies there
    already is opened without asking anyone.
    """
    if isinstance(reference, Reference) and reference.digest is not None and kept.is_dir():
        held = Layout.open(kept).index().manifests
        image = next((each for each in held if each.digest == reference.digest), None)
        if image is not None and image.media_type != media_types.INDEX:
            return open_image(LayoutReference(str(kept), digest=image.digest))
    store = stores.open(reference)
    digest = choose_system(store, fetch(store, reference), system).descriptor.digest
    if isinstance(reference, LayoutReference):
        return open_image(reference.at(digest))
    target = LayoutReference(str(kept), tag=digest.hex[:40])
    pull(stores, reference.at(digest), target, on_event=on_event)
    return open_image(target)


def choose_system(store: ImageStore, root: Fetched, system: str) -> Fetched:
    """Return the image for *system*: of an index the one child, of an image the image itself."""
    if root.descriptor.media_type != media_types.INDEX:
        return root
    what = f"{store}@{root.descriptor.digest}"
    wanted = platform_of(system)
    index = Index.parse(root.body, what)
    found = [child for child in index.manifests if _is_for(child, wanted)]
    if len(found) != 1:
        there = ", ".join(sorted(map(_shown, index.manifests))) or "none"
        raise InputError(
            f"{what} has {len(found) or 'no'} images for {system}", hint=f"it has: {there}"
        )
    chosen = store.get_manifest(found[0].digest)
    if chosen is None:
        raise CheckedFalse(f"{what} names the image {found[0].digest}, which {store} does not have")
    return chosen


def _is_for(child: Descriptor, wanted: Platform) -> bool:
    has = child.platform
    if has is None or (has.os, has.architecture) != (wanted.os, wanted.architecture):
        return False
    # Many indexes leave the variant of arm64 out: there is but one.
    return has.variant in (None, wanted.variant)


def _shown(child: Descriptor) -> str:
    has = child.platform
    if has is None:
        return str(child.digest)
    return "/".join(part for part in (has.os, has.architecture, has.variant) if part)
