"""An OIDC issuer on loopback: discovery document, key set, signed identity tokens.

OpenID Connect Discovery 1.0, RFC 7517 (key set), RFC 7515 (signature).
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from support.web import answering

__all__ = ["Issuer", "issuing"]


def _key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@dataclass(frozen=True)
class Issuer:
    """The issuer at *url*, which signs with one RSA key."""

    url: str
    key: rsa.RSAPrivateKey = field(default_factory=_key)

    def token(self, subject: str, *, age: int = 0, lasts: int = 600, **claims: Any) -> str:
        """Sign a token for *subject*, issued *age* seconds ago and good for *lasts* seconds."""
        issued = int(time.time()) - age
        times = {"iat": issued, "nbf": issued, "exp": issued + lasts}
        body = {"iss": self.url, "sub": subject, "aud": "sigstore", **times, **claims}
        head = {"alg": "RS256", "typ": "JWT", "kid": "one"}
        signed = b".".join(_b64(json.dumps(part).encode()) for part in (head, body))
        signature = self.key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
        return b".".join([signed, _b64(signature)]).decode()

    def document(self, path: str) -> dict[str, Any] | None:
        """Return what lies at *path*."""
        if path == "/.well-known/openid-configuration":
            return {
                "issuer": self.url,
                "jwks_uri": f"{self.url}/keys",
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
            }
        return {"keys": [self._jwk()]} if path == "/keys" else None

    def _jwk(self) -> dict[str, str]:
        numbers = self.key.public_key().public_numbers()
        known = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "one"}
        return known | {"n": _number(numbers.n), "e": _number(numbers.e)}


@contextmanager
def issuing() -> Iterator[Issuer]:
    """Serve an issuer on a free port of loopback."""
    with answering(_Handler) as server:
        issuer = Issuer(f"http://127.0.0.1:{server.server_address[1]}")
        server.issuer = issuer  # type: ignore[attr-defined]
        yield issuer


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        issuer: Issuer = self.server.issuer  # type: ignore[attr-defined]
        found = issuer.document(self.path)
        body = json.dumps(found).encode()
        self.send_response(404 if found is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def _b64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _number(value: int) -> str:
    return _b64(value.to_bytes((value.bit_length() + 7) // 8, "big")).decode()
