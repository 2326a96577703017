"""Recompute everything an image claims, from the bytes of its layers alone; list a layer's files.

Every layer is read once: its blob against the digest, its tar against the diffID and against the
one canonical form, each store path against the NAR hash and size in the spec. The last layer
(files, Nix database, spec) and the image's documents are made anew from the spec and compared.

While entries go by, the tar they would have in canonical form is made and hashed beside them. The
layer is canonical if, and only if, that hash is the diffID of the bytes that came.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

from nix_seed.core.digests import DiffID, NarHash
from nix_seed.core.errors import CheckedFalse, InputError, of_store
from nix_seed.core.values import dataclass
from nix_seed.formats.nix.nar import NarHasher
from nix_seed.formats.nix.store_path import STORE_DIR, PathInfo, StorePath
from nix_seed.formats.oci import tar
from nix_seed.formats.oci.manifest import Descriptor, Manifest
from nix_seed.image.read.spec import LARGEST_SPEC, read_seed
from nix_seed.image.read.stream import HashedPieces, TarPieces, layer_limit
from nix_seed.image.read.tar import Entry, EntryKind, entries_below, read_entries
from nix_seed.image.read.unpack import unpack_layer
from nix_seed.image.rules.contents import ContentsWriter
from nix_seed.image.rules.layer import DIRECTORY, FILE, SYMLINK, Node, NodeHeaders
from nix_seed.image.rules.spec import Spec, build_image, container_entries
from nix_seed.registry.store import Fetched, ImageStore

_STORE: Final = tuple(STORE_DIR.removeprefix("/").encode().split(b"/"))
_KINDS: Final = {
    EntryKind.FILE: (FILE, (0o444, 0o555)),
    EntryKind.SYMLINK: (SYMLINK, (0o777,)),
    EntryKind.DIRECTORY: (DIRECTORY, (0o555,)),
}


@dataclass(frozen=True, slots=True)
class AuditedLayer:
    """What a layer holds: each path's NAR hash and NAR size; *diff_id* as it ought to be.

    *contents* lists its files, for the image's table of contents.
    """

    paths: dict[StorePath, tuple[NarHash, int]]
    diff_id: DiffID
    contents: ContentsWriter


class LayerAudit:
    """Takes the entries of one layer in their order; ``CheckedFalse`` for one out of place."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._tar = hashlib.sha256()
        self._paths: dict[StorePath, tuple[NarHash, int]] = {}
        self._last: tuple[bytes, ...] = ()
        self._headers: NodeHeaders | None = None
        self._nar = NarHasher()
        self._contents = ContentsWriter()
        self._open: list[bytes] = []  # the directories of the path that are not closed yet

    def enter(self, entry: Entry) -> None:
        """Take an entry of the tar."""
        name, mode, parts = entry.name, entry.mode, tuple(entry.name.split(b"/"))
        if entry.kind is EntryKind.HARD_LINK:
            raise self._wrong(name, "is a hard link, which no layer of ours has")
        if parts <= self._last:
            raise self._wrong(name, "is not in order")
        self._last = parts
        kind, modes = _KINDS[entry.kind]
        if len(parts) <= len(_STORE):
            if parts != _STORE[: len(parts)] or kind != DIRECTORY or mode != 0o755:
                raise self._wrong(name, "does not belong in a layer of store paths")
            self._tar.update(tar.header(name + b"/", tar.DIRECTORY, 0o755))
            return
        if parts[: len(_STORE)] != _STORE or mode not in modes:
            raise self._wrong(name, f"has mode {mode:04o}, or lies outside {STORE_DIR}")
        below = parts[len(_STORE) :]
        depth = len(below) - 1
        if depth == 0:
            self._begin_path(below[0], name)
        del self._open[depth:]
        if tuple(self._open) != below[:-1] or self._headers is None:
            raise self._wrong(name, "comes without its directory")
        if kind == DIRECTORY:
            self._open.append(below[-1])
        place = name[len(STORE_DIR) + len(below[0]) :]
        node = Node(kind, place, below[-1], depth, entry.size, mode == 0o555, entry.target)
        try:
            self._tar.update(self._headers.of(node))
        except InputError as error:
            raise self._wrong(name, error.message) from error

    def body(self, piece: memoryview) -> None:
        """Take the next bytes of the file last entered."""
        self._tar.update(piece)
        self._nar.add_now(piece)

    def end_body(self, size: int) -> None:
        """Close the file of *size* bytes last entered."""
        self._tar.update(tar.padding(size))
        self._nar.end_file(size)

    def finish(self) -> AuditedLayer:
        """Return what the layer held, once its last entry was taken."""
        self._finish_path()
        self._tar.update(tar.END)
        return AuditedLayer(self._paths, DiffID(self._tar.hexdigest()), self._contents)

    def _begin_path(self, base_name: bytes, name: bytes) -> None:
        self._finish_path()
        try:
            path = StorePath.parse(f"{STORE_DIR}/{base_name.decode()}")
        except (InputError, UnicodeDecodeError) as error:
            raise self._wrong(name, "is no store path") from error
        self._headers = NodeHeaders(path, self._contents)
        self._nar = self._headers.nar

    def _finish_path(self) -> None:
        if self._headers is not None:
            self._paths[self._headers.path] = (self._nar.finish(), self._nar.size)

    def _wrong(self, name: bytes, how: str) -> CheckedFalse:
        return CheckedFalse(f"{self._label}: {name.decode(errors='backslashreplace')!r} {how}")


_MOST_ENTRIES: Final = 8_000_000


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A file as ``ls`` would show it: its *kind*, and the SHA-256 of its bytes or its target."""

    kind: str
    content: str


@dataclass(frozen=True, slots=True)
class SeenPath:
    """A store path of an image: the *layer* that holds it, *beside* all that lies in that."""

    store: ImageStore
    layer: Descriptor
    info: PathInfo
    beside: tuple[PathInfo, ...]

    @property
    def _part(self) -> tuple[bytes, int]:
        return str(self.info.path).removeprefix("/").encode(), self.info.nar_size

    def files(self) -> dict[str, FileFacts]:
        """Return every file of it, by its name below it (the path itself is ``.``).

        Raises ``CheckedFalse`` for a layer that is not what its descriptor says, or that has more
        than the spec says.
        """
        found: dict[str, FileFacts] = {}
        root, size = self._part
        with self._opened() as (pieces, label):
            for entry in entries_below(read_entries(pieces, label), root, size, label):
                name = entry.name[len(root) + 1 :].decode("utf-8", "backslashreplace") or "."
                found[name] = _facts(entry, pieces)
                if len(found) > _MOST_ENTRIES:
                    raise CheckedFalse(f"{label}: has more than {_MOST_ENTRIES} entries")
            pieces.drain()
        return found

    def unpack(self, directory: Path) -> None:
        """Unpack it, and nothing else of its layer, below *directory*; raises as ``files`` does."""
        with self._opened() as (pieces, label):
            unpack_layer(pieces, directory, label, _MOST_ENTRIES, self._part)
            pieces.drain()

    def _opened(self) -> AbstractContextManager[tuple[TarPieces, str]]:
        return _opened(self.store, self.layer, layer_limit(self.beside))


def unpack_last(store: ImageStore, layer: Descriptor, directory: Path) -> None:
    """Unpack the last *layer* of a seed below *directory*, which nothing in it can leave."""
    with _opened(store, layer, LARGEST_SPEC) as (pieces, label):
        unpack_layer(pieces, directory, label, _MOST_ENTRIES)
        pieces.drain()


@contextmanager
def _opened(store: ImageStore, layer: Descriptor, limit: int) -> Iterator[tuple[TarPieces, str]]:
    label = f"the layer {layer.digest}"
    with TarPieces(store.open_blob(layer), layer.media_type, limit, label, 2) as pieces:
        yield pieces, label


def _facts(entry: Entry, pieces: TarPieces) -> FileFacts:
    if entry.kind is not EntryKind.FILE:
        return FileFacts(entry.kind.name.lower(), entry.target.decode("utf-8", "backslashreplace"))
    state = hashlib.sha256()
    for piece in pieces.body(entry.size):
        state.update(piece)
    kind = "program" if entry.mode & 0o111 else "file"
    return FileFacts(f"{kind} of {entry.size} bytes", f"sha256:{state.hexdigest()}")


@dataclass(frozen=True, slots=True)
class DeepCheck:
    """What was read, and every *problem* found, one line each; none means that all is right."""

    layers: int
    paths: int
    size: int
    problems: tuple[str, ...]


def deep_check(store: ImageStore, image: Fetched, name: str) -> DeepCheck:
    """Read all of *image* and compare; *size* in the answer is in bytes of tar.

    Raises ``CouldNotCheck`` where a blob is out of reach. A wrong byte is a problem, not an error;
    but without a readable spec there is nothing to compare with, and ``CheckedFalse`` says so.
    """
    with of_store():
        seed = read_seed(name, image, store)
    problems: list[str] = []
    found: list[tuple[Descriptor, DiffID]] = []
    contents: list[bytes] = []
    size = 0
    for position, layer in enumerate(seed.manifest.layers):
        try:
            read = _read_layer(store, layer, seed.spec, position, contents)
        except CheckedFalse as error:
            problems.append(error.message)
            continue
        problems += read.problems
        found.append((layer, read.diff_id))
        contents.append(read.contents)
        size += read.size
    if len(found) == len(seed.manifest.layers):
        problems += _documents(seed.spec, seed.manifest, found, image)
    return DeepCheck(len(seed.manifest.layers), len(seed.spec.paths), size, tuple(problems))


@dataclass(frozen=True, slots=True)
class _Read:
    diff_id: DiffID
    size: int
    problems: tuple[str, ...]
    contents: bytes


def _read_layer(
    store: ImageStore, layer: Descriptor, spec: Spec, position: int, before: Sequence[bytes]
) -> _Read:
    """Read the layer at *position*; *before* are the others' parts of the table of contents."""
    label = f"layer {position + 1}"
    last = position == len(spec.layers)
    chunks = store.open_blob(layer)
    limit = LARGEST_SPEC
    if not last:
        limit = layer_limit(spec.paths[path] for path in spec.layers[position].paths)
    with HashedPieces(chunks, layer.media_type, limit, label, 2) as pieces:
        found: list[str] = []
        contents = b""
        if not last:
            audited = _audit(pieces, label)
            wanted: DiffID | None = audited.diff_id
            found += _paths(audited, spec, position, label)
            contents = audited.contents.finish(pieces.frames())
        else:
            # A layer that could not be read has no part of the table to compare with.
            read = not spec.has_contents or len(before) == len(spec.layers)
            wanted = _container_diff_id(spec, before) if read else None
        diff_id = pieces.diff_id()
        if wanted not in (None, diff_id):
            how = (
                "the files, database, spec and table of contents that belong there"
                if last
                else "the canonical tar of what it holds"
            )
            found.append(f"{label}: its tar is {diff_id}, but {how} would be {wanted}")
        return _Read(diff_id, pieces.tell(), tuple(found), contents)


def _audit(pieces: TarPieces, label: str) -> AuditedLayer:
    audit = LayerAudit(label)
    for entry in read_entries(pieces, label):
        audit.enter(entry)
        if entry.kind is EntryKind.FILE:
            for piece in pieces.body(entry.size):
                audit.body(piece)
            audit.end_body(entry.size)
    return audit.finish()


def _paths(audited: AuditedLayer, spec: Spec, position: int, label: str) -> Iterator[str]:
    """Compare what the layer holds with what the spec says lies in it."""
    wanted = spec.layers[position].paths
    for path in sorted(set(wanted) - audited.paths.keys()):
        yield f"{label}: lacks {path}"
    for path in sorted(audited.paths.keys() - set(wanted)):
        yield f"{label}: holds {path}, which the spec does not put there"
    for path in sorted(audited.paths.keys() & set(wanted)):
        info, (nar_hash, nar_size) = spec.paths[path], audited.paths[path]
        if nar_hash != info.nar_hash:
            yield f"{path}: its NAR hash is {nar_hash}, the spec says {info.nar_hash}"
        elif nar_size != info.nar_size:
            yield f"{path}: its NAR has {nar_size} bytes, the spec says {info.nar_size}"


def _container_diff_id(spec: Spec, contents: Sequence[bytes]) -> DiffID:
    state = hashlib.sha256()
    for part in tar.archived(container_entries(spec, contents)):
        state.update(part)
    return DiffID(state.hexdigest())


def _documents(
    spec: Spec, manifest: Manifest, layers: list[tuple[Descriptor, DiffID]], image: Fetched
) -> Iterator[str]:
    made = build_image(spec, layers)
    if manifest.config.digest.hex != hashlib.sha256(made.config).hexdigest():
        yield "the configuration is not the one that its spec and layers have"
    if made.digest != image.descriptor.digest:
        yield f"the manifest is not the one that its spec and layers have, {made.digest}"
