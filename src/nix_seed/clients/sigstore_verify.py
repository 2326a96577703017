"""Judge certificates and their log entries with Sigstore's own verifier, offline.

Imported only where a bundle has a certificate: the library takes a while to load, and is an extra.
It needs no clock: a bundle's own proofs say when it was signed.
"""

# ruff: noqa: PLC0415  (sigstore is an optional extra, and slow to import)

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from nix_seed.formats.intoto.bundle import Bundle, Certificate
from nix_seed.formats.intoto.envelope import Envelope
from nix_seed.ground.errors import CouldNotCheck, InputError
from nix_seed.rules.bundle_verify import Reason, Refused
from nix_seed.rules.sigstore_log import check_log

if TYPE_CHECKING:
    from sigstore.verify import Verifier

__all__ = ["SameCertificate", "SigstoreCheck", "load_verifier", "needs_sigstore"]

_PROMISE = re.compile(r"\bSCT\b")  # a signed certificate timestamp is no question of time
_TIME = re.compile(r"time|timestamp|expired", re.IGNORECASE)
_LOG = re.compile(r"log entry|inclusion|checkpoint|SET|hashedrekord|DSSE log", re.IGNORECASE)


def needs_sigstore(doing: str) -> CouldNotCheck:
    """Return the error for a missing library."""
    return CouldNotCheck(
        f"{doing} needs the library sigstore, which is not installed",
        hint="install it with: pip install 'nix-seed[sigstore]'",
    )


class SigstoreCheck:
    """Checks chain, signed certificate timestamp, log entry and time; satisfies ``BundleCheck``.

    *trusted_root* is the JSON of a Sigstore ``TrustedRoot``, None the public instance's as the
    library last fetched it or came with it. Whose certificate it is, is not judged here.
    """

    def __init__(self, trusted_root: bytes | None, what: str = "the trusted root") -> None:
        self._root = trusted_root
        self._what = what
        self._verifier: Verifier | None = None

    def check(self, bundle: Bundle) -> None:
        """Verify; raises ``Refused`` with Sigstore's own words."""
        from sigstore.errors import CertValidationError, Error
        from sigstore.models import Bundle as SigstoreBundle

        verifier = self._loaded()
        try:
            # What was parsed here is what is verified there: one reading of the bytes, not two.
            theirs = SigstoreBundle.from_json(bundle.dump())
            kind, payload = verifier.verify_dsse(theirs, SameCertificate(bundle))
        except Error as error:
            judged = isinstance(error, CertValidationError)
            reason = Reason.CERTIFICATE if judged else _reason(str(error))
            raise Refused(reason, f"Sigstore's verifier says: {error}") from error
        except (ValueError, x509.InvalidVersion) as error:
            # What its parsers raise for bytes that are none of what they should be.
            raise Refused(Reason.MALFORMED, f"Sigstore's verifier cannot read: {error}") from error
        ours = bundle.content
        if not isinstance(ours, Envelope) or (kind, payload) != (ours.payload_type, ours.payload):
            raise Refused(Reason.SIGNATURE, "Sigstore's verifier read another payload")
        for entry in bundle.tlog_entries:
            check_log(entry, _log_keys(verifier))

    def _loaded(self) -> Verifier:
        if self._verifier is None:
            self._verifier = load_verifier(self._root, self._what)
        return self._verifier


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


def load_verifier(trusted_root: bytes | None, what: str) -> Verifier:
    """Return Sigstore's verifier for a trusted root; None is the public instance's.

    Raises ``CouldNotCheck`` if the library is missing, ``InputError`` for another JSON.
    """
    try:
        from sigstore.models import TrustedRoot
        from sigstore.verify import Verifier
        from sigstore_models.trustroot.v1 import TrustedRoot as Model
    except ImportError as error:
        raise needs_sigstore("judging a keyless signature") from error
    logging.getLogger("sigstore").addHandler(logging.NullHandler())  # its warnings go nowhere
    try:
        if trusted_root is None:
            return Verifier.production(offline=True)
        return Verifier(trusted_root=TrustedRoot(Model.from_json(trusted_root)))
    except Exception as error:
        # Whatever is wrong with the file, it is the user's, and nothing is trusted by it.
        raise InputError(
            f"{what} is not a Sigstore trusted root",
            hint="'cosign trusted-root create' makes one; that of the public instance is in its "
            "TUF repository",
            detail=str(error),
        ) from error


def _log_keys(verifier: Verifier) -> tuple[bytes, ...]:
    """Return the SubjectPublicKeyInfo of each log of the trusted root."""
    logs = verifier._trusted_root._inner.tlogs
    return tuple(log.public_key.raw_bytes for log in logs if log.public_key.raw_bytes)


def _reason(words: str) -> Reason:
    """Guess from the words which part failed; they stand in the verdict themselves as well."""
    if _PROMISE.search(words):
        return Reason.CERTIFICATE
    if _LOG.search(words):
        return Reason.LOG
    return Reason.TIME if _TIME.search(words) else Reason.CERTIFICATE
