"""Key files and the command that makes them."""

from __future__ import annotations

import json
import stat
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from nix_seed.cli.main import cli
from nix_seed.core.errors import InputError
from nix_seed.formats.intoto.statement import PAYLOAD_TYPE, pae
from nix_seed.formats.tlog.note import NoteKey
from nix_seed.trust.rules.signer import PublicKey, check_no_root, read_identity
from nix_seed.trust.sign import KeyKind, KeySigner, Signer, write_key_pair
from support.certificates import malformed_certificates
from support.registries import needs

KINDS: list[KeyKind] = ["ecdsa-p256", "ed25519"]
SPKI = serialization.PublicFormat.SubjectPublicKeyInfo


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("passphrase", [None, "correct horse"])
def test_a_key_file_is_read_again(tmp_path: Path, kind: KeyKind, passphrase: str | None) -> None:
    made = KeySigner.generate(kind)
    public = write_key_pair(made, tmp_path / "a.key", passphrase)
    again = KeySigner.open(tmp_path / "a.key", passphrase)
    assert again.public_key == made.public_key == PublicKey.from_pem(public.read_bytes(), "it")
    assert made.public_key.algorithm == kind
    assert stat.S_IMODE((tmp_path / "a.key").stat().st_mode) == 0o600
    assert (b"ENCRYPTED" in (tmp_path / "a.key").read_bytes()) is (passphrase is not None)


@pytest.mark.parametrize("kind", KINDS)
def test_a_signature_is_openssls(tmp_path: Path, kind: KeyKind) -> None:
    program = needs("openssl", "openssl")
    signer: Signer = KeySigner.generate(kind)
    signed = signer.sign(PAYLOAD_TYPE, b"payload")
    assert signed.envelope.payload == b"payload"
    (tmp_path / "key.pub").write_bytes(signed.key.pem)
    (tmp_path / "sig").write_bytes(signed.envelope.signatures[0].sig)
    (tmp_path / "pae").write_bytes(pae(PAYLOAD_TYPE, b"payload"))
    command = [program, "pkeyutl", "-verify", "-pubin", "-inkey", "key.pub", "-sigfile", "sig"]
    hashed = ["-digest", "sha256"] if kind == "ecdsa-p256" else []
    done = subprocess.run(
        [*command, "-rawin", "-in", "pae", *hashed], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_another_key_and_other_bytes_do_not_verify() -> None:
    signer = KeySigner.generate()
    signature = signer.sign_raw(b"data")
    assert signer.public_key.verifies(signature, b"data")
    assert not signer.public_key.verifies(signature, b"other")
    assert not signer.public_key.verifies(b"", b"data")
    assert not KeySigner.generate().public_key.verifies(signature, b"data")


def test_p384_is_verified_with_its_own_hash() -> None:
    from cryptography.hazmat.primitives import hashes

    private = ec.generate_private_key(ec.SECP384R1())
    key = PublicKey.from_pem(
        private.public_key().public_bytes(serialization.Encoding.PEM, SPKI), "it"
    )
    assert key.algorithm == "ecdsa-p384"
    assert key.verifies(private.sign(b"data", ec.ECDSA(hashes.SHA384())), b"data")
    assert not key.verifies(private.sign(b"data", ec.ECDSA(hashes.SHA256())), b"data")


def test_one_key_has_one_spelling() -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    point = private.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
    )
    # SubjectPublicKeyInfo of the same point, compressed.
    head = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200")
    usual = private.public_key().public_bytes(serialization.Encoding.DER, SPKI)
    assert PublicKey.from_der(head + point, "a") == PublicKey.from_der(usual, "b")


OTHERS: dict[str, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey] = {
    "rsa": rsa.generate_private_key(65537, 2048),
    "p521": ec.generate_private_key(ec.SECP521R1()),
    "p384": ec.generate_private_key(ec.SECP384R1()),
}


@pytest.mark.parametrize("kind", ["rsa", "p521"])
def test_other_kinds_of_public_keys_are_refused(kind: str) -> None:
    text = OTHERS[kind].public_key().public_bytes(serialization.Encoding.PEM, SPKI)
    with pytest.raises(InputError, match="it is a key of another kind; ECDSA on P-256 or P-384"):
        PublicKey.from_pem(text, "it")


@pytest.mark.parametrize("private", OTHERS.values(), ids=OTHERS)
def test_other_kinds_of_private_keys_are_refused(
    private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey,
) -> None:
    pem = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with pytest.raises(InputError, match="it is a key of another kind than ECDSA on P-256"):
        KeySigner.from_pem(pem, "it")


def test_passphrases_are_told_apart() -> None:
    signer = KeySigner.generate()
    with pytest.raises(InputError, match=r"^it has a passphrase$") as caught:
        KeySigner.from_pem(signer.pem("a"), "it")
    assert "NIX_SEED_KEY_PASSPHRASE" in (caught.value.hint or "")
    with pytest.raises(InputError, match=r"^the passphrase of it is wrong$"):
        KeySigner.from_pem(signer.pem("a"), "it", "b")
    with pytest.raises(InputError, match=r"^it has no passphrase, but one was given$"):
        KeySigner.from_pem(signer.pem(), "it", "b")


def test_cosigns_own_format_is_named() -> None:
    text = b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nAAAA\n"
    with pytest.raises(InputError, match="it is in cosign's own format") as caught:
        KeySigner.from_pem(text, "it")
    assert "cosign import-key-pair" in (caught.value.hint or "")


@pytest.mark.parametrize("taken", ["a.key", "a.pub"])
def test_no_key_is_overwritten(tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).write_text("precious")
    with pytest.raises(InputError, match=f"{taken} exists already, and a key is never overwritten"):
        write_key_pair(KeySigner.generate(), tmp_path / "a.key")
    assert (tmp_path / taken).read_text() == "precious"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_dangling_symlink_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "a.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="exists already"):
        write_key_pair(KeySigner.generate(), tmp_path / "a.key")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NIX_SEED_KEY_PASSPHRASE", "secret")
    runner = CliRunner()
    made = runner.invoke(cli, ["key", "generate", "b.key", "--algorithm", kind, "--json"])
    assert made.exit_code == 0, made.output
    said = json.loads(made.stdout)
    assert said["encrypted"] is True
    for name in ("b.key", "b.pub"):
        shown = runner.invoke(cli, ["key", "show", name, "--json"])
        assert json.loads(shown.stdout)["fingerprint"] == said["fingerprint"]
        assert json.loads(shown.stdout)["pem"] == Path("b.pub").read_text()
    plain = runner.invoke(cli, ["key", "show", "b.key"])
    assert plain.stdout == Path("b.pub").read_text()


def test_the_command_says_when_a_key_is_not_encrypted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NIX_SEED_KEY_PASSPHRASE", raising=False)
    made = CliRunner().invoke(cli, ["key", "generate"])
    assert "private key: nix-seed.key (not encrypted)\npublic key:  nix-seed.pub\n" in made.stdout


def test_an_absent_key(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"there is no key {tmp_path}/none"):
        KeySigner.open(tmp_path / "none")


LOW = "ff" * 30 + "7f"
SMALL = ["00" * 32, "01" + "00" * 31, "01" + "00" * 30 + "80", "ec" + LOW, "ee" + LOW]


@pytest.mark.parametrize("public", SMALL)
def test_a_key_of_small_order_is_no_key(public: str) -> None:
    raw = bytes.fromhex(public)
    der = bytes.fromhex("302a300506032b6570032100") + raw
    with pytest.raises(InputError, match="small order"):
        PublicKey.from_der(der, "it")
    for kind in ("ed25519", "cosignature"):
        with pytest.raises(InputError, match="small order"):
            NoteKey("log.example", kind, raw)


@pytest.mark.parametrize("name", malformed_certificates())
def test_a_malformed_certificate_is_wrong_input(name: str) -> None:
    der = malformed_certificates()[name]
    with pytest.raises(InputError):
        read_identity(der, "it")
    with suppress(InputError):  # the key of some can be read
        PublicKey.of_certificate(der, "it")
    with suppress(InputError):
        check_no_root([der], "it")
