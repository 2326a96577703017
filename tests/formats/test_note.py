from __future__ import annotations

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, strategies as st

from nix_seed.core.errors import CheckedFalse, InputError
from nix_seed.formats.tlog.merkle import TreeHead
from nix_seed.formats.tlog.note import (
    Checkpoint,
    Note,
    NoteKey,
    NoteSignature,
    SignedCheckpoint,
    check_signed,
    sign_note,
)
from support.cosigned import cosign_note, signed_also

# The examples of C2SP's signed-note and tlog-checkpoint documents.
VKEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
NOTE = (
    "This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi"
    "2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
).encode()
WITNESSED = (
    "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
    "— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhc"
    "yv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    "— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b"
    "2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
).encode()
SEED = hashlib.sha256(b"a key for tests").digest()
PRIVATE = Ed25519PrivateKey.from_private_bytes(SEED)
KEY = NoteKey("log.test/one", "ed25519", PRIVATE.public_key().public_bytes_raw())
WITNESS = NoteKey("witness.test/w", "cosignature", KEY.public)
HEAD = TreeHead(7, hashlib.sha256(b"root").digest())
TEXT = str(Checkpoint("log.test/one", HEAD))


def signed(text: str = TEXT) -> Note:
    return sign_note(text, KEY, PRIVATE.sign)


def test_the_specifications_note_verifies() -> None:
    key = NoteKey.parse(VKEY)
    assert str(key) == VKEY
    assert key.check(Note.parse(NOTE, "a note")) == ()
    assert Note.parse(NOTE, "a note").dump() == NOTE


def test_the_specifications_checkpoint_is_read() -> None:
    read = SignedCheckpoint.parse(WITNESSED, "an example")
    assert (read.checkpoint.origin, read.head.size) == ("example.com/behind-the-sofa", 20852163)
    assert read.dump() == WITNESSED
    witness = read.note.signatures[1]
    assert (witness.key_id.hex(), len(witness.body)) == ("8d66cf3f", 72)
    # "time 1679315147", as tlog-cosignature writes of the same example.
    assert int.from_bytes(witness.body[:8], "big") == 1679315147


def test_golden_bytes() -> None:
    """docs/formats-log.md gives these: a key, a checkpoint, a cosignature."""
    assert str(KEY) == (
        "log.test/one+" + hashlib.sha256(b"log.test/one\n\x01" + KEY.public).hexdigest()[:8] + "+"
        + base64.b64encode(b"\x01" + KEY.public).decode()
    )  # fmt: skip
    note = cosign_note(signed(), WITNESS, 1_700_000_000, PRIVATE.sign)
    text = note.dump().decode()
    assert text.startswith("log.test/one\n7\n")
    assert KEY.check(note) == ()
    assert WITNESS.check(note) == (1_700_000_000,)
    message = b"cosignature/v1\ntime 1700000000\n" + TEXT.encode()
    PRIVATE.public_key().verify(note.signatures[1].body[8:], message)


def test_ecdsa_keys_are_named_by_their_spki() -> None:
    private = ec.derive_private_key(12345, ec.SECP256R1())
    der = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    key = NoteKey.from_der("rekor.test", der)
    assert key.kind == "ecdsa"
    assert key.key_id == hashlib.sha256(der).digest()[:4]
    assert NoteKey.parse(str(key)) == key
    note = sign_note(TEXT, key, lambda m: private.sign(m, ec.ECDSA(hashes.SHA256())))
    key.check(note)
    pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert NoteKey.read(pem.decode(), "rekor.test") == key
    assert NoteKey.read(base64.b64encode(der).decode(), "rekor.test") == key
    assert NoteKey.read(str(key), "whatever") == key


def test_ed25519_keys_are_read_from_der_and_pem() -> None:
    public = PRIVATE.public_key()
    for encoding in (Encoding.DER, Encoding.PEM):
        raw = public.public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)
        text = raw.decode() if encoding is Encoding.PEM else base64.b64encode(raw).decode()
        assert NoteKey.read(text, KEY.name) == KEY
    assert NoteKey.from_der(KEY.name, KEY.der) == KEY


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a+b+c",
        VKEY[:-1],
        VKEY + "A",
        VKEY.replace("530d903a", "530d903b"),
        VKEY + "\n",
        VKEY.replace("530d903a", "530D903A"),
        VKEY.replace("+AekyeRrm", "+/+kyeRrm"),
        VKEY.replace("example.com", "example .com"),
        "+" + VKEY.split("+", 1)[1],
    ],
)
def test_no_other_key_is_one(text: str) -> None:
    with pytest.raises(InputError, match="is no key of a log or witness"):
        NoteKey.parse(text)


def test_keys_of_other_kinds_are_refused() -> None:
    private = ec.derive_private_key(12345, ec.SECP384R1())
    der = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(InputError, match=r"the key of x is neither Ed25519 nor ECDSA on P-256"):
        NoteKey.from_der("x", der)
    with pytest.raises(InputError, match="cannot name a key"):
        NoteKey("a b", "ed25519", KEY.public)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text\n",
        b"text\n\n",
        NOTE[:-1],
        NOTE + b"\n",
        NOTE + b"x\n",
        NOTE[27:],
        NOTE.replace(b"message", b"mess\x00age"),
        NOTE.replace(b"message", b"mess\rage"),
        NOTE.replace(b"\xe2\x80\x94", b"-"),
        NOTE.replace(b"/foo Uw2", b"/foo  Uw2"),
        NOTE.replace(b"aQM=", b"aQN="),
        NOTE.replace(b"aQM=", b"aQM"),
        NOTE.replace(b"foo Uw", b"f+o Uw"),
        NOTE.replace(b"message", b"\xff"),
        NOTE.replace(b".\n\n", b".\n"),
        b"x" * 70_000 + NOTE,
        b"t\n\n" + "— x AAAA\n".encode(),
        NOTE + NOTE.partition(b"\n\n")[2] * 64,
    ],
)
def test_no_other_note_is_one(data: bytes) -> None:
    with pytest.raises(InputError, match=r"^a note is not a signed note: "):
        Note.parse(data, "a note")


def test_every_flipped_bit_of_a_checkpoint_is_noticed() -> None:
    data = signed().dump()
    for place in range(len(data)):
        for bit in (0, 3, 7):
            bad = bytearray(data)
            bad[place] ^= 1 << bit
            with pytest.raises((CheckedFalse, InputError)):
                check_signed(bytes(bad), KEY, "log.test/one", "a checkpoint")


def test_what_is_wrong_is_said() -> None:
    data = signed().dump()
    other = NoteKey("log.test/other", "ed25519", KEY.public)
    with pytest.raises(
        CheckedFalse, match=r"^the note is not signed by log.test/other \(........\)$"
    ):
        check_signed(data, other, "log.test/one", "x")
    with pytest.raises(
        CheckedFalse, match=r"^x is a checkpoint of the log log.test/one, not of y$"
    ):
        check_signed(data, KEY, "y", "x")
    forged = Note(TEXT, (NoteSignature(KEY.name, KEY.key_id, b"\0" * 64),))
    with pytest.raises(
        CheckedFalse, match=r"^the signature of log.test/one under the note is forg"
    ):
        KEY.check(forged)


def test_a_forged_signature_condemns_a_note_beside_a_true_one() -> None:
    forged = NoteSignature(KEY.name, KEY.key_id, b"\0" * 64)
    for note in (signed_also(signed(), [forged]), Note(TEXT, (forged, *signed().signatures))):
        with pytest.raises(CheckedFalse, match="forged"):
            KEY.check(note)


def test_unknown_signatures_are_passed_over() -> None:
    strange = NoteSignature("stranger", b"abcd", b"whatever it is")
    same_name = NoteSignature(KEY.name, b"abcd", b"of another key")
    note = Note.parse(signed_also(signed(), [strange, same_name]).dump(), "a note")
    assert len(note.signatures) == 3
    assert KEY.check(note) == ()


def test_a_log_signature_is_no_cosignature() -> None:
    """The same key and name: only the type in the key id tells the two apart."""
    witness = NoteKey(KEY.name, "cosignature", KEY.public)
    assert witness.key_id != KEY.key_id
    with pytest.raises(CheckedFalse, match="is not signed by"):
        witness.check(signed())
    copied = NoteSignature(witness.name, witness.key_id, b"\0" * 8 + signed().signatures[0].body)
    with pytest.raises(CheckedFalse, match="forged"):
        witness.check(Note(TEXT, (copied,)))
    with pytest.raises(InputError, match=r"the key log.test/one is not a witness's"):
        cosign_note(signed(), KEY, 1, PRIVATE.sign)


def test_a_cosignature_is_of_its_time() -> None:
    note = cosign_note(signed(), WITNESS, 5, PRIVATE.sign)
    body = note.signatures[1].body
    for bit in range(63):
        time = (5 ^ 1 << bit).to_bytes(8, "big")
        moved = NoteSignature(WITNESS.name, WITNESS.key_id, time + body[8:])
        with pytest.raises(CheckedFalse, match="forged"):
            WITNESS.check(Note(TEXT, (moved,)))
    for bad in (body[:-1], body + b"\0"):
        cut = Note(TEXT, (NoteSignature(WITNESS.name, WITNESS.key_id, bad),))
        with pytest.raises(CheckedFalse, match=r"has not 8 \+ 64 bytes"):
            WITNESS.check(cut)
    late = Note(TEXT, (NoteSignature(WITNESS.name, WITNESS.key_id, b"\xff" * 8 + body[8:]),))
    with pytest.raises(CheckedFalse, match="gives no time"):
        WITNESS.check(late)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a\n",
        "a\n1\n",
        "a\n01\n{r}\n",
        "a\n+1\n{r}\n",
        "a\n-1\n{r}\n",
        "a\n1\n{r}",
        "a\n1\nAA==\n",
        "\n1\n{r}\n",
        "a\n1\n{r}\n\nx\n",
        "a\n1 \n{r}\n",
        "a\n99999999999999999999\n{r}\n",
        "a\n9999999999999999999\n{r}\n",
        "a\n١\n{r}\n",
        "a\n1\n{r} \n",
    ],
)
def test_no_other_checkpoint_is_one(text: str) -> None:
    root = base64.b64encode(HEAD.root).decode()
    with pytest.raises(InputError, match=r"^it is not a checkpoint: "):
        Checkpoint.parse(text.replace("{r}", root), "it")


LINES = st.text(
    st.characters(exclude_characters="\n", min_codepoint=32, exclude_categories=["Cs"]), min_size=1
)


@given(LINES, st.integers(0, (1 << 63) - 1), st.binary(min_size=32, max_size=32), st.lists(LINES))
def test_checkpoints_go_round(origin: str, size: int, root: bytes, more: list[str]) -> None:
    checkpoint = Checkpoint(origin, TreeHead(size, root), tuple(more))
    assert Checkpoint.parse(str(checkpoint), "it") == checkpoint
    note = sign_note(str(checkpoint), KEY, PRIVATE.sign)
    if len(note.dump()) < 60_000:
        assert check_signed(note.dump(), KEY, origin, "it").checkpoint == checkpoint


@pytest.mark.parametrize("origin", ["log.test/on", "log.test/one/more", "Log.test/one", "log"])
def test_a_checkpoint_of_another_origin(origin: str) -> None:
    note = signed().dump()
    assert check_signed(note, KEY, "log.test/one", "it").checkpoint.origin == "log.test/one"
    with pytest.raises(CheckedFalse, match="not of"):
        check_signed(note, KEY, origin, "it")


@pytest.mark.parametrize("character", ["\t", "\r", "\0", "\x1f"])
def test_control_characters_are_refused(character: str) -> None:
    text = f"log.example{character}\n1\n\n— log.example {base64.b64encode(bytes(9)).decode()}\n"
    Note.parse(text.replace(character, "").encode(), "the note")
    with pytest.raises(InputError, match="control characters"):
        Note.parse(text.encode(), "the note")
