"""Checkpoints (C2SP tlog-checkpoint): a tree head, signed by its log and by witnesses."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from nix_seed.formats.tlog.merkle import TreeHead
from nix_seed.formats.tlog.note import (
    Note,
    NoteKey,
    NoteSignature,
    cosigned_message,
    decode_base64,
    encode_base64,
)
from nix_seed.ground.errors import CheckedFalse, InputError

__all__ = ["Checkpoint", "SignedCheckpoint", "check_signed", "cosign_note", "sign_note"]

_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The log *origin* had the tree *head*; *extensions* are opaque further lines."""

    origin: str
    head: TreeHead
    extensions: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str, what: str) -> Self:
        """Read the text of a note; any but its one spelling is refused."""
        lines = text.split("\n")
        try:
            if len(lines) < 4 or not all(lines[:-1]) or lines[-1]:
                raise ValueError("it needs an origin, a size and a root, a line each")
            if not _SIZE.fullmatch(lines[1]):
                raise ValueError(f"{lines[1]!r} is no size")
            head = TreeHead(int(lines[1]), decode_base64(lines[2]))
        except (ValueError, InputError) as error:
            raise InputError(f"{what} is not a checkpoint: {error}") from error
        return cls(lines[0], head, tuple(lines[3:-1]))

    def __str__(self) -> str:
        lines = (self.origin, str(self.head.size), encode_base64(self.head.root), *self.extensions)
        return "".join(f"{line}\n" for line in lines)


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint and the very note it was read from. Nothing is verified by having read it."""

    checkpoint: Checkpoint
    note: Note

    @classmethod
    def parse(cls, data: bytes, what: str) -> Self:
        """Read a signed note that holds a checkpoint."""
        note = Note.parse(data, what)
        return cls(Checkpoint.parse(note.text, what), note)

    @property
    def head(self) -> TreeHead:
        """The tree head."""
        return self.checkpoint.head

    def dump(self) -> bytes:
        """Return the note's bytes."""
        return self.note.dump()


def check_signed(data: bytes, key: NoteKey, origin: str, what: str) -> SignedCheckpoint:
    """Read the checkpoint in *data*; ``CheckedFalse`` unless *key* signed it for *origin*."""
    signed = SignedCheckpoint.parse(data, what)
    if signed.checkpoint.origin != origin:
        raise CheckedFalse(
            f"{what} is a checkpoint of the log {signed.checkpoint.origin}, not of {origin}"
        )
    key.check(signed.note)
    return signed


def sign_note(text: str, key: NoteKey, sign: Callable[[bytes], bytes]) -> Note:
    """Return the note of *text* with the signature that *sign* makes, in the name of *key*."""
    return Note(text, (NoteSignature(key.name, key.key_id, sign(text.encode())),))


def cosign_note(note: Note, key: NoteKey, time: int, sign: Callable[[bytes], bytes]) -> Note:
    """Return *note* with a witness's cosignature; *time* is in seconds since 1970."""
    if key.kind != "cosignature":
        raise InputError(f"the key {key.name} is not a witness's")
    body = time.to_bytes(8, "big") + sign(cosigned_message(note.text, time))
    return note.signed_also([NoteSignature(key.name, key.key_id, body)])
