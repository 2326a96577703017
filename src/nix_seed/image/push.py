"""Images into a registry: from a layout, from another registry, or from the store in one pass.

In one pass, ``UploadTarget`` is a repository for layers, and no blob is written to disk. What the
registry already has is neither read nor sent: layer records remember digests by layer key, and one
request tells whether the blob is there. A blob that an earlier build left in the layer cache is
sent from there.
"""

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from nix_seed.core.errors import CheckedFalse, InputError
from nix_seed.core.events import Stage, tell
from nix_seed.core.parallel import handed_over
from nix_seed.core.values import dataclass
from nix_seed.core.words import plural
from nix_seed.formats.oci import manifest as oci
from nix_seed.formats.oci.reference import LayoutReference, Reference, check_tag
from nix_seed.image.build import Assembly, Built, read_chunks
from nix_seed.image.inspect import read_config
from nix_seed.image.layer_cache import LayerCache, LayerRecords
from nix_seed.image.plan import Plan
from nix_seed.image.read.spec import find_spec
from nix_seed.image.request import tags_of
from nix_seed.image.rules.frames import Sink
from nix_seed.image.rules.layer import FinishedLayer
from nix_seed.image.rules.spec import Spec
from nix_seed.registry.client import Repository
from nix_seed.registry.open import AnyReference, Stores, fetch
from nix_seed.registry.rules.http import is_loopback
from nix_seed.registry.store import Fetched, ImageStore, put_bytes
from nix_seed.registry.transfer import Transferred, collect, transfer


def check_images_publishable(store: ImageStore, root: Fetched, target: AnyReference) -> None:
    """Raise ``CheckedFalse`` where an image at or below *root*, in *store*, may not go to *target*.

    An image that is none of ours says nothing of licences.
    """
    if _is_here(target):
        return
    for document in collect(store, root).documents:
        if document.descriptor.media_type == oci.MediaType.MANIFEST:
            label = f"{store}@{document.descriptor.digest}"
            manifest = document.manifest(label)
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


def _is_ours(store: ImageStore, manifest: oci.Manifest, label: str) -> bool:
    """Tell our images by their label: a tool that converts one drops the annotations."""
    if manifest.config.media_type != oci.MediaType.CONFIG:
        return False
    if oci.ANNOTATION_NAR_HASH in manifest.annotations:
        return True
    config = read_config(store, manifest, label).get("config")
    labels = config.get("Labels") if isinstance(config, dict) else None
    return isinstance(labels, dict) and oci.ANNOTATION_NAR_HASH in labels


def _is_here(target: AnyReference) -> bool:
    """Whether *target* is a layout, or a registry on this machine."""
    if not isinstance(target, Reference):
        return True
    host = target.registry.rpartition(":")[0] if ":" in target.registry else target.registry
    return is_loopback(host)


# Chunks on their way from the compressor to the network: frames of a few MB at most.
_IN_FLIGHT: Final = 4


class UploadTarget:
    """Layers go to *repository*; *records* remember them, a *cache* may hold some."""

    def __init__(
        self,
        repository: Repository,
        records: LayerRecords,
        cache: LayerCache | None,
        media_type: str,
    ) -> None:
        self._repository = repository
        self._records = records
        self._cache = cache
        self._media_type = media_type
        self._lock = threading.Lock()
        self.sent = 0

    def find(self, key: str) -> FinishedLayer | None:
        """Return the layer of *key* if the registry has it already."""
        layer = self._records.find(key)
        if layer is None or not self._repository.has_blob(layer.descriptor.digest):
            return None
        return layer

    def write(self, key: str, produce: Callable[[Sink], FinishedLayer]) -> FinishedLayer:
        """Send the layer that *produce* makes, or the cache has, and remember it."""
        layer = None if self._cache is None else self._cache.find(key)
        if layer is None or self._cache is None:
            layer = self._stream(produce)
        elif not self._repository.has_blob(layer.descriptor.digest):
            path = self._cache.blob_path(layer.descriptor.digest)
            self._repository.push_blob(layer.descriptor, lambda: read_chunks(path))
            self._count(layer.descriptor.size)
        self._records.save(key, layer)
        return layer

    def _stream(self, produce: Callable[[Sink], FinishedLayer]) -> FinishedLayer:
        made: list[FinishedLayer] = []

        def make(give: Callable[[bytes], None]) -> None:
            made.append(produce(_Giver(give)))

        # A try that fails midway is made anew from the store, which is still there.
        sent = self._repository.push_stream(lambda: handed_over(make, _IN_FLIGHT), self._media_type)
        layer = made[-1]
        if (sent.digest, sent.size) != (layer.descriptor.digest, layer.descriptor.size):
            raise CheckedFalse(
                f"the registry was sent {sent.digest}, the layer is {layer.descriptor.digest}",
                hint="this is a fault of nix-seed, or of this machine: please report it",
            )
        self._count(sent.size)
        return layer

    def _count(self, size: int) -> None:
        with self._lock:
            self.sent += size


@dataclass(frozen=True, slots=True)
class _Giver:
    """A sink that gives all it is written."""

    give: Callable[[bytes], None]

    def write(self, data: bytes, /) -> None:
        """Hand over *data*; waits while who takes it is busy."""
        self.give(bytes(data))


def push(
    stores: Stores,
    source: AnyReference,
    target: Reference,
    *,
    tags: Sequence[str] = (),
    mount_from: Sequence[str] = (),
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
    tell(Stage("push", f"pushing {source} to {target}"))
    return transfer(
        origin,
        root,
        stores.open(target, mount_from=tuple(mount_from)),
        list(dict.fromkeys(wanted)),
        jobs=stores.jobs,
    )


def push_evidence(stores: Stores, source: AnyReference, target: Reference) -> None:
    """Send all that is listed beside images and commits in the layout *source*.

    Attestations, bills of materials and records of releases: what `nix-seed export` collected, or
    another tool's recursive copy. Manifests are told from one another by their digests alone.
    """
    if not isinstance(source, LayoutReference):
        raise InputError(
            f"{source} is no layout, and a registry holds evidence of much else",
            hint=f"collect what is about it: nix-seed export {source} DIR --deep",
        )
    origin, repository = stores.open(source), stores.open(target)
    found = collect(origin, fetch(origin, source))
    subjects = {document.descriptor.digest for document in found.documents}
    subjects |= set(filter(None, map(oci.subject_listed, origin.list_tags())))
    for subject in sorted(subjects):
        for item in origin.referrers(subject):
            document = origin.get_manifest(item.digest)
            if document is None or document.descriptor.media_type != oci.MediaType.MANIFEST:
                continue
            manifest = document.manifest(f"{source}, {item.digest}")
            for blob in (manifest.config, *manifest.layers):
                if not repository.has_blob(blob.digest):
                    repository.take_blob(blob, partial(origin.open_blob, blob))
            repository.attach(document.body)


@dataclass(frozen=True, slots=True)
class Pushed:
    """An image in a registry: its reference by digest, its tags, and the bytes that were sent."""

    built: Built
    reference: str
    tags: tuple[str, ...]
    sent: int


def push_image(
    how: Assembly,
    plan: Plan,
    repository: Repository,
    target: Reference,
    records: LayerRecords,
    tags: Sequence[str] | None = (),
) -> Pushed:
    """Write the layers of *plan* that *repository* lacks straight into it; the tags move last.

    With None for *tags* the image gets none at all, to be named when more is there. Layers that an
    earlier build left in the cache are sent from there, the others are streamed from the store. An
    error leaves blobs without a name in the registry, and no tag on a part of an image. Raises
    ``CheckedFalse`` for licences that are not known, and as ``assemble_image`` and the registry do.
    """
    check_publishable(plan.spec, target, plan.licences.problem)
    upload = UploadTarget(repository, records, how.reusable, plan.spec.compressor.media_type)
    built = how.assemble(plan, upload)
    tell(Stage("publish", f"naming the image in {repository}"))
    config = put_bytes(repository, oci.MediaType.CONFIG, built.documents.config)
    wanted = () if tags is None else tuple(dict.fromkeys((*tags_of(plan.evaluated), *tags)))
    for name in wanted or (None,):
        repository.put_manifest(built.documents.manifest, oci.MediaType.MANIFEST, name)
    sent = upload.sent + config.size + len(built.documents.manifest)
    return Pushed(built, str(target.at(built.digest)), wanted, sent)
