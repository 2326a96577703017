"""An image as one file: ``oci-archive`` (a tar of a layout) and ``docker-archive``.

Both are functions of the image and its name alone, and are written as streams, whatever the size.
A docker-archive holds layers uncompressed, which ``docker load`` reads from its first versions on.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from nix_seed.core import canonical_json
from nix_seed.core.digests import DiffID, Digest
from nix_seed.core.errors import CheckedFalse, InputError
from nix_seed.core.files import Unnamed, unnamed
from nix_seed.formats.oci import tar
from nix_seed.formats.oci.manifest import Descriptor, Index
from nix_seed.image.read.stream import TarPieces
from nix_seed.registry.layout import LAYOUT_FILE, ImageFiles, is_blob

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
                _copy(out, member, *blobs[member])
        out.write(tar.END)
        out.keep(path)


def write_docker_archive(image: ImageFiles, path: Path, tags: tuple[str, ...] = ()) -> None:
    """Write *image* to the file *path* for ``docker load``; *tags* are ``name:tag``.

    Every layer is checked against the config's diffIDs on the way: ``CheckedFalse`` if one differs.
    """
    _check_path(path)
    config = f"{image.manifest.config.digest.hex}.json"
    diff_ids = _diff_ids(image)
    members = {f"{diff_id.hex}/layer.tar": diff_id for diff_id in diff_ids}
    sources = dict(zip(diff_ids, image.manifest.layers, strict=True))
    listing = [
        {
            "Config": config,
            "RepoTags": list(tags),
            "Layers": [f"{i.hex}/layer.tar" for i in diff_ids],
        }
    ]
    with unnamed(path.parent, f"writing {path}") as out:
        for member, diff_id in sorted(members.items()):
            out.write(tar.header(f"{diff_id.hex}/".encode(), tar.DIRECTORY, 0o755))
            layer = sources[diff_id]
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


def _diff_ids(image: ImageFiles) -> list[DiffID]:
    config: Any = canonical_json.loads(image.config, label="the image's config")
    try:
        diff_ids = [DiffID.parse(text) for text in config["rootfs"]["diff_ids"]]
    except (KeyError, TypeError) as error:
        raise InputError("the image's config lists no diffIDs") from error
    if len(diff_ids) != len(image.manifest.layers):
        raise InputError("the image's config and manifest differ in their number of layers")
    return diff_ids


def _put(out: Unnamed, member: str, data: bytes) -> None:
    out.write(tar.header(member.encode(), tar.FILE, 0o644, len(data)))
    out.write(data)
    out.write(tar.padding(len(data)))


def _copy(out: Unnamed, member: str, layer: Descriptor, source: Path) -> None:
    out.write(tar.header(member.encode(), tar.FILE, 0o644, layer.size))
    for chunk in _checked(layer, source):
        out.write(chunk)
    out.write(tar.padding(layer.size))


def _read(source: Path) -> Iterator[bytes]:
    with open(source, "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _checked(layer: Descriptor, source: Path) -> Iterator[bytes]:
    """Yield a blob's bytes; ``CheckedFalse`` at their end, if they were not the layer's."""
    sha256, size = hashlib.sha256(), 0
    for chunk in _read(source):
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
    return TarPieces(_read(source), kind, _LARGEST, name, threads=1, hashed=True)
