"""The vectors in docs/formats-log.md are what the code makes."""

from __future__ import annotations

import hashlib
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from nix_seed.formats.tlog.entry import HashedRekord, Verifier
from nix_seed.formats.tlog.merkle import TreeHead, build_root, leaf_hash, read_from_leaves
from nix_seed.formats.tlog.note import Checkpoint, NoteKey, sign_note
from support.cosigned import cosign_note

DOCS = (Path(__file__).parents[2] / "docs/formats-log.md").read_text()


def indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())


def test_root() -> None:
    read = read_from_leaves([leaf_hash(b"%d" % i) for i in range(7)])
    assert indented(build_root(7, read).root.hex()) in DOCS


def test_entry() -> None:
    body = HashedRekord(b"p" * 32, b"signature", Verifier(b"key")).dump()
    assert indented(body.decode()) in DOCS
    assert f"`{leaf_hash(body).hex()}`" in DOCS


def test_checkpoint() -> None:
    private = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"a key for tests").digest())
    public = private.public_key().public_bytes_raw()
    log = NoteKey("log.test/one", "ed25519", public)
    witness = NoteKey("witness.test/w", "cosignature", public)
    assert indented(f"{log}\n{witness}") in DOCS
    head = TreeHead(7, hashlib.sha256(b"root").digest())
    note = sign_note(str(Checkpoint("log.test/one", head)), log, private.sign)
    note = cosign_note(note, witness, 1_700_000_000, private.sign)
    assert indented(note.dump().decode()) in DOCS
