"""What signs: a key in a file, or an identity that Sigstore certifies; a KMS would fit as well.

Key files are PKCS#8 in PEM, with a passphrase or without, beside a public key that cosign reads.
What was signed is entered in the policy's logs by those that write to them.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, Self, get_args

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from nix_seed.core.errors import CouldNotCheck, InputError
from nix_seed.core.events import Stage, tell
from nix_seed.core.files import read_given, write_new
from nix_seed.core.values import dataclass
from nix_seed.formats.intoto.bundle import Bundle, Certificate, PublicKeyHint
from nix_seed.formats.intoto.statement import Envelope, Signature, pae
from nix_seed.formats.tlog.entry import Verifier
from nix_seed.logs.log import AbsentLog, Log
from nix_seed.logs.open import open_log
from nix_seed.logs.rules.entry import LogTrust, evaluate_entry, logged_signature
from nix_seed.trust.rules.policy import Policy
from nix_seed.trust.rules.signer import PublicKey, SignedBy


@dataclass(frozen=True, slots=True)
class Signed:
    """An envelope and what verifies it; *key* made its one signature.

    A signer that logs and stamps by itself gives *tlog_entries* and *timestamps* along.
    """

    envelope: Envelope
    key: PublicKey
    material: PublicKeyHint | Certificate
    tlog_entries: tuple[Mapping[str, Any], ...] = ()
    timestamps: tuple[bytes, ...] = ()

    @property
    def verifier(self) -> Verifier:
        """What a log records as the verifier of the signature."""
        return self.key.verifier(self.material)

    @property
    def bundle(self) -> Bundle:
        """The bundle with the log entries the signer brought."""
        return self.logged(self.tlog_entries)

    def logged(self, entries: tuple[Mapping[str, Any], ...]) -> Bundle:
        """Return a bundle of the same envelope with these log entries, verbatim."""
        return Bundle.of(self.envelope, self.material, entries, self.timestamps)


class Signer(Protocol):
    """Signs payloads, one at a time."""

    @property
    def who(self) -> SignedBy:
        """Who signs, as a policy names them."""
        ...

    @property
    def identity(self) -> str:
        """Who signs, for people: a key's fingerprint, or an identity and its issuer."""
        ...

    def sign(self, payload_type: str, payload: bytes) -> Signed:
        """Sign the PAE of *payload*, whose exact bytes go into the envelope.

        Raises ``InputError`` for what this signer does not sign, ``CouldNotCheck`` where a
        service it needs is out of reach.
        """
        ...


KeyKind = Literal["ecdsa-p256", "ed25519"]
_PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
_LARGEST_FILE = 1 << 16
_SPKI = serialization.PublicFormat.SubjectPublicKeyInfo


class KeySigner:
    """Signs with a private key held in memory; satisfies ``Signer``."""

    def __init__(self, key: _PrivateKey) -> None:
        self._key = key
        der = key.public_key().public_bytes(serialization.Encoding.DER, _SPKI)
        self.public_key = PublicKey.from_der(der, "the signing key")

    @classmethod
    def generate(cls, kind: KeyKind = "ecdsa-p256") -> Self:
        """Make a new key."""
        if kind not in get_args(KeyKind):
            raise InputError(f"{kind!r} is not a kind of key: {' or '.join(get_args(KeyKind))}")
        if kind == "ed25519":
            return cls(ed25519.Ed25519PrivateKey.generate())
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def open(cls, path: Path, passphrase: str | None = None) -> Self:
        """Read a key file; ``InputError`` for a wrong passphrase or another kind of file."""
        return cls.from_pem(read_key_file(path), str(path), passphrase)

    @classmethod
    def from_pem(cls, text: bytes, label: str, passphrase: str | None = None) -> Self:
        """Read PEM; *label* names it in errors."""
        if b"SIGSTORE PRIVATE KEY" in text or b"COSIGN PRIVATE KEY" in text:
            raise InputError(
                f"{label} is in cosign's own format, which only cosign reads",
                hint="make a key that both can use with 'nix-seed key generate', and give it to "
                "cosign with 'cosign import-key-pair --key FILE'",
            )
        secret = passphrase.encode() if passphrase else None
        try:
            key = serialization.load_pem_private_key(text, secret)
        except TypeError as error:
            if secret is not None:
                raise InputError(f"{label} has no passphrase, but one was given") from error
            raise InputError(
                f"{label} has a passphrase",
                hint="put it into the environment variable NIX_SEED_KEY_PASSPHRASE",
            ) from error
        except (ValueError, UnsupportedAlgorithm) as error:
            if secret is not None and b"ENCRYPTED" in text:
                raise InputError(f"the passphrase of {label} is wrong") from error
            raise InputError(
                f"{label} is not a private key in PEM",
                hint="make one with 'nix-seed key generate'",
            ) from error
        other_curve = isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name != "secp256r1"
        if not isinstance(key, _PrivateKey) or other_curve:
            raise InputError(f"{label} is a key of another kind than ECDSA on P-256 and Ed25519")
        return cls(key)

    @property
    def who(self) -> PublicKey:
        """The public key."""
        return self.public_key

    @property
    def identity(self) -> str:
        """``key sha256:…``, the fingerprint."""
        return f"key {self.public_key.fingerprint}"

    def sign_raw(self, data: bytes) -> bytes:
        """Return the signature over *data*: DER of ECDSA over SHA-256, or 64 bytes of Ed25519."""
        if isinstance(self._key, ed25519.Ed25519PrivateKey):
            return self._key.sign(data)
        return self._key.sign(data, ec.ECDSA(hashes.SHA256()))

    def sign(self, payload_type: str, payload: bytes) -> Signed:
        """Sign; needs nothing but the key."""
        signature = Signature(self.sign_raw(pae(payload_type, payload)))
        envelope = Envelope(payload_type, payload, (signature,))
        return Signed(envelope, self.public_key, PublicKeyHint(self.public_key.hint))

    def pem(self, passphrase: str | None = None) -> bytes:
        """Return the file's bytes, encrypted where there is a passphrase."""
        protection: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if passphrase:
            protection = serialization.BestAvailableEncryption(passphrase.encode())
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection
        )


def read_key_file(path: Path) -> bytes:
    """Return the bytes of a key file; ``InputError`` if there is none, or far too large."""
    if not path.exists():
        raise InputError(
            f"there is no key {path}", hint="make one with 'nix-seed key generate FILE'"
        )
    return read_given(path, _LARGEST_FILE)


def write_key_pair(signer: KeySigner, path: Path, passphrase: str | None = None) -> Path:
    """Write the private key to *path* (mode 0600) and the public one beside it; return that path.

    The public key's name ends in ``.pub`` instead of ``.key``. Neither may exist already.
    """
    public = path.with_suffix(".pub") if path.suffix == ".key" else Path(f"{path}.pub")
    for taken in (path, public):
        if os.path.lexists(taken):
            raise InputError(
                f"{taken} exists already, and a key is never overwritten",
                hint="choose another name, or move the old key away",
            )
    write_new(path, signer.pem(passphrase), 0o600)
    write_new(public, signer.public_key.pem, 0o644)
    return public


def open_logs(policy: Policy, beside: Path, *, spare: bool = False) -> Sequence[Log]:
    """Return a writer for every log of *policy*, whose file lies in the directory *beside*.

    ``InputError`` where the policy does not say where a log is, or a log there has another key;
    ``CouldNotCheck`` where a directory holds none. With *spare* that is raised only by what needs
    that log, as it is of a log behind an address.
    """
    found: list[Log] = []
    for log in policy.logs:
        place = log.place(beside)
        if place is None:
            raise InputError(
                f"the policy does not say where the log {log.id} is",
                hint="add its url: https://…, or the directory of an embedded log",
            )
        try:
            found.append(open_log(log, place))
        except CouldNotCheck as error:
            if not spare:
                raise
            found.append(AbsentLog(log, error))
    return tuple(found)


def check_writable_logs(
    logs: Sequence[Log],
    who: SignedBy,
    *,
    needed: int | None = None,
) -> None:
    """Raise what ``log_signed`` would raise of *logs*, before *who* signs anything."""
    to_spare = 0 if needed is None else len(logs) - needed
    for log in logs:
        tell(Stage("log", f"asking the log {log.trusted.id}"))
        try:
            log.check_writable(who.details if isinstance(who, PublicKey) else None)
        except CouldNotCheck:
            to_spare -= 1
            if to_spare < 0:
                raise


def log_signed(
    signed: Signed,
    logs: Sequence[Log],
    *,
    needed: int | None = None,
) -> tuple[Bundle, ...]:
    """Return one bundle for each log, all over the identical envelope; or one without any.

    One entry a bundle: other verifiers (cosign, sigstore) demand exactly one. Logs that are out of
    reach are passed over while *needed* others are left; None: every one must answer. A log that
    the signer wrote to by itself, as keyless ones do, is not written to again.
    """
    bundles = []
    to_spare = 0 if needed is None else len(logs) - needed
    for log in logs:
        if (there := _entry_in(log, signed)) is not None:
            bundles.append(signed.logged((there,)))
            continue
        tell(Stage("log", f"logging to {log.trusted.id}"))
        try:
            entry = log.append(signed.envelope, signed.verifier)
        except CouldNotCheck as error:
            to_spare -= 1
            if to_spare < 0:
                raise
            tell(Stage("log", f"{log.trusted.id} is passed over: {error.message}"))
            continue
        bundles.append(signed.logged((entry,)))
    return tuple(bundles) or (signed.bundle,)


def _entry_in(log: Log, signed: Signed) -> Mapping[str, Any] | None:
    """Return the entry that the signer brought and that is proved to be in *log*, if any."""
    trust = LogTrust((log.trusted,))
    logged = logged_signature(signed.envelope, signed.verifier)
    proved = (entry for entry in signed.tlog_entries if evaluate_entry(entry, logged, trust).proved)
    return next(proved, None)
