"""Judge certificates and their log entries with Sigstore's own verifier, offline.

Imported only where a bundle has a certificate: the library takes a while to load, and is an extra.
It needs no clock: a bundle's own proofs say when it was signed.
"""

# ruff: noqa: PLC0415  (sigstore is an optional extra, and slow to import)

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from nix_seed.formats.intoto.bundle import Bundle
from nix_seed.formats.intoto.envelope import Envelope
from nix_seed.ground.errors import CouldNotCheck, InputError
from nix_seed.rules.bundle_verify import Reason, Refused

if TYPE_CHECKING:
    from sigstore.verify import Verifier

__all__ = ["SigstoreCheck", "load_verifier", "needs_sigstore"]

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

    *trusted_root* is the JSON of a Sigstore ``TrustedRoot``; whose certificate it is, is not
    judged here.
    """

    def __init__(self, trusted_root: bytes, what: str) -> None:
        self._root = trusted_root
        self._what = what
        self._verifier: Verifier | None = None

    def check(self, bundle: Bundle) -> None:
        """Verify; raises ``Refused`` with Sigstore's own words."""
        from sigstore.errors import Error
        from sigstore.models import Bundle as SigstoreBundle
        from sigstore.verify.policy import UnsafeNoOp

        verifier = self._loaded()
        try:
            # What was parsed here is what is verified there: one reading of the bytes, not two.
            # The policy is no-op because the identity was compared, exactly, before this.
            theirs = SigstoreBundle.from_json(bundle.dump())
            kind, payload = verifier.verify_dsse(theirs, UnsafeNoOp())
        except Error as error:
            raise Refused(_reason(str(error)), f"Sigstore's verifier says: {error}") from error
        ours = bundle.content
        if not isinstance(ours, Envelope) or (kind, payload) != (ours.payload_type, ours.payload):
            raise Refused(Reason.SIGNATURE, "Sigstore's verifier read another payload")

    def _loaded(self) -> Verifier:
        if self._verifier is None:
            self._verifier = load_verifier(self._root, self._what)
        return self._verifier


def load_verifier(trusted_root: bytes, what: str) -> Verifier:
    """Return Sigstore's verifier for a trusted root.

    Raises ``CouldNotCheck`` if the library is missing, ``InputError`` for another JSON.
    """
    try:
        from sigstore.models import TrustedRoot
        from sigstore.verify import Verifier
        from sigstore_models.trustroot.v1 import TrustedRoot as Model
    except ImportError as error:
        raise needs_sigstore("judging a keyless signature") from error
    try:
        return Verifier(trusted_root=TrustedRoot(Model.from_json(trusted_root)))
    except Exception as error:
        # Whatever is wrong with the file, it is the user's, and nothing is trusted by it.
        raise InputError(
            f"{what} is not a Sigstore trusted root",
            hint="'cosign trusted-root create' makes one; that of the public instance is in its "
            "TUF repository",
            detail=str(error),
        ) from error


def _reason(words: str) -> Reason:
    """Guess from the words which part failed; they stand in the verdict themselves as well."""
    if _LOG.search(words):
        return Reason.LOG
    return Reason.TIME if _TIME.search(words) else Reason.CERTIFICATE
