"""Recompute everything an image claims, from the bytes of its layers alone.

Every layer is read once: its blob against the digest, its tar against the diffID and against the
one canonical form, each store path against the NAR hash and size in the spec. The last layer
(files, Nix database, spec) and the image's documents are made anew from the spec and compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from nix_seed.clients.blobs import Fetched, ImageStore
from nix_seed.clients.image_source import read_seed
from nix_seed.clients.tar_pieces import TarPieces
from nix_seed.clients.tar_reader import Entry, Kind, read_entries
from nix_seed.formats.oci import tar
from nix_seed.formats.oci.descriptor import Descriptor, Manifest
from nix_seed.ground.digests import DiffID
from nix_seed.ground.errors import CheckedFalse, InputError
from nix_seed.rules.container import container_entries
from nix_seed.rules.image import build_image
from nix_seed.rules.layer_audit import AuditedLayer, LayerAudit
from nix_seed.rules.spec import Spec

__all__ = ["DeepCheck", "deep_check"]

_LARGEST_LAYER = 1 << 40  # bytes of tar
_PIECE = 1 << 20
_KINDS = {Kind.FILE: tar.FILE, Kind.SYMLINK: tar.SYMLINK, Kind.DIRECTORY: tar.DIRECTORY}


@dataclass(frozen=True, slots=True)
class DeepCheck:
    """What was read, and every *problem* found, one line each; none means that all is right."""

    layers: int
    paths: int
    size: int
    problems: tuple[str, ...]


def deep_check(
    store: ImageStore,
    image: Fetched,
    name: str,
    on_layer: Callable[[int, int], None] = lambda _position, _all: None,
) -> DeepCheck:
    """Read all of *image* and compare; *size* in the answer is in bytes of tar.

    Raises ``CouldNotCheck`` where a blob is out of reach. A wrong byte is a problem, not an error;
    but without a readable spec there is nothing to compare with, and ``CheckedFalse`` says so.
    """
    try:
        seed = read_seed(name, image, store)
    except InputError as error:
        raise CheckedFalse(error.message, hint=error.hint) from error
    problems: list[str] = []
    found: list[tuple[Descriptor, DiffID]] = []
    size = 0
    for position, layer in enumerate(seed.manifest.layers):
        on_layer(position, len(seed.manifest.layers))
        what = f"layer {position + 1}"
        try:
            read = _read_layer(store, layer, seed.spec, position, what)
        except CheckedFalse as error:
            problems.append(error.message)
            continue
        problems += read.problems
        found.append((layer, read.diff_id))
        size += read.size
    if len(found) == len(seed.manifest.layers):
        problems += _documents(seed.spec, seed.manifest, found, image)
    return DeepCheck(len(seed.manifest.layers), len(seed.spec.paths), size, tuple(problems))


@dataclass(frozen=True, slots=True)
class _Read:
    diff_id: DiffID
    size: int
    problems: tuple[str, ...]


def _read_layer(
    store: ImageStore, layer: Descriptor, spec: Spec, position: int, what: str
) -> _Read:
    with TarPieces(store.open_blob(layer), layer.media_type, _LARGEST_LAYER, what, 2) as pieces:
        stream = _Hashing(pieces)
        if position == len(spec.layers):
            wanted = _container_diff_id(spec)
            problems: Iterator[str] = iter(())
        else:
            audited = _audit(stream, what)
            wanted = audited.diff_id
            problems = _paths(audited, spec, position, what)
        stream.drain()
        pieces.drain()
        diff_id = DiffID(stream.hexdigest())
        found = list(problems)
        if diff_id != wanted:
            how = (
                "the files, database and spec that seed.json asks for"
                if position == len(spec.layers)
                else "the canonical tar of what it holds"
            )
            found.append(f"{what}: its tar is {diff_id}, but {how} would be {wanted}")
        return _Read(diff_id, pieces.tell(), tuple(found))


def _audit(stream: _Hashing, what: str) -> AuditedLayer:
    audit = LayerAudit(what)
    for entry in read_entries(stream, what):  # type: ignore[arg-type]
        _take(audit, entry, stream, what)
    return audit.finish()


def _take(audit: LayerAudit, entry: Entry, stream: _Hashing, what: str) -> None:
    kind = _KINDS.get(entry.kind)
    if kind is None:
        raise CheckedFalse(f"{what}: {entry.name!r} is a hard link, which no layer of ours has")
    target = entry.target if kind == tar.SYMLINK else b""
    audit.enter(kind, entry.name, entry.mode, entry.size, target)
    if kind != tar.FILE:
        return
    left = entry.size
    while left:
        piece = stream.read(min(left, _PIECE))
        if not piece:
            raise CheckedFalse(f"{what}: ends in the middle of {entry.name!r}")
        audit.body(piece)
        left -= len(piece)
    audit.end_body(entry.size)


def _paths(audited: AuditedLayer, spec: Spec, position: int, what: str) -> Iterator[str]:
    """Compare what the layer holds with what the spec says lies in it."""
    wanted = spec.layers[position].paths
    for path in sorted(set(wanted) - audited.paths.keys()):
        yield f"{what}: lacks {path}"
    for path in sorted(audited.paths.keys() - set(wanted)):
        yield f"{what}: holds {path}, which the spec does not put there"
    for path in sorted(audited.paths.keys() & set(wanted)):
        info, (nar_hash, nar_size) = spec.paths[path], audited.paths[path]
        if nar_hash != info.nar_hash:
            yield f"{path}: its NAR hash is {nar_hash}, the spec says {info.nar_hash}"
        elif nar_size != info.nar_size:
            yield f"{path}: its NAR has {nar_size} bytes, the spec says {info.nar_size}"


def _container_diff_id(spec: Spec) -> DiffID:
    state = hashlib.sha256()
    for entry in tar.in_order(container_entries(spec)):
        if entry.kind == tar.FILE:
            state.update(tar.header(entry.name, entry.kind, entry.mode, len(entry.data)))
            state.update(entry.data + tar.padding(len(entry.data)))
        elif entry.kind == tar.SYMLINK:
            state.update(tar.header(entry.name, entry.kind, 0o777, target=entry.data))
        else:
            state.update(tar.header(entry.name + b"/", entry.kind, entry.mode))
    state.update(tar.END)
    return DiffID(state.hexdigest())


def _documents(
    spec: Spec, manifest: Manifest, layers: list[tuple[Descriptor, DiffID]], image: Fetched
) -> Iterator[str]:
    made = build_image(spec, layers)
    if manifest.config.digest.hex != hashlib.sha256(made.config).hexdigest():
        yield "the configuration is not the one that its spec and layers have"
    if made.digest != image.descriptor.digest:
        yield f"the manifest is not the one that its spec and layers have, {made.digest}"


class _Hashing:
    """The stream of a tar, hashed as it is read."""

    def __init__(self, pieces: TarPieces) -> None:
        self._pieces = pieces
        self._state = hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self._pieces.read(size)
        self._state.update(data)
        return data

    def tell(self) -> int:
        return self._pieces.tell()

    def drain(self) -> None:
        while self.read(_PIECE):
            pass

    def hexdigest(self) -> str:
        return self._state.hexdigest()
