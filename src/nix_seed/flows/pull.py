"""Pulls an image, or one system's image of an index, into a layout on disk; all of it verified."""

from __future__ import annotations

from nix_seed.clients.blobs import Fetched, ImageStore
from nix_seed.flows.events import OnEvent, Stage, ignore
from nix_seed.flows.stores import AnyReference, Stores, fetch
from nix_seed.flows.transfer import JOBS, Transferred, transfer
from nix_seed.formats.oci import media_types
from nix_seed.formats.oci.descriptor import Descriptor, Index, Platform
from nix_seed.formats.oci.reference import LayoutReference
from nix_seed.ground.errors import CheckedFalse, InputError
from nix_seed.rules.image import platform_of

__all__ = ["choose_system", "pull"]


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
