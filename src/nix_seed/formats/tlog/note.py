"""Signed notes (C2SP signed-note) and checkpoints (C2SP tlog-checkpoint), with their keys.

A note is a text with signatures under it. Kinds of signature: ``ed25519`` (type 1), ``ecdsa`` on
P-256 with SHA-256 (type 2, as Rekor signs) and ``cosignature`` (type 4, C2SP tlog-cosignature:
Ed25519 with a time, as witnesses sign). A checkpoint is the note of a tree head, signed by its log
and by witnesses.

Ed25519 keys that are points of small order are refused: one signature under such a key is good for
many messages, and nobody needs a secret to make it.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Final, Literal, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from nix_seed.core.digests import exact_base64, to_base64
from nix_seed.core.errors import CheckedFalse, InputError, foreign
from nix_seed.core.values import dataclass
from nix_seed.formats.tlog.merkle import TreeHead

_LOW: Final = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"
# Each point of order 1, 2, 4 and 8 in every spelling, without the sign, which is the last bit.
_SMALL_ORDER: Final = frozenset(
    bytes.fromhex(each)
    for each in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + _LOW,
        "ed" + _LOW,
        "ee" + _LOW,
    )
)


def is_small_order(public: bytes) -> bool:
    """Whether the 32 bytes *public* are a point of small order, however it is spelled."""
    return public[:31] + bytes([public[31] & 0x7F]) in _SMALL_ORDER


KeyKind = Literal["ed25519", "ecdsa", "cosignature"]

_TYPES: Final[dict[KeyKind, int]] = {"ed25519": 1, "ecdsa": 2, "cosignature": 4}
_MOST_SIGNATURES = 64
_LARGEST = 1 << 16
_LINE = re.compile("— ([^ \n]+) ([A-Za-z0-9+/]+={0,2})")
_ED25519_SPKI = bytes.fromhex("302a300506032b6570032100")
_PEM = re.compile(r"-----BEGIN PUBLIC KEY-----([A-Za-z0-9+/=\s]+)-----END PUBLIC KEY-----\s*")


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line: whose it says it is, and *body*, what follows the key id."""

    name: str
    key_id: bytes
    body: bytes

    def __str__(self) -> str:
        return f"— {self.name} {to_base64(self.key_id + self.body)}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A *text* that ends in a newline, and at least one signature over its exact bytes."""

    text: str
    signatures: tuple[NoteSignature, ...]

    @classmethod
    def parse(cls, data: bytes, label: str) -> Self:
        """Read a note; any but its one spelling is refused, with *label* in the error."""
        try:
            if len(data) > _LARGEST:
                raise ValueError(f"it is longer than {_LARGEST} bytes")
            note = cls._read(data.decode("utf-8"))
            if note.dump() != data:
                raise ValueError("it is not spelled as notes are")
        except ValueError as error:
            raise InputError(f"{label} is not a signed note: {error}") from error
        return note

    @classmethod
    def _read(cls, text: str) -> Self:
        if any(character < " " and character != "\n" for character in text):
            raise ValueError("it holds control characters")
        body, blank, lines = text.rpartition("\n\n")
        if not blank or not body or not lines.endswith("\n"):
            raise ValueError("no signatures follow an empty line")
        signatures = tuple(_signature(line) for line in lines[:-1].split("\n"))
        if len(signatures) > _MOST_SIGNATURES:
            raise ValueError(f"it has {len(signatures)} signatures; {_MOST_SIGNATURES} are read")
        return cls(body + "\n", signatures)

    def dump(self) -> bytes:
        """Return the note's bytes."""
        return f"{self.text}\n{''.join(map(str, self.signatures))}".encode()

    def signatures_of(self, key: NoteKey) -> tuple[NoteSignature, ...]:
        """Return what says it was made by *key*."""
        said = (key.name, key.key_id)
        return tuple(each for each in self.signatures if (each.name, each.key_id) == said)


@dataclass(frozen=True, slots=True)
class NoteKey:
    """A key that verifies notes: *public* is 32 bytes of Ed25519, or a P-256 SPKI in DER."""

    name: str
    kind: KeyKind
    public: bytes

    def __post_init__(self) -> None:
        if not self.name or "+" in self.name or any(map(_splits, self.name)):
            raise InputError(f"{self.name!r} cannot name a key: no spaces, no + and not empty")
        if self.kind != "ecdsa" and len(self.public) != 32:
            raise InputError(f"the key of {self.name} must have 32 bytes, as Ed25519 keys do")
        if self.kind != "ecdsa" and is_small_order(self.public):
            raise InputError(f"the key of {self.name} is of small order: anyone can sign with it")
        _load(self)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a verifier key, ``<name>+<key id in hex>+<base64>``."""
        name, _, rest = text.partition("+")
        key_id, _, encoded = rest.partition("+")
        try:
            raw = exact_base64(encoded)
            kinds = [kind for kind, number in _TYPES.items() if raw[:1] == bytes([number])]
            key = cls(name, kinds[0], raw[1:])
        except (ValueError, IndexError, InputError) as error:
            raise _no_key(text, str(error) if isinstance(error, InputError) else None) from error
        if str(key) != text:
            raise _no_key(text, f"its key id would be {key.key_id.hex()}, not {key_id}")
        return key

    @classmethod
    def from_der(cls, name: str, der: bytes) -> Self:
        """Make the key *name* of a SubjectPublicKeyInfo: Ed25519, or ECDSA on P-256."""
        if der.startswith(_ED25519_SPKI) and len(der) == len(_ED25519_SPKI) + 32:
            return cls(name, "ed25519", der[len(_ED25519_SPKI) :])
        return cls(name, "ecdsa", der)

    @classmethod
    def read(cls, text: str, name: str) -> Self:
        """Read a log's key as policies hold it: a verifier key, or a public key for *name*.

        A public key is PEM, or the bare base64 of its DER. A verifier key brings its own name.
        """
        if text.count("+") >= 2 and re.search(r"\+[0-9a-f]{8}\+", text):
            return cls.parse(text)
        pem = _PEM.fullmatch(text.strip())
        try:
            return cls.from_der(name, exact_base64("".join((pem[1] if pem else text).split())))
        except ValueError as error:
            raise _no_key(text, None) from error

    @property
    def key_id(self) -> bytes:
        """The four bytes that name the key in signature lines."""
        return self.log_id[:4]

    @property
    def log_id(self) -> bytes:
        """The 32 bytes that ``key_id`` begins: ``logId.keyId`` of Rekor's entries."""
        if self.kind == "ecdsa":
            return hashlib.sha256(self.public).digest()
        prefix = f"{self.name}\n".encode() + bytes([_TYPES[self.kind]])
        return hashlib.sha256(prefix + self.public).digest()

    @property
    def der(self) -> bytes:
        """The key's SubjectPublicKeyInfo."""
        return self.public if self.kind == "ecdsa" else _ED25519_SPKI + self.public

    def __str__(self) -> str:
        encoded = to_base64(bytes([_TYPES[self.kind]]) + self.public)
        return f"{self.name}+{self.key_id.hex()}+{encoded}"

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether *signature* is this key's over exactly *message*."""
        loaded = _load(self)
        try:
            if isinstance(loaded, ed25519.Ed25519PublicKey):
                loaded.verify(signature, message)
            else:
                loaded.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True

    def check(self, note: Note) -> tuple[int, ...]:
        """Raise ``CheckedFalse`` unless this key signed *note*; return the times it gives.

        Times are seconds since 1970, and only cosignatures have one. A signature that bears the
        key's name and id and does not verify condemns the note, even beside one that does.
        """
        found = note.signatures_of(self)
        if not found:
            raise CheckedFalse(f"the note is not signed by {self.name} ({self.key_id.hex()})")
        times = []
        for signature in found:
            time, raw, message = _signed(self, signature, note.text)
            if not self.verifies(raw, message):
                raise CheckedFalse(f"the signature of {self.name} under the note is forged")
            times += [] if time is None else [time]
        return tuple(times)


def cosigned_message(text: str, time: int) -> bytes:
    """Return what a witness signs for a checkpoint's *text* at *time* (``cosignature/v1``)."""
    return f"cosignature/v1\ntime {time}\n{text}".encode()


def _signed(key: NoteKey, signature: NoteSignature, text: str) -> tuple[int | None, bytes, bytes]:
    """Return (time, raw signature, signed message) of a signature said to be the key's."""
    if key.kind != "cosignature":
        return None, signature.body, text.encode()
    if len(signature.body) != 8 + 64:
        raise CheckedFalse(f"the cosignature of {key.name} has not 8 + 64 bytes")
    time: int = struct.unpack(">Q", signature.body[:8])[0]
    if time >= 1 << 63:
        raise CheckedFalse(f"the cosignature of {key.name} gives no time")
    return time, signature.body[8:], cosigned_message(text, time)


def _signature(line: str) -> NoteSignature:
    match = _LINE.fullmatch(line)
    if match is None or "+" in match[1] or any(map(_splits, match[1])):
        raise ValueError(f"{line[:80]!r} is no signature line")
    raw = exact_base64(match[2])
    if len(raw) < 5:
        raise ValueError(f"the signature of {match[1]} is too short")
    return NoteSignature(match[1], raw[:4], raw[4:])


def _splits(character: str) -> bool:
    return character.isspace() or character < " "


@lru_cache(256)
def _load(key: NoteKey) -> ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey:
    if key.kind != "ecdsa":
        return ed25519.Ed25519PublicKey.from_public_bytes(key.public)
    with foreign(f"the key of {key.name} is not a public key", as_=InputError, quoted=False):
        loaded = load_der_public_key(key.public)
    if not isinstance(loaded, ec.EllipticCurvePublicKey) or not isinstance(
        loaded.curve, ec.SECP256R1
    ):
        raise InputError(f"the key of {key.name} is neither Ed25519 nor ECDSA on P-256")
    if loaded.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != key.public:
        raise InputError(f"the key of {key.name} is not spelled as keys are")
    return loaded


def _no_key(text: str, why: str | None) -> InputError:
    return InputError(
        f"{text[:80]!r} is no key of a log or witness{f': {why}' if why else ''}",
        hint="a verifier key is <name>+<8 hex digits>+<base64>; a log's may be a public key too",
    )


_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The log *origin* had the tree *head*; *extensions* are opaque further lines."""

    origin: str
    head: TreeHead
    extensions: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str, label: str) -> Self:
        """Read the text of a note; any but its one spelling is refused."""
        lines = text.split("\n")
        try:
            if len(lines) < 4 or not all(lines[:-1]) or lines[-1]:
                raise ValueError("it needs an origin, a size and a root, a line each")
            if not _SIZE.fullmatch(lines[1]):
                raise ValueError(f"{lines[1]!r} is no size")
            head = TreeHead(int(lines[1]), exact_base64(lines[2]))
        except (ValueError, InputError) as error:
            raise InputError(f"{label} is not a checkpoint: {error}") from error
        return cls(lines[0], head, tuple(lines[3:-1]))

    def __str__(self) -> str:
        lines = (self.origin, str(self.head.size), to_base64(self.head.root), *self.extensions)
        return "".join(f"{line}\n" for line in lines)


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint and the very note it was read from. Nothing is verified by having read it."""

    checkpoint: Checkpoint
    note: Note

    @classmethod
    def parse(cls, data: bytes, label: str) -> Self:
        """Read a signed note that holds a checkpoint."""
        note = Note.parse(data, label)
        return cls(Checkpoint.parse(note.text, label), note)

    @property
    def head(self) -> TreeHead:
        """The tree head."""
        return self.checkpoint.head

    def dump(self) -> bytes:
        """Return the note's bytes."""
        return self.note.dump()


def check_signed(data: bytes, key: NoteKey, origin: str, label: str) -> SignedCheckpoint:
    """Read the checkpoint in *data*; ``CheckedFalse`` unless *key* signed it for *origin*."""
    signed = SignedCheckpoint.parse(data, label)
    if signed.checkpoint.origin != origin:
        raise CheckedFalse(
            f"{label} is a checkpoint of the log {signed.checkpoint.origin}, not of {origin}"
        )
    key.check(signed.note)
    return signed


def sign_note(text: str, key: NoteKey, sign: Callable[[bytes], bytes]) -> Note:
    """Return the note of *text* with the signature that *sign* makes, in the name of *key*."""
    return Note(text, (NoteSignature(key.name, key.key_id, sign(text.encode())),))
