"""Notes with a witness's signature, as a witness makes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from nix_seed.core.errors import InputError
from nix_seed.formats.tlog.note import Note, NoteKey, NoteSignature, cosigned_message


def cosign_note(note: Note, key: NoteKey, time: int, sign: Callable[[bytes], bytes]) -> Note:
    """Return *note* with a witness's cosignature; *time* is in seconds since 1970."""
    if key.kind != "cosignature":
        raise InputError(f"the key {key.name} is not a witness's")
    body = time.to_bytes(8, "big") + sign(cosigned_message(note.text, time))
    return signed_also(note, [NoteSignature(key.name, key.key_id, body)])


def signed_also(note: Note, more: Iterable[NoteSignature]) -> Note:
    """Return *note* with *more* signatures after its own."""
    return Note(note.text, (*note.signatures, *more))
