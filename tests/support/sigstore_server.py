"""The instance of ``private_sigstore`` on loopback, by the protocols of Fulcio, Rekor v2, RFC 3161.

It certifies what a token says without asking its issuer, which is all that a real Fulcio adds.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from support.private_sigstore import ISSUER, SUBJECT, PrivateSigstore
from support.web import answering


@dataclass
class Served:
    """A running instance; *asked* lists the paths of the requests it got."""

    url: str
    sigstore: PrivateSigstore
    asked: list[str] = field(default_factory=list)
    fails: set[str] = field(default_factory=set)

    def trust_config(self) -> bytes:
        """The ClientTrustConfig that names it."""
        yesterday = (datetime.now(UTC) - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")

        def service(path: str, version: int) -> list[dict[str, Any]]:
            return [
                {
                    "url": f"{self.url}{path}",
                    "majorApiVersion": version,
                    "validFor": {"start": yesterday},
                    "operator": "tests",
                }
            ]

        return json.dumps(
            {
                "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
                "trustedRoot": json.loads(self.sigstore.trusted_root()),
                "signingConfig": {
                    "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
                    "caUrls": service("", 1),
                    "rekorTlogUrls": service("", 2),
                    "rekorTlogConfig": {"selector": "ANY"},
                    "tsaUrls": service("/timestamp", 1),
                    "tsaConfig": {"selector": "ANY"},
                },
            }
        ).encode()


def token(subject: str = SUBJECT, issuer: str = ISSUER, minutes: int = 5) -> str:
    """An identity token, whose signature nobody here looks at."""
    now = datetime.now(UTC)
    claims = {
        "iss": issuer,
        "sub": subject,
        "aud": "sigstore",
        "iat": int(now.timestamp()),
        "exp": int((now + timedelta(minutes=minutes)).timestamp()),
    }
    parts = [{"alg": "RS256", "typ": "JWT"}, claims]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts]
    return b".".join([*encoded, b"c2lnbmF0dXJl"]).decode()


@contextmanager
def serving(sigstore: PrivateSigstore) -> Iterator[Served]:
    """Serve *sigstore* on a free port of loopback."""
    with answering(_Handler) as server:
        served = Served(f"http://127.0.0.1:{server.server_address[1]}", sigstore)
        server.served = served  # type: ignore[attr-defined]
        yield served


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        served: Served = self.server.served  # type: ignore[attr-defined]
        served.asked.append(self.path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path in served.fails:
            self._answer(503, b'{"message": "out of order"}')
        elif self.path == "/api/v2/signingCert":
            self._answer(200, self._certify(served.sigstore, json.loads(body)))
        elif self.path == "/api/v2/log/entries":
            self._answer(201, self._log(served.sigstore, json.loads(body)))
        elif self.path == "/timestamp":
            self._answer(201, served.sigstore.answer(body))
        else:
            self._answer(404, b"{}")

    def _certify(self, sigstore: PrivateSigstore, asked: dict[str, Any]) -> bytes:
        request = x509.load_pem_x509_csr(base64.b64decode(asked["certificateSigningRequest"]))
        assert request.is_signature_valid
        claims = json.loads(_unpadded(self.headers["Authorization"].split(".")[1]))
        der = sigstore.certify(request.public_key(), claims["sub"], claims["iss"])
        leaf = x509.load_der_x509_certificate(der)
        chain = [each.public_bytes(Encoding.PEM).decode() for each in (leaf, sigstore.ca)]
        return json.dumps(
            {"signedCertificateEmbeddedSct": {"chain": {"certificates": chain}}}
        ).encode()

    def _log(self, sigstore: PrivateSigstore, asked: dict[str, Any]) -> bytes:
        request = asked["hashedRekordRequestV002"]
        verifier = request["signature"]["verifier"]
        return json.dumps(
            sigstore.entry_of(
                base64.b64decode(request["digest"]),
                base64.b64decode(request["signature"]["content"]),
                {name: value for name, value in verifier.items() if name != "keyDetails"},
            )
        ).encode()

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def _unpadded(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error as error:
        raise AssertionError(f"no token: {text}") from error
