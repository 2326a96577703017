"""Sign with an identity: an OIDC token, certified by Fulcio, logged, and stamped where it can be.

The token comes from the CI service the program runs in; the library knows GitHub's, GitLab's and
others. Nothing secret outlives the signature.
"""

# ruff: noqa: PLC0415  (sigstore is an optional extra, and slow to import)

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nix_seed.clients.signers.base import Signed
from nix_seed.clients.sigstore_verify import needs_sigstore
from nix_seed.formats.intoto.bundle import Bundle, Certificate
from nix_seed.formats.intoto.envelope import PAYLOAD_TYPE, Envelope
from nix_seed.ground.errors import CheckedFalse, CouldNotCheck, InputError, NixSeedError
from nix_seed.rules.certificate import CertificateIdentity, certified_identity, read_identity
from nix_seed.rules.verifying_key import PublicKey

if TYPE_CHECKING:
    from sigstore.models import ClientTrustConfig
    from sigstore.oidc import IdentityToken

__all__ = ["KeylessSigner", "ambient_token"]


def ambient_token() -> str | None:
    """Return the OIDC token that the CI service offers, None outside of one."""
    try:
        from sigstore.oidc import IdentityError, detect_credential
    except ImportError as error:
        raise needs_sigstore("signing keyless") from error
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
    def who(self) -> CertificateIdentity:
        """Whom the token stands for; the certificate decides in the end."""
        token = self._identity_token()
        claims = str(token).split(".")[1]
        loaded = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
        return certified_identity(loaded, token.federated_issuer)

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
        return _signed(Bundle.parse(text, "the bundle just signed"), payload)

    def _identity_token(self) -> IdentityToken:
        if self._identity is None or not self._identity.in_validity_period():
            raw = self._token()
            if raw is None:
                raise InputError(
                    "no identity to sign with was found here",
                    hint="run in a CI job that may ask for an identity token, or sign with a key: "
                    "--key FILE",
                )
            with _explained("reading the identity token"):
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


def _signed(bundle: Bundle, payload: bytes) -> Signed:
    """Take the bundle apart; the bytes signed must be those that were to be signed."""
    envelope, material = bundle.content, bundle.material
    if not isinstance(envelope, Envelope) or not isinstance(material, Certificate):
        raise CheckedFalse("Sigstore's library made a bundle without envelope or certificate")
    if envelope.payload != payload or envelope.payload_type != PAYLOAD_TYPE:
        raise CheckedFalse("Sigstore's library signed other bytes than it was given")
    read_identity(material.der, "the certificate just issued")
    key = PublicKey.of_certificate(material.der, "the certificate just issued")
    if not key.verifies(envelope.signatures[0].sig, envelope.pae):
        raise CheckedFalse("the signature just made is not that of its certificate")
    return Signed(envelope, key, material, bundle.tlog_entries, bundle.timestamps)


@contextmanager
def _explained(doing: str) -> Iterator[None]:
    """Map whatever the library and its HTTP client raise."""
    try:
        yield
    except NixSeedError:
        raise
    except ImportError as error:
        raise needs_sigstore(doing) from error
    except Exception as error:
        raise CouldNotCheck(
            f"{doing} failed: {type(error).__name__}",
            hint="is the Sigstore instance in reach? With a key (--key FILE) none is needed",
            detail=_detail(error),
        ) from error


def _detail(error: BaseException) -> str | None:
    """Return what a server answered, which the library's own errors drop, else the error's words.

    A refusal of Fulcio's comes without words, caused by an HTTP error that has the response.
    """
    response = getattr(error.__cause__, "response", None)
    said = "" if response is None else str(response.text)[:500].strip()
    return said or str(error) or str(error.__cause__ or "") or None
