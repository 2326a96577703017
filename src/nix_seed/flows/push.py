"""Pushes an image from a layout, or from another registry, to a registry."""

from __future__ import annotations

from collections.abc import Sequence

from nix_seed.flows.events import OnEvent, Stage, ignore
from nix_seed.flows.publishable import check_images_publishable
from nix_seed.flows.stores import AnyReference, Stores, fetch
from nix_seed.flows.transfer import JOBS, Transferred, transfer
from nix_seed.formats.oci.reference import Reference, check_tag
from nix_seed.ground.errors import InputError

__all__ = ["push"]


def push(
    stores: Stores,
    source: AnyReference,
    target: Reference,
    *,
    tags: Sequence[str] = (),
    mount_from: Sequence[str] = (),
    jobs: int = JOBS,
    on_event: OnEvent = ignore,
) -> Transferred:
    """Make *target* name what *source* does; *tags* are further tags, moved after its own.

    Blobs the registry has in repositories *mount_from* are linked rather than sent, and so are
    those of a *source* in the same registry. A digest in *target* must be the image's. Raises
    ``CheckedFalse`` for an image of unknown licences, if the registry is not on this machine.
    """
    for tag in tags:
        check_tag(tag, str(target))
    origin = stores.open(source)
    root = fetch(origin, source)
    if target.digest not in (None, root.descriptor.digest):
        raise InputError(f"{source} is {root.descriptor.digest}, not the {target.digest} to push")
    check_images_publishable(origin, root, target)
    if isinstance(source, Reference) and source.registry == target.registry:
        mount_from = (source.repository, *mount_from)
    wanted = ([] if target.tag is None else [target.tag]) + list(tags)
    on_event(Stage("push", f"pushing {source} to {target}"))
    return transfer(
        origin,
        root,
        stores.open(target, mount_from=tuple(mount_from)),
        list(dict.fromkeys(wanted)),
        jobs=jobs,
        on_event=on_event,
    )
