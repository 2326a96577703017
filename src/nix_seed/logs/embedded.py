"""The embedded tile log: a directory, appended to by any number of processes.

::

    DIR/log.vkey      the verifier key, which verifiers are given
    DIR/private/      the signing key, Ed25519; never served, mode 0700
    DIR/lock          held by whoever appends
    DIR/public/       what any web server may serve: checkpoint, tile/… (C2SP tlog-tiles)

The checkpoint is written last, whole, after everything it commits to has been synced. Until then
an append has not happened, so one that is killed leaves a log of which nothing is missing.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError, foreign
from nix_seed.core.files import explained, locked, read_regular, unnamed, write_atomically
from nix_seed.formats.intoto.statement import Envelope
from nix_seed.formats.tlog import merkle
from nix_seed.formats.tlog.entry import HashedRekord, KeyDetails, LogEntry, Verifier
from nix_seed.formats.tlog.note import Checkpoint, NoteKey, SignedCheckpoint, sign_note
from nix_seed.logs.log import DirectorySource, TileReader, build_entry, read_key_of_log, read_tile
from nix_seed.logs.rules.entry import TrustedLog, logged_signature


class LogKey:
    """Signs checkpoints in the name of ``note_key``."""

    def __init__(self, key: Ed25519PrivateKey, origin: str | None) -> None:
        self._key = key
        public = key.public_key().public_bytes_raw()
        name = origin or f"nix-seed-log/{hashlib.sha256(public).hexdigest()[:16]}"
        self.note_key = NoteKey(name, "ed25519", public)

    @classmethod
    def make(cls, origin: str | None) -> Self:
        """Make a new key; unnamed, it is called after its own hash."""
        return cls(Ed25519PrivateKey.generate(), origin)

    @classmethod
    def load(cls, path: Path, expected: NoteKey) -> Self:
        """Read the key; ``InputError`` unless it is that of *expected*."""
        text = read_regular(path)
        with foreign(f"{path} is not a private key in PEM", as_=InputError, quoted=False):
            key = serialization.load_pem_private_key(text, None)
        if not isinstance(key, Ed25519PrivateKey):
            raise InputError(f"{path} is not an Ed25519 key")
        found = cls(key, expected.name)
        if found.note_key != expected:
            raise InputError(
                f"{path} is not the key of the log {expected.name}",
                hint="a log keeps its key for good; put the right one back",
            )
        return found

    def save(self, path: Path) -> None:
        """Write the key to *path*, readable by its owner only."""
        os.makedirs(path.parent, mode=0o700, exist_ok=True)
        with unnamed(path.parent, f"writing the log's key {path}") as file:
            file.write(
                self._key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
            )
            file.keep(path, 0o600)

    def sign(self, message: bytes) -> bytes:
        """Return the signature over *message*."""
        return self._key.sign(message)


_LEFT_OVER = re.compile(r"\..*\.tmp")


class Appended(NamedTuple):
    """A leaf's *entry*, and whether it was there before (*duplicate*)."""

    entry: LogEntry
    duplicate: bool


class EmbeddedLog(TileReader):
    """The log in *directory*; satisfies ``Log``. Thread-safe, and safe beside other processes."""

    def __init__(self, directory: Path, key: LogKey) -> None:
        self.directory = directory
        self.key = key
        self._public = directory / "public"
        note_key = key.note_key
        trusted = TrustedLog(note_key.name, "tiles", note_key.name, note_key)
        super().__init__(trusted, DirectorySource(self._public))
        self._indices: dict[bytes, int] = {}

    @classmethod
    def create(cls, directory: Path, origin: str | None = None) -> Self:
        """Open the log in *directory*, making it if there is none.

        A new log is called *origin*; unnamed, after the hash of its new key.
        """
        with explained(f"making a log in {directory}"):
            (directory / "private").mkdir(mode=0o700, parents=True, exist_ok=True)
        with explained(f"locking the log in {directory}"), locked(directory / "lock"):
            if not (directory / "log.vkey").exists():
                cls._begin(directory, origin)
        log = cls.open(directory)
        if origin not in (None, log.trusted.origin):
            raise InputError(
                f"the log in {directory} is called {log.trusted.origin}, not {origin}",
                hint="a log keeps its name for good; name another directory for another log",
            )
        return log

    @classmethod
    def _begin(cls, directory: Path, origin: str | None) -> None:
        if (directory / "public" / "checkpoint").exists():
            raise InputError(
                f"{directory} holds a log whose key is missing",
                hint="put its log.vkey and private/key.pem back, or choose another directory",
            )
        key = LogKey.make(origin)
        key.save(directory / "private" / "key.pem")
        log = cls(directory, key)
        log._publish(merkle.build_root(0, lambda _: []))
        write_atomically(directory / "log.vkey", f"{key.note_key}\n".encode())

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Open the log in *directory* for appending; ``InputError`` if there is none."""
        if not (directory / "log.vkey").exists():
            raise InputError(
                f"there is no log in {directory}",
                hint=f"'nix-seed log serve {directory}' makes one",
            )
        note_key = read_key_of_log(directory / "log.vkey")
        return cls(directory, LogKey.load(directory / "private" / "key.pem", note_key))

    def check_writable(self, _: KeyDetails | None = None, /) -> None:
        """Take the log's lock and read it to its end, as whoever appends does."""
        self.append_bodies([])
        if not os.access(self._public, os.W_OK):
            raise CouldNotCheck(
                f"the log in {self.directory} is read-only for this user",
                hint="let whoever attests write there, or serve it: nix-seed log serve",
            )

    def append(self, envelope: Envelope, verifier: Verifier) -> dict[str, Any]:
        """Log the envelope's signature, or find it logged; return its entry."""
        body = HashedRekord.of(logged_signature(envelope, verifier))
        return self.append_bodies([body.dump()])[0].entry.to_json()

    def append_bodies(self, bodies: Sequence[bytes]) -> list[Appended]:
        """Append leaves, each once however often it is given; return each one's proven entry."""
        doing = f"appending to the log in {self.directory}"
        with explained(doing), locked(self.directory / "lock"):
            before = self._caught_up()
            leaves = {merkle.leaf_hash(body): body for body in bodies}
            fresh = [body for leaf, body in leaves.items() if leaf not in self._indices]
            if fresh:
                self._extend(before.head, fresh)
            signed = self._caught_up()
        # Outside the lock: what a checkpoint commits to never changes.
        read = self.hashes(signed.head.size)
        done = []
        for body in bodies:
            index = self._indices[merkle.leaf_hash(body)]
            proof = merkle.build_inclusion_proof(index, signed.head.size, read)
            entry = build_entry(self.trusted, index, body, proof, signed)
            done.append(Appended(entry, duplicate=index < before.head.size))
        return done

    def _caught_up(self) -> SignedCheckpoint:
        """Learn the leaves that this or another process appended; return the checkpoint."""
        signed = self.checkpoint()
        known = len(self._indices)
        for tile in merkle.tiles_of(signed.head.size):
            if tile.leaf_range.stop > known:
                data = read_tile(self.source, tile)
                for i, index in enumerate(tile.leaf_range):
                    self._indices[data[i * merkle.HASH_SIZE : (i + 1) * merkle.HASH_SIZE]] = index
        if len(self._indices) != signed.head.size:
            raise CheckedFalse(
                f"the log in {self.directory} does not hold what its checkpoint says",
                hint=f"run 'nix-seed log check {self.directory}'",
            )
        return signed

    def _extend(self, old: merkle.TreeHead, bodies: Sequence[bytes]) -> None:
        size = old.size + len(bodies)
        leaves = [merkle.leaf_hash(body) for body in bodies]
        read: merkle.HashReader = merkle.read_appended(old.size, self.hashes(old.size), leaves)
        files = self._new_bundles(old.size, bodies)
        tiles = list(merkle.new_tiles(old.size, size))
        files |= dict(zip(tiles, merkle.build_tiles(tiles, read), strict=True))
        directories = {(self._public / tile.path).parent for tile in files}
        for directory in (self._public, *directories):
            # Remove what a killed writer left; only the lock's holder writes here.
            with suppress(FileNotFoundError):
                for name in os.listdir(directory):
                    if _LEFT_OVER.fullmatch(name):
                        os.unlink(directory / name)
        for tile, data in files.items():
            write_atomically(self._public / tile.path, data)
        for directory in directories:
            _sync(directory)
        self._publish(merkle.build_root(size, read))
        for tile in files:
            if tile.is_full:  # it replaces the partial ones: readers take it instead
                shutil.rmtree(self._public / f"{tile.path}.p", ignore_errors=True)

    def _new_bundles(self, old: int, bodies: Sequence[bytes]) -> dict[merkle.Tile, bytes]:
        """Return the bundles that *bodies* begin or make wider, and their bytes."""
        first, begun = divmod(old, merkle.WIDTH)
        entries = list(bodies)
        if begun:
            entries[:0] = self.bundle(merkle.Tile(merkle.Tile.ENTRIES, first, begun))
        groups = [entries[i : i + merkle.WIDTH] for i in range(0, len(entries), merkle.WIDTH)]
        return {
            merkle.Tile(merkle.Tile.ENTRIES, number, len(group)): merkle.encode_entries(group)
            for number, group in enumerate(groups, first)
        }

    def _publish(self, head: merkle.TreeHead) -> None:
        text = str(Checkpoint(self.trusted.origin, head))
        note = sign_note(text, self.trusted.key, self.key.sign)
        write_atomically(self._public / "checkpoint", note.dump())
        _sync(self._public)


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
