"""plan -> image: every layer written or taken from the cache, the documents, one finished image.

It is stored in a layout, or as one file: ``oci-archive`` (a tar of a layout) or ``docker-archive``.
Both files are functions of the image and its name alone, and are written as streams, whatever the
size. A docker-archive holds layers uncompressed, which ``docker load`` reads from its first
versions on.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

from nix_seed.core import canonical_json
from nix_seed.core.digests import DiffID, Digest
from nix_seed.core.errors import CheckedFalse, InputError
from nix_seed.core.events import Stage, tell
from nix_seed.core.files import Unnamed, explained, unnamed
from nix_seed.core.values import dataclass
from nix_seed.core.words import plural
from nix_seed.flake.nix import Nix
from nix_seed.formats.oci import tar
from nix_seed.formats.oci.manifest import ANNOTATION_INPUT_KEY, Descriptor, Index, Manifest
from nix_seed.formats.oci.reference import LayoutReference, Reference, check_tag
from nix_seed.image.assemble import Afresh, LayerTarget, StoreFiles, assemble_layers
from nix_seed.image.layer_cache import LayerCache
from nix_seed.image.plan import Plan
from nix_seed.image.read.stream import TarPieces
from nix_seed.image.rules import spec as specs
from nix_seed.image.rules.layer import FinishedLayer, write_entries_layer
from nix_seed.registry.layout import LAYOUT_FILE, ImageFiles, Layout, is_blob, pair_layers

_CHUNK: Final = 1 << 20
_LARGEST: Final = 1 << 40  # bytes of tar


def write_oci_archive(image: ImageFiles, path: Path, name: str | None = None) -> None:
    """Write *image*, tagged *name*, to the file *path* (replacing it when all went well)."""
    _check_path(path)
    described = image.descriptor(name)
    documents = {
        "oci-layout": LAYOUT_FILE,
        "index.json": Index((described,)).dump(),
        _blob(described.digest): image.manifest.dump(),
        _blob(image.manifest.config.digest): image.config,
    }
    blobs = {_blob(layer.digest): (layer, source) for layer, source in image.layers()}
    with unnamed(path.parent, f"writing {path}") as out:
        for directory in ("blobs/", "blobs/sha256/"):
            out.write(tar.header(directory.encode(), tar.DIRECTORY, 0o755))
        for member in sorted({*documents, *blobs}):
            if member in documents:
                _put(out, member, documents[member])
            else:
                layer, source = blobs[member]
                out.write(tar.header(member.encode(), tar.FILE, 0o644, layer.size))
                for chunk in _checked(layer, source):
                    out.write(chunk)
                out.write(tar.padding(layer.size))
        out.write(tar.END)
        out.keep(path)


def write_docker_archive(image: ImageFiles, path: Path, tags: tuple[str, ...] = ()) -> None:
    """Write *image* to the file *path* for ``docker load``; *tags* are ``name:tag``.

    Every layer is checked against the config's diffIDs on the way: ``CheckedFalse`` if one differs.
    """
    _check_path(path)
    config = f"{image.manifest.config.digest.hex}.json"
    said = canonical_json.loads(image.config, label="the image's config")
    layers = pair_layers(image.manifest, said, "the image")
    members = {f"{diff_id.hex}/layer.tar": (layer, diff_id) for layer, diff_id in layers}
    names = [f"{diff_id.hex}/layer.tar" for _, diff_id in layers]
    listing = [{"Config": config, "RepoTags": list(tags), "Layers": names}]
    with unnamed(path.parent, f"writing {path}") as out:
        for member, (layer, diff_id) in sorted(members.items()):
            out.write(tar.header(f"{diff_id.hex}/".encode(), tar.DIRECTORY, 0o755))
            _unpack(out, member, layer, image.blobs[layer.digest], diff_id)
        _put(out, config, image.config)
        _put(out, "manifest.json", canonical_json.dumps(listing))
        out.write(tar.END)
        out.keep(path)


def _check_path(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path} is a directory; an archive is a file", hint="name a file in it")


def _blob(digest: Digest) -> str:
    return f"blobs/sha256/{digest.hex}"


def _put(out: Unnamed, member: str, data: bytes) -> None:
    out.write(tar.header(member.encode(), tar.FILE, 0o644, len(data)))
    out.write(data)
    out.write(tar.padding(len(data)))


def read_chunks(source: Path) -> Iterator[bytes]:
    """Yield the bytes of a file, some at a time."""
    with open(source, "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _checked(layer: Descriptor, source: Path) -> Iterator[bytes]:
    """Yield a blob's bytes; ``CheckedFalse`` at their end, if they were not the layer's."""
    sha256, size = hashlib.sha256(), 0
    for chunk in read_chunks(source):
        sha256.update(chunk)
        size += len(chunk)
        yield chunk
    if (sha256.hexdigest(), size) != (layer.digest.hex, layer.size):
        raise CheckedFalse(f"{source} does not have the digest {layer.digest}")


def _unpack(out: Unnamed, member: str, layer: Descriptor, source: Path, diff_id: DiffID) -> None:
    if not is_blob(source, layer):
        raise CheckedFalse(f"{source} does not have the digest {layer.digest}")
    # A tar says sizes first, so the blob is decompressed twice: that costs less than keeping it.
    with _pieces(layer, source) as pieces:
        found, size = pieces.diff_id(), pieces.tell()
    if found != diff_id:
        raise CheckedFalse(f"{source} does not unpack to the diffID {diff_id}")
    out.write(tar.header(member.encode(), tar.FILE, 0o644, size))
    with _pieces(layer, source) as pieces:
        for piece in pieces.body(size):
            out.write(piece)
        pieces.drain()
    out.write(tar.padding(size))


def _pieces(layer: Descriptor, source: Path) -> TarPieces:
    kind, name = layer.media_type, str(source)
    return TarPieces(read_chunks(source), kind, _LARGEST, name, threads=1, hashed=True)


Format = Literal["oci", "oci-archive", "docker-archive"]


@dataclass(frozen=True, slots=True)
class BuiltLayer:
    """A finished layer, its tier, how many store paths it holds, and whether it was at hand."""

    layer: FinishedLayer
    tier: str
    paths: tuple[str, ...]
    reused: bool


@dataclass(frozen=True, slots=True)
class Built:
    """An image whose blobs all lie in the target they were written to."""

    plan: Plan
    documents: specs.ImageDocuments
    layers: tuple[BuiltLayer, ...]

    @property
    def digest(self) -> Digest:
        """The image's digest."""
        return self.documents.digest


@dataclass(frozen=True, slots=True)
class Destination:
    """Where an image goes: a layout's directory or an archive's file, and its name there."""

    format: Format
    path: Path
    tag: str


def assemble_image(
    nix: Nix, plan: Plan, target: LayerTarget, *, threads: int | None = None, reuse: bool = True
) -> Built:
    """Write the layers that *target*, a cache or a registry, lacks, and compose the documents.

    ``reuse=False`` writes all of them anew. Raises ``CheckedFalse`` where the store does not hold
    what Nix says it holds.
    """
    spec, target = plan.spec, target if reuse else Afresh(target)
    text = f"writing {plural(len(spec.layers), 'layer')} and the container's own"
    tell(Stage("assemble", text, len(spec.layers)))
    assembled = assemble_layers(
        [[spec.paths[path] for path in group.paths] for group in spec.layers],
        spec.compressor,
        StoreFiles(nix.root),
        target,
        threads=threads,
    )
    contents = [done.layer.contents for done in assembled]
    key = specs.container_key(spec)
    found = target.find(key)
    last = found or target.write(
        key,
        lambda sink: write_entries_layer(
            specs.container_entries(spec, contents), spec.compressor, sink
        ),
    )
    layers = (
        *(
            BuiltLayer(done.layer, group.tier, tuple(map(str, group.paths)), done.reused)
            for done, group in zip(assembled, spec.layers, strict=True)
        ),
        BuiltLayer(last, specs.CONTAINER_TIER, (), found is not None),
    )
    documents = specs.build_image(
        spec, [(built.layer.descriptor, built.layer.diff_id) for built in layers]
    )
    return Built(plan, documents, layers)


@dataclass(frozen=True, slots=True)
class Assembly:
    """How layers are written: by what *nix* has, from and to the *cache*, so many at once.

    ``reuse=False`` writes all of them anew.
    """

    nix: Nix
    cache: LayerCache
    threads: int | None = None
    reuse: bool = True

    @property
    def reusable(self) -> LayerCache | None:
        """What layers may be taken from: nothing, where all are to be written anew."""
        return self.cache if self.reuse else None

    def assemble(self, plan: Plan, target: LayerTarget | None = None) -> Built:
        """Write what *target* (default: the cache) lacks; see ``assemble_image``."""
        return assemble_image(
            self.nix, plan, target or self.cache, threads=self.threads, reuse=self.reuse
        )


def store_image(built: Built, cache: LayerCache, destination: Destination) -> str:
    """Put the image at *destination*, whole or not at all; return a reference to it."""
    tell(Stage("store", f"storing the image in {destination.path}"))
    layers = [built_layer.layer.descriptor for built_layer in built.layers]
    image = ImageFiles(
        manifest=Manifest.parse(built.documents.manifest, "the manifest"),
        config=built.documents.config,
        blobs={layer.digest: cache.blob_path(layer.digest) for layer in layers},
        platform=built.documents.platform,
        annotations={ANNOTATION_INPUT_KEY: built.plan.input_key},
    )
    if destination.format == "oci":
        Layout.create(destination.path).add(image, destination.tag)
        return str(LayoutReference(str(destination.path), tag=destination.tag))
    if destination.format == "oci-archive":
        write_oci_archive(image, destination.path, destination.tag)
    else:
        write_docker_archive(image, destination.path, (_docker_name(destination.tag),))
    return f"{destination.format}:{destination.path}"


def check_destination(destination: Destination) -> None:
    """Refuse, before any work, a place that cannot take the image."""
    # Refuse what no reference could name afterwards.
    if destination.format == "oci":
        LayoutReference(str(destination.path), tag=destination.tag)
    elif destination.format == "oci-archive":
        check_tag(destination.tag, str(destination.path))
    else:
        # Docker's archives name images in full, but for the registry.
        Reference.parse(f"localhost/{_docker_name(destination.tag)}")
    if destination.format == "oci":
        # An absent or empty directory takes any image, and is not touched before there is one.
        if not Layout.is_to_be_made(destination.path):
            Layout.create(destination.path)
    elif destination.path.is_dir():
        raise InputError(
            f"{destination.path} is a directory; a {destination.format} is a file",
            hint=f"name a file, such as -o {destination.path}/{destination.tag}.tar",
        )
    elif destination.path.exists() and not _is_tar(destination.path):
        raise InputError(
            f"{destination.path} exists and is no archive, so it is not replaced",
            hint="name a file that does not exist yet, or remove this one",
        )


def _docker_name(tag: str) -> str:
    return tag if ":" in tag else f"{tag}:latest"


def _is_tar(path: Path) -> bool:
    """Tell an earlier archive, or an empty file that was made for one, from anything else."""
    with explained(f"reading {path}"), path.open("rb") as file:
        head = file.read(512)
    return not head or head[257:262] == b"ustar"
