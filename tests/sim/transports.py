"""A registry and a log in memory, as exact as those on disk: the real flows run over them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import field

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CouldNotCheck, InputError
from nix_seed.core.values import dataclass
from nix_seed.formats.intoto.statement import Envelope
from nix_seed.formats.oci.manifest import Descriptor, Index, Manifest, MediaType
from nix_seed.formats.oci.reference import Reference
from nix_seed.formats.tlog.entry import HashedRekord, KeyDetails, Verifier, parse_body
from nix_seed.formats.tlog.merkle import (
    Proof,
    build_consistency_proof,
    build_inclusion_proof,
    build_root,
    leaf_hash,
    read_from_leaves,
)
from nix_seed.formats.tlog.note import Checkpoint, SignedCheckpoint, sign_note
from nix_seed.logs.embedded import LogKey
from nix_seed.logs.log import Entry, OneLog, build_entry
from nix_seed.logs.rules.entry import TrustedLog, logged_signature
from nix_seed.registry.open import AnyReference, Stores
from nix_seed.registry.store import (
    BlobSource,
    Fetched,
    Held,
    ImageStore,
    IndexEdit,
    NamedDocument,
    index_members,
    referrer_entry,
)

__all__ = ["MemoryLog", "MemoryStore", "MemoryStores"]


class MemoryStore:
    """Satisfies ``ImageStore``. What it gives has the digest it is asked by, as always."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.documents: dict[Digest, tuple[str, bytes]] = {}
        self.blobs: dict[Digest, bytes] = {}
        self.tags: dict[str, Digest] = {}
        self.listed: dict[Digest, dict[Digest, Descriptor]] = {}

    def __str__(self) -> str:
        return self.name

    def copy(self) -> MemoryStore:
        """A second one with the same contents, to show to somebody else."""
        other = MemoryStore(self.name)
        other.documents, other.blobs = dict(self.documents), dict(self.blobs)
        other.tags = dict(self.tags)
        other.listed = {subject: dict(items) for subject, items in self.listed.items()}
        return other

    def head_manifest(self, name: str | Digest) -> Descriptor | None:
        found = self.get_manifest(name)
        return None if found is None else found.descriptor

    def get_manifest(self, name: str | Digest, *, writing: bool = False) -> Fetched | None:
        digest = self.tags.get(name) if isinstance(name, str) else name
        if digest is None or digest not in self.documents:
            return None
        media_type, body = self.documents[digest]
        return Fetched(Descriptor(media_type, digest, len(body)), body)

    def put_manifest(
        self, body: bytes, media_type: str, name: str | Digest | None = None
    ) -> Descriptor:
        digest = Digest.of(body)
        self.documents[digest] = media_type, body
        if isinstance(name, str):
            self.tags[name] = digest
        return Descriptor(media_type, digest, len(body))

    def put_manifests(self, documents: Sequence[NamedDocument], jobs: int = 1) -> None:
        for each in documents:
            self.put_manifest(*each)

    def edit_indexes(self, edits: Mapping[str, IndexEdit], jobs: int = 1) -> frozenset[str]:
        changed = set()
        for tag, edit in edits.items():
            before = index_members(self.get_manifest(tag), f"{self}:{tag}")
            if edit(before) != before:
                self.put_manifest(Index(edit(before)).dump(), MediaType.INDEX, tag)
                changed.add(tag)
        return frozenset(changed)

    def has_blob(self, digest: Digest) -> bool:
        return digest in self.blobs

    def open_blob(self, blob: Descriptor, held: Held | None = None) -> Iterator[bytes]:
        if blob.digest not in self.blobs:
            raise CouldNotCheck(f"{self} has no blob {blob.digest}")
        yield self.blobs[blob.digest][held.size if held else 0 :]

    def read_range_unverified(self, blob: Descriptor, start: int, length: int) -> bytes:
        return self.blobs[blob.digest][start : start + length]

    def gives_ranges(self, blob: Descriptor) -> bool:
        return blob.digest in self.blobs

    def take_blob(self, blob: Descriptor, source: BlobSource) -> bool:
        data = b"".join(source(Held()))
        if Digest.of(data) != blob.digest:
            raise InputError(f"{self}: these are not the bytes of {blob.digest}")
        self.blobs[blob.digest] = data
        return True

    def push_stream(self, source: Callable[[], Iterable[bytes]], media_type: str) -> Descriptor:
        data = b"".join(source())
        self.blobs[Digest.of(data)] = data
        return Descriptor(media_type, Digest.of(data), len(data))

    def list_tags(self) -> tuple[str, ...]:
        return tuple(sorted(self.tags))

    def tags_with(self, prefixes: Collection[str], jobs: int = 1) -> tuple[str, ...]:
        return tuple(tag for tag in self.list_tags() if tag.startswith(tuple(prefixes)))

    def attach(self, body: bytes) -> Descriptor:
        entry, subject = referrer_entry(body)
        self.put_manifest(body, MediaType.MANIFEST)
        self.listed.setdefault(subject, {})[entry.digest] = entry
        return entry

    def detach(self, subject: Digest, gone: Collection[Digest]) -> None:
        for digest in gone:
            self.listed.get(subject, {}).pop(digest, None)

    def check_attachable(self, subject: Digest) -> None:
        """Anything can be listed here."""

    def referrers(
        self, subject: Digest, artifact_type: str | None = None
    ) -> tuple[Descriptor, ...]:
        items = self.listed.get(subject, {})
        found = [items[digest] for digest in sorted(items)]
        return tuple(e for e in found if artifact_type in (None, e.artifact_type))

    def hide(self, subject: Digest) -> None:
        """List nothing under *subject* any more."""
        self.listed.pop(subject, None)

    def images_of(self, digest: Digest) -> tuple[Digest, ...]:
        """The images that an index names, or the one image itself."""
        media_type, body = self.documents[digest]
        if media_type != MediaType.INDEX:
            Manifest.parse(body, "x")
            return (digest,)
        return tuple(item.digest for item in Index.parse(body, "x").manifests)


@dataclass(frozen=True, slots=True)
class MemoryStores(Stores):
    """Opens *views*, by the repository's name: what one party is shown."""

    views: dict[str, MemoryStore] = field(default_factory=dict)

    def open(
        self, reference: AnyReference, *, create: bool = False, mount_from: tuple[str, ...] = ()
    ) -> ImageStore:
        assert isinstance(reference, Reference)
        return self.views[reference.repository]


class MemoryLog(OneLog):
    """Satisfies ``Log``: RFC 6962 and signed checkpoints, in a list. *down*: out of reach."""

    def __init__(self, log_id: str, key: LogKey, bodies: tuple[bytes, ...] = ()) -> None:
        self.key = key
        self.down = False
        self.trusted = TrustedLog(log_id, "tiles", key.note_key.name, key.note_key)
        self._bodies = list(bodies)
        self._leaves = [leaf_hash(body) for body in bodies]

    def fork(self, size: int | None = None) -> MemoryLog:
        """A second history with the same key, which only its operator can sign."""
        return MemoryLog(self.trusted.id, self.key, tuple(self._bodies[:size]))

    def check_writable(self, _: KeyDetails | None = None, /) -> None:
        self._reach()

    def append(self, envelope: Envelope, verifier: Verifier) -> Entry:
        self._reach()
        body = HashedRekord.of(logged_signature(envelope, verifier)).dump()
        leaf = leaf_hash(body)
        if leaf not in self._leaves:
            self._bodies.append(body)
            self._leaves.append(leaf)
        return self._entry(self._leaves.index(leaf))

    def lookup(self, digest: bytes) -> Iterator[Entry]:
        self._reach()
        for index, body in enumerate(self._bodies):
            found = parse_body(body, "x")
            if isinstance(found, HashedRekord) and found.digest == digest:
                yield self._entry(index)

    def checkpoint(self) -> SignedCheckpoint:
        self._reach()
        head = build_root(len(self._leaves), read_from_leaves(self._leaves))
        text = str(Checkpoint(self.trusted.origin, head))
        note = sign_note(text, self.trusted.key, self.key.sign)
        return SignedCheckpoint.parse(note.dump(), "x")

    def consistency(self, old: int, new: int) -> Proof:
        self._reach()
        return build_consistency_proof(old, new, read_from_leaves(self._leaves[:new]))

    def _entry(self, index: int) -> Entry:
        signed = self.checkpoint()
        read = read_from_leaves(self._leaves)
        proof = build_inclusion_proof(index, len(self._leaves), read)
        return build_entry(self.trusted, index, self._bodies[index], proof, signed).to_json()

    def _reach(self) -> None:
        if self.down:
            raise CouldNotCheck(f"the log {self.trusted.id} is out of reach")
