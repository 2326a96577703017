"""Sign and judge with Sigstore's own library, which takes a while to load.

It is imported only where a bundle has a certificate, or none but an identity is there to sign with.
Judging is offline and needs no clock: a bundle says itself when it was signed. Signing takes an
OIDC token from the CI service the program runs in; nothing secret outlives the signature.
"""

from __future__ import annotations

import base64
import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError, NixSeedError
from nix_seed.core.values import dataclass
from nix_seed.formats.intoto.bundle import Bundle, Certificate
from nix_seed.formats.intoto.statement import PAYLOAD_TYPE
from nix_seed.formats.tlog.entry import LogEntry, parse_body
from nix_seed.trust.rules import signer as signers
from nix_seed.trust.rules.bundle import Ground, Refused, check_log
from nix_seed.trust.sign import Signed

if TYPE_CHECKING:
    from sigstore.models import ClientTrustConfig
    from sigstore.oidc import IdentityToken
    from sigstore.verify import Verifier

_REKOR = "https://rekor.sigstore.dev"


@dataclass(frozen=True, slots=True)
class PublicRoot:
    """*text* is the JSON of a ``TrustedRoot``, *rekor_key* the base64 of its Rekor v1's key."""

    text: str
    rekor_key: str | None

    @classmethod
    def of(cls, value: dict[str, Any], text: str) -> Self:
        """Return the root whose JSON, *text*, holds *value*."""
        keys = {each["baseUrl"]: each["publicKey"]["rawBytes"] for each in value["tlogs"]}
        return cls(text, keys.get(_REKOR))


def public_root() -> PublicRoot:
    """Return the root without asking the network."""
    from sigstore.models import ClientTrustConfig

    logging.getLogger("sigstore").addHandler(logging.NullHandler())  # its warnings go nowhere
    value = json.loads(ClientTrustConfig.production(offline=True).trusted_root._inner.to_json())
    return PublicRoot.of(value, json.dumps(value, indent=2) + "\n")


_PROMISE = re.compile(r"\bSCT\b")  # a signed certificate timestamp is no question of time
_TIME = re.compile(r"time|timestamp|expired", re.IGNORECASE)
_LOG = re.compile(r"log entry|inclusion|checkpoint|SET|hashedrekord|DSSE log", re.IGNORECASE)


class SigstoreCheck:
    """Checks chain, signed certificate timestamp, log entry and time; satisfies ``BundleCheck``.

    *trusted_root* is the JSON of a Sigstore ``TrustedRoot``, None the public instance's as the
    library last fetched it or came with it. Whose certificate it is, is not judged here.
    """

    def __init__(self, trusted_root: bytes | None, label: str = "the trusted root") -> None:
        self._root = trusted_root
        self._label = label
        self._verifier: Verifier | None = None

    def check(self, bundle: Bundle) -> None:
        """Verify; raises ``Refused`` with Sigstore's own words."""
        from sigstore.errors import CertValidationError, Error
        from sigstore.models import Bundle as SigstoreBundle

        if self._verifier is None:
            self._verifier = load_verifier(self._root, self._label)
        verifier = self._verifier
        try:
            # What was parsed here is what is verified there: one reading of the bytes, not two.
            theirs = SigstoreBundle.from_json(bundle.dump())
            kind, payload = verifier.verify_dsse(theirs, SameCertificate(bundle))
        except Error as error:
            judged = isinstance(error, CertValidationError)
            ground = Ground.CERTIFICATE if judged else _reason(str(error))
            raise Refused(ground, f"Sigstore's verifier says: {error}") from error
        except MemoryError:
            raise
        except Exception as error:
            raise _failed(error, bundle, verifier) from error
        ours = bundle.dsse_envelope
        if ours is None or (kind, payload) != (ours.payload_type, ours.payload):
            raise Refused(Ground.SIGNATURE, "Sigstore's verifier read another payload")
        for entry in bundle.tlog_entries:
            check_log(entry, _log_keys(verifier))


class SameCertificate:
    """A policy of Sigstore's verifier: the certificate it judges is the one that was read here.

    The identity in that one was compared, exactly, before.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._material = bundle.material

    def verify(self, cert: x509.Certificate) -> None:
        """Raise Sigstore's error for another certificate."""
        from sigstore.errors import VerificationError

        der = cert.public_bytes(Encoding.DER)
        if not isinstance(self._material, Certificate) or self._material.der != der:
            raise VerificationError("another certificate than the bundle's own was read")


def load_verifier(trusted_root: bytes | None, label: str) -> Verifier:
    """Return Sigstore's verifier for a trusted root; None is the public instance's.

    Raises ``InputError`` for another JSON.
    """
    from sigstore.models import TrustedRoot
    from sigstore.verify import Verifier
    from sigstore_models.trustroot.v1 import TrustedRoot as Model

    logging.getLogger("sigstore").addHandler(logging.NullHandler())  # its warnings go nowhere
    try:
        if trusted_root is None:
            return Verifier.production(offline=True)
        return Verifier(trusted_root=TrustedRoot(Model.from_json(trusted_root)))
    except Exception as error:
        # Whatever is wrong with the file, it is the user's, and nothing is trusted by it.
        raise InputError(
            f"{label} is not a Sigstore trusted root",
            hint="'cosign trusted-root create' makes one; that of the public instance is in its "
            "TUF repository",
            detail=str(error),
        ) from error


def _log_keys(verifier: Verifier) -> tuple[bytes, ...]:
    """Return the SubjectPublicKeyInfo of each log of the trusted root."""
    logs = verifier._trusted_root._inner.tlogs
    return tuple(log.public_key.raw_bytes for log in logs if log.public_key.raw_bytes)


def _failed(error: Exception, bundle: Bundle, verifier: Verifier) -> Refused:
    """Return what a fault inside the library means, which raises one class a way to be malformed.

    What no trusted authority certified is a stranger's, and an entry or a timestamp that cannot be
    read proves nothing: neither may leave the verdict on all others open. Anything else of a
    certified signer could be a vote: it is not known then, which is never "no".
    """
    reason = f"{type(error).__name__}: {error}"
    if isinstance(error, OSError | ImportError):
        return Refused(Ground.INTERNAL, f"Sigstore's verifier failed on it: {reason}")
    if not _is_certified(bundle, verifier):
        return Refused(Ground.MALFORMED, f"Sigstore's verifier cannot read it: {reason}")
    try:
        for entry in bundle.tlog_entries:
            parse_body(LogEntry.from_json(entry, "it").body, "it")
            check_log(entry, _log_keys(verifier))
        for stamp in bundle.timestamps:
            _check_readable(stamp)
    except Refused as refused:
        return refused
    except InputError as malformed:
        return Refused(Ground.MALFORMED, f"its log entry is malformed: {malformed.message}")
    return Refused(Ground.INTERNAL, f"Sigstore's verifier failed on it: {reason}")


def _check_readable(stamp: bytes) -> None:
    """Raise ``Refused`` for what is no timestamp of RFC 3161."""
    from rfc3161_client import decode_timestamp_response

    try:
        read = decode_timestamp_response(stamp)
        imprint = read.tst_info.message_imprint
        str((read.tst_info.gen_time, imprint.hash_algorithm, imprint.message))
        for certificate in read.signed_data.certificates:
            x509.load_der_x509_certificate(certificate)
    except Exception as error:  # its parts are parsed as they are asked for
        raise Refused(Ground.TIME, f"its timestamp cannot be read: {error}") from error


def _is_certified(bundle: Bundle, verifier: Verifier) -> bool:
    """Whether an authority of the trusted root, or one below it, signed the certificate."""
    if not isinstance(bundle.material, Certificate):
        return False
    try:
        leaf = x509.load_der_x509_certificate(bundle.material.der)
    except ValueError:
        return False
    for authority in verifier._trusted_root.get_fulcio_certs():
        with suppress(Exception):  # of any kind: all mean that it did not
            leaf.verify_directly_issued_by(authority)
            return True
    return False


def _reason(reason: str) -> Ground:
    """Guess from the words which part failed; they stand in the verdict themselves as well."""
    if _PROMISE.search(reason):
        return Ground.CERTIFICATE
    if _LOG.search(reason):
        return Ground.LOG
    return Ground.TIME if _TIME.search(reason) else Ground.CERTIFICATE


def ambient_token() -> str | None:
    """Return the OIDC token that the CI service offers, None outside of one."""
    from sigstore.oidc import IdentityError, detect_credential

    try:
        return detect_credential()
    except IdentityError as error:
        raise CouldNotCheck(
            f"the CI service gave no identity token: {error}",
            hint="on GitHub the job needs 'permissions: id-token: write'; "
            "on GitLab an id_tokens entry SIGSTORE_ID_TOKEN with 'aud: sigstore'",
        ) from error


class KeylessSigner:
    """Signs in-toto statements by Sigstore; satisfies ``Signer``.

    *config* is the JSON of a ``ClientTrustConfig`` (trusted root and signing configuration) for a
    private instance; None is the public one, whose configuration is fetched by TUF.
    """

    def __init__(
        self, config: bytes | None = None, token: Callable[[], str | None] = ambient_token
    ) -> None:
        self._config = config
        self._token = token
        self._identity: IdentityToken | None = None

    @property
    def who(self) -> signers.CertificateIdentity:
        """Whom the token stands for; the certificate decides in the end."""
        token = self._identity_token()
        claims = str(token).split(".")[1]
        loaded = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
        return signers.certified_identity(loaded, token.federated_issuer)

    @property
    def identity(self) -> str:
        """The subject, the issuer and, where it is a job's, the repository."""
        return str(self.who)

    def sign(self, payload_type: str, payload: bytes) -> Signed:
        """Sign; every server asked is named by the configuration."""
        if payload_type != PAYLOAD_TYPE:
            raise InputError(f"keyless signatures are made of {PAYLOAD_TYPE}, not {payload_type}")
        token = self._identity_token()
        with _explained("signing keyless"):
            from sigstore.dsse import Statement
            from sigstore.sign import SigningContext

            context = SigningContext.from_trust_config(self._trust_config())
            with context.signer(token) as signer:
                text = signer.sign_dsse(Statement(payload)).to_json().encode()
        bundle = Bundle.parse(text, "the bundle just signed")
        envelope, material = bundle.dsse_envelope, bundle.material
        if envelope is None or not isinstance(material, Certificate):
            raise CheckedFalse("Sigstore's library made a bundle without envelope or certificate")
        if envelope.payload != payload or envelope.payload_type != PAYLOAD_TYPE:
            raise CheckedFalse("Sigstore's library signed other bytes than it was given")
        signers.read_identity(material.der, "the certificate just issued")
        key = signers.PublicKey.of_certificate(material.der, "the certificate just issued")
        if not key.verifies(envelope.signatures[0].sig, envelope.pae):
            raise CheckedFalse("the signature just made is not that of its certificate")
        return Signed(envelope, key, material, bundle.tlog_entries, bundle.timestamps)

    def _identity_token(self) -> IdentityToken:
        if self._identity is None or not self._identity.in_validity_period():
            raw = self._token()
            if raw is None:
                raise InputError(
                    "no identity to sign with was found here",
                    hint="run in a CI job that may ask for an identity token, or sign with a key: "
                    "--key FILE",
                )
            with _explained("reading the identity token", _CLOCK):
                from sigstore.oidc import IdentityToken

                self._identity = IdentityToken(raw)
        return self._identity

    def _trust_config(self) -> ClientTrustConfig:
        from sigstore.models import ClientTrustConfig

        if self._config is None:
            return ClientTrustConfig.production()
        try:
            return ClientTrustConfig.from_json(self._config.decode())
        except ValueError as error:
            raise InputError(
                "the Sigstore configuration is not a ClientTrustConfig", detail=str(error)
            ) from error


_REACH = "is the Sigstore instance in reach? With a key (--key FILE) none is needed"
_CLOCK = "is this machine's clock right? A token lasts for minutes; nix-seed doctor compares clocks"


@contextmanager
def _explained(doing: str, hint: str = _REACH) -> Iterator[None]:
    """Map whatever the library and its HTTP client raise."""
    try:
        yield
    except NixSeedError:
        raise
    except Exception as error:
        # What a server answered, which the library's own errors drop, else the error's words.
        response = getattr(error.__cause__, "response", None)
        said = "" if response is None else str(response.text)[:500].strip()
        words = ": ".join(filter(None, (str(error), str(error.__cause__ or ""))))
        raise CouldNotCheck(
            f"{doing} failed: {type(error).__name__}", hint=hint, detail=said or words or None
        ) from error
