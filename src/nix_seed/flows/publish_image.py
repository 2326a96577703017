"""plan -> registry in one pass: no image on disk, no temporary blobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nix_seed.clients.blobs import Fetched
from nix_seed.clients.layer_cache import LayerCache
from nix_seed.clients.layer_records import LayerRecords
from nix_seed.clients.nix import Nix
from nix_seed.clients.registry.client import Repository
from nix_seed.clients.upload_target import UploadTarget
from nix_seed.flows.build import Built, assemble_image
from nix_seed.flows.events import OnEvent, Stage, ignore
from nix_seed.flows.plan import Evaluated, Plan
from nix_seed.flows.publishable import check_publishable
from nix_seed.formats.oci import media_types
from nix_seed.formats.oci.descriptor import Descriptor
from nix_seed.formats.oci.reference import Reference
from nix_seed.ground.digests import Digest
from nix_seed.ground.errors import CouldNotCheck

__all__ = ["Pushed", "add_tags", "find_by_key", "name_image", "push_image", "tags_of"]


@dataclass(frozen=True, slots=True)
class Pushed:
    """An image in a registry: its reference by digest, its tags, and the bytes that were sent."""

    built: Built
    reference: str
    tags: tuple[str, ...]
    sent: int


def tags_of(evaluated: Evaluated) -> tuple[str, ...]:
    """Return the tags that every pushed image gets: by input key, and by commit if it is clean."""
    outline = evaluated.evaluation.recipe.outline
    revision = evaluated.evaluation.flake.revision
    keyed = f"{evaluated.input_key}-{outline.system}"
    return (keyed,) if revision is None else (keyed, f"{revision}-{outline.system}")


def find_by_key(repository: Repository, evaluated: Evaluated) -> Descriptor | None:
    """Ask, by one HEAD request, whether the image of this recipe is in the registry already."""
    return repository.head_manifest(tags_of(evaluated)[0])


def add_tags(repository: Repository, image: Digest, tags: Sequence[str]) -> Fetched | None:
    """Have *tags* name *image*, which is in the repository; return it, None if it is gone."""
    fetched = repository.get_manifest(image)
    if fetched is not None:
        for tag in tags:
            repository.put_manifest(fetched.body, fetched.descriptor.media_type, tag)
    return fetched


def name_image(repository: Repository, image: Reference, tags: Sequence[str]) -> tuple[str, ...]:
    """Have *tags* name *image*, and return them, each once; ``CouldNotCheck`` if it is gone."""
    wanted = tuple(dict.fromkeys(tags))
    if image.digest is None or add_tags(repository, image.digest, wanted) is None:
        raise CouldNotCheck(f"{image} was there a moment ago, and is gone")
    return wanted


def push_image(
    nix: Nix,
    plan: Plan,
    repository: Repository,
    target: Reference,
    *,
    records: LayerRecords,
    cache: LayerCache,
    tags: Sequence[str] | None = (),
    threads: int | None = None,
    reuse: bool = True,
    on_event: OnEvent = ignore,
) -> Pushed:
    """Write the layers of *plan* that *repository* lacks straight into it; the tags move last.

    With None for *tags* the image gets none at all, to be named when more is there. Layers that an
    earlier build left in *cache* are sent from there, the others are streamed from the store. An
    error leaves blobs without a name in the registry, and no tag on a part of an image. Raises
    ``CheckedFalse`` for licences that are not known, and as ``assemble_image`` and the registry do.
    """
    check_publishable(plan.spec, target, plan.licences.problem)
    upload = UploadTarget(repository, records, cache, plan.spec.compressor.media_type)
    built = assemble_image(nix, plan, upload, threads=threads, reuse=reuse, on_event=on_event)
    on_event(Stage("publish", f"naming the image in {repository}"))
    config = built.documents.config
    described = Descriptor(media_types.CONFIG, Digest.of(config), len(config))
    if not repository.has_blob(described.digest):
        repository.push_blob(described, lambda: iter((config,)))
    wanted = () if tags is None else tuple(dict.fromkeys((*tags_of(plan.evaluated), *tags)))
    for name in wanted or (None,):
        repository.put_manifest(built.documents.manifest, media_types.MANIFEST, name)
    sent = upload.sent + len(config) + len(built.documents.manifest)
    return Pushed(built, str(target.at(built.digest)), wanted, sent)
