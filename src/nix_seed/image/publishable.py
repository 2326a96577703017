"""What nobody says may be passed on is sent to no registry but this machine's own.

The image itself lists it, in its spec, so that no copy of the image forgets it. Every way into a
registry asks here: from a build, from a layout, from another registry, and in an index.
"""

from nix_seed.core.errors import CheckedFalse
from nix_seed.core.words import plural
from nix_seed.formats.oci import media_types
from nix_seed.formats.oci.manifest import ANNOTATION_NAR_HASH, Manifest
from nix_seed.formats.oci.reference import Reference
from nix_seed.image.inspect import read_config
from nix_seed.image.read.spec import find_spec
from nix_seed.image.rules.spec import Spec
from nix_seed.registry.open import AnyReference
from nix_seed.registry.store import Fetched, ImageStore
from nix_seed.registry.transfer import collect


def check_images_publishable(store: ImageStore, root: Fetched, target: AnyReference) -> None:
    """Raise ``CheckedFalse`` where an image at or below *root*, in *store*, may not go to *target*.

    An image that is none of ours says nothing of licences.
    """
    if _is_here(target):
        return
    for document in collect(store, root).documents:
        if document.descriptor.media_type == media_types.MANIFEST:
            label = f"{store}@{document.descriptor.digest}"
            manifest = Manifest.parse(document.body, label)
            spec = find_spec(label, manifest, store) if _is_ours(store, manifest, label) else None
            if spec is not None:
                check_publishable(spec, target)


def check_publishable(spec: Spec, target: AnyReference, problem: str | None = None) -> None:
    """Raise ``CheckedFalse`` where *spec* lists unknown licences, and *target* is elsewhere.

    *problem* is why licences could not be read, where that is so.
    """
    if not spec.unknown or _is_here(target):
        return
    lines = [f"{item.path.name}: {item.licence or 'none stated'}" for item in spec.unknown]
    lines += [f"licences could not be read: {problem}"] if problem else []
    where = target.registry if isinstance(target, Reference) else str(target)
    raise CheckedFalse(
        f"the licences of {plural(len(spec.unknown), 'store path')} are not known,"
        f" so they are not sent to {where}",
        detail="\n".join(lines),
        hint="give them a meta.license; or accept them by name, mkSeed { licences.accept ="
        ' [ "name" ]; }; or all of them: licences.unknown = "report"; then build again',
    )


def _is_ours(store: ImageStore, manifest: Manifest, label: str) -> bool:
    """Tell our images by their label: a tool that converts one drops the annotations."""
    if manifest.config.media_type != media_types.CONFIG:
        return False
    if ANNOTATION_NAR_HASH in manifest.annotations:
        return True
    config = read_config(store, manifest, label).get("config")
    labels = config.get("Labels") if isinstance(config, dict) else None
    return isinstance(labels, dict) and ANNOTATION_NAR_HASH in labels


def _is_here(target: AnyReference) -> bool:
    """Whether *target* is a layout, or a registry on this machine."""
    if not isinstance(target, Reference):
        return True
    # Only here: whatever needs no registry should not wait for the HTTP library.
    from nix_seed.registry.rules.url import is_loopback

    host = target.registry.rpartition(":")[0] if ":" in target.registry else target.registry
    return is_loopback(host)
