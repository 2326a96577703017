"""A real Sigstore on loopback: Fulcio, its certificate log, Rekor v2, a timestamp authority.

Each is the project's own server, built from its module. Fulcio holds its authority in memory, and
certifies by the tokens of issuers of ours (``oidc``).
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from nix_seed.formats.tlog.note import NoteKey
from support.goprograms import installed
from support.oidc import Issuer, issuing
from support.registries import free_port
from support.rekor import fronted, metrics_port, rekor_v2, running, trillian

__all__ = ["Authority", "CertificateLog", "RealSigstore", "Refusal", "fulcio", "real_sigstore"]

_GITHUB = {
    # The part of Fulcio's own configuration for GitHub that decides who a certificate names.
    "default-template-values": {"url": "https://github.com"},
    "extension-templates": {
        "build-signer-uri": "{{ .url }}/{{ .job_workflow_ref }}",
        "source-repository-uri": "{{ .url }}/{{ .repository }}",
        "source-repository-digest": "sha",
        "source-repository-owner-uri": "{{ .url }}/{{ .repository_owner }}",
        "build-config-uri": "{{ .url }}/{{ .workflow_ref }}",
        "runner-environment": "runner_environment",
    },
    "subject-alternative-name-template": "{{ .url }}/{{ .job_workflow_ref }}",
}
_P256 = "PKIX_ECDSA_P256_SHA_256"


@dataclass(frozen=True)
class CertificateLog:
    """A log by RFC 6962 at *url*; *key* is its SubjectPublicKeyInfo."""

    url: str
    key: bytes

    def size(self) -> int:
        """Return the number of certificates in its tree."""
        size: int = _get(f"{self.url}/ct/v1/get-sth")["tree_size"]
        return size


class Refusal(Exception):
    """Raised where Fulcio does not certify: status, message and reason."""


@dataclass(frozen=True)
class Authority:
    """Fulcio at *url*, with the chain of its authority, its root last."""

    url: str
    chain: tuple[x509.Certificate, ...]
    log: Path

    def certify(self, token: str) -> None:
        """Ask for a certificate for a new key, with no client's checks before.

        Raises ``Refusal``, with what Fulcio tells the client and why, which only its log tells.
        """
        private = ec.generate_private_key(ec.SECP256R1())
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        pem = request.sign(private, _SHA256).public_bytes(Encoding.PEM)
        body = json.dumps({"certificateSigningRequest": base64.b64encode(pem).decode()}).encode()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        asked = urllib.request.Request(f"{self.url}/api/v2/signingCert", body, headers)
        try:
            with urllib.request.urlopen(asked, timeout=60):
                return
        except urllib.error.HTTPError as error:
            why = json.loads(self.log.read_text().splitlines()[-1])["error"]
            raise Refusal(f"{error.code}: {json.load(error)['message']}: {why}") from error


@dataclass(frozen=True)
class RealSigstore:
    """The instance. Fulcio knows *workflows* (of GitHub's kind) and *people* (by e-mail)."""

    workflows: Issuer
    people: Issuer
    authority: Authority
    certificate_log: CertificateLog
    log_url: str
    log_key: NoteKey
    stamps_url: str
    stamps_chain: tuple[x509.Certificate, ...]

    def trusted_root(self, authority: Authority | None = None) -> bytes:
        """The JSON that clients trust, with another *authority* if one is given."""
        log = _trusted(self.log_key.der, "PKIX_ED25519", f"https://{self.log_key.name}")
        log["logId"] = {"keyId": _b64(self.log_key.log_id)}
        root = {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [log],
            "ctlogs": [_trusted(self.certificate_log.key, _P256, self.certificate_log.url)],
            "certificateAuthorities": [_chain((authority or self.authority).chain)],
            "timestampAuthorities": [_chain(self.stamps_chain)],
        }
        return json.dumps(root).encode()

    def signing_config(self, authority: Authority | None = None) -> dict[str, Any]:
        """The services that sign."""
        return {
            "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
            "caUrls": [_service((authority or self.authority).url, 1)],
            "rekorTlogUrls": [_service(self.log_url, 2)],
            "rekorTlogConfig": {"selector": "ANY"},
            "tsaUrls": [_service(self.stamps_url, 1)],
            "tsaConfig": {"selector": "ANY"},
        }

    def trust_config(self, authority: Authority | None = None) -> bytes:
        """The ClientTrustConfig that names them all."""
        kind = "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json"
        root = json.loads(self.trusted_root(authority))
        config = self.signing_config(authority)
        return json.dumps(
            {"mediaType": kind, "trustedRoot": root, "signingConfig": config}
        ).encode()


@contextmanager
def real_sigstore(directory: Path) -> Iterator[RealSigstore]:
    """Start the whole instance in *directory*."""
    directory.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        start = stack.enter_context
        workflows, people = start(issuing()), start(issuing())
        ct_port = free_port()
        ct_url = f"http://127.0.0.1:{ct_port}/test"
        authority = start(fulcio(directory / "fulcio", workflows, people, ct_url))
        log = start(_certificate_log(directory / "ct", ct_port, authority.chain))
        stamps_url, stamps = start(_timestamp_authority(directory))
        # cosign takes a log's origin from the host alone of its baseUrl.
        rekor = start(rekor_v2(directory / "rekor", origin="rekor.test"))
        url = start(fronted(rekor))
        yield RealSigstore(
            workflows, people, authority, log, url, rekor.trusted.key, stamps_url, stamps
        )


@contextmanager
def fulcio(
    directory: Path, workflows: Issuer, people: Issuer, ct_url: str = ""
) -> Iterator[Authority]:
    """Start Fulcio; without *ct_url* it enters its certificates in no log."""
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "config.yaml"
    # JSON is a part of YAML; the comment keeps Fulcio from reading it as JSON, with other names.
    config.write_text("# YAML\n" + json.dumps(_issuers(workflows, people)))
    http, grpc = free_port(), free_port()
    url = f"http://127.0.0.1:{http}"
    with tempfile.TemporaryDirectory(prefix="fulcio") as short:
        command = [
            installed("fulcio"), "serve", "--ca", "ephemeralca", "--config-path", str(config),
            "--ct-log-url", ct_url, "--host", "127.0.0.1", "--port", str(http),
            "--grpc-host", "127.0.0.1", "--grpc-port", str(grpc), "--metrics-port", "0",
            "--legacy-unix-domain-socket", f"{short}/socket", "--log_type", "prod",
        ]  # fmt: skip
        with running(command, directory / "log", f"{url}/api/v2/trustBundle"):
            pems = _get(f"{url}/api/v2/trustBundle")["chains"][0]["certificates"]
            chain = tuple(x509.load_pem_x509_certificate(pem.encode()) for pem in pems)
            yield Authority(url, chain, directory / "log")


def _issuers(workflows: Issuer, people: Issuer) -> dict[str, Any]:
    common = {"client-id": "sigstore"}
    ours = {"type": "ci-provider", "ci-provider": "github-workflow"}
    return {
        "oidc-issuers": {
            workflows.url: {"issuer-url": workflows.url, **common, **ours},
            people.url: {"issuer-url": people.url, **common, "type": "email"},
        },
        "ci-issuer-metadata": {"github-workflow": _GITHUB},
    }


@contextmanager
def _certificate_log(
    directory: Path, port: int, roots: tuple[x509.Certificate, ...]
) -> Iterator[CertificateLog]:
    """Start certificate-transparency-go's server on Trillian, for certificates under *roots*."""
    program, create_tree = installed("ct_server"), installed("createtree")
    private = ec.generate_private_key(ec.SECP256R1())
    spki = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    url = f"http://127.0.0.1:{port}"
    with trillian(directory) as (rpc, _):
        done = subprocess.run(
            [create_tree, f"--admin_server=127.0.0.1:{rpc}"],
            check=True, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        (directory / "roots.pem").write_bytes(_pem(roots))
        config = directory / "ct.cfg"
        config.write_text(_ct_config(int(done.stdout), directory / "roots.pem", private))
        command = [
            program, "--log_config", str(config), "--log_rpc_server", f"127.0.0.1:{rpc}",
            "--http_endpoint", f"127.0.0.1:{port}", "--logtostderr",
        ]  # fmt: skip
        with running(command, directory / "ct.log", f"{url}/test/ct/v1/get-sth"):
            yield CertificateLog(f"{url}/test", spki)


def _ct_config(tree: int, roots: Path, private: ec.EllipticCurvePrivateKey) -> str:
    der = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    key = "".join(f"\\{byte:03o}" for byte in der)
    kind = "type.googleapis.com/keyspb.PrivateKey"
    return (
        f'config {{ log_id: {tree} prefix: "test" roots_pem_file: "{roots}" '
        f'ext_key_usages: "CodeSigning" private_key: {{ [{kind}] {{ der: "{key}" }} }} }}\n'
    )


@contextmanager
def _timestamp_authority(directory: Path) -> Iterator[tuple[str, tuple[x509.Certificate, ...]]]:
    """Start the authority; give the address that stamps, and its chain, its root last."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [
        installed("timestamp-server"), "serve", "--host", "127.0.0.1", "--port", str(port),
        "--timestamp-signer", "memory", "--disable-ntp-monitoring", "--log-type", "prod",
        "--cleanup-timeout", "1s",
    ]  # fmt: skip
    with metrics_port(), running(command, directory / "stamps.log", f"{url}/ping"):
        with urllib.request.urlopen(f"{url}/api/v1/timestamp/certchain", timeout=20) as answer:
            chain = x509.load_pem_x509_certificates(answer.read())
        yield f"{url}/api/v1/timestamp", tuple(chain)


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return json.load(answer)


def _trusted(spki: bytes, details: str, url: str) -> dict[str, Any]:
    return {
        "baseUrl": url,
        "hashAlgorithm": "SHA2_256",
        "publicKey": {
            "rawBytes": _b64(spki), "keyDetails": details, "validFor": {"start": _yesterday()},
        },
        "logId": {"keyId": _b64(hashlib.sha256(spki).digest())},
    }  # fmt: skip


def _chain(certificates: tuple[x509.Certificate, ...]) -> dict[str, Any]:
    ders = [certificate.public_bytes(Encoding.DER) for certificate in certificates]
    return {
        "subject": {"organization": "tests", "commonName": "test"},
        "uri": "https://authority.example",
        "certChain": {"certificates": [{"rawBytes": _b64(der)} for der in ders]},
        "validFor": {"start": _yesterday()},
    }


def _service(url: str, version: int) -> dict[str, Any]:
    valid = {"start": _yesterday()}
    return {"url": url, "majorApiVersion": version, "validFor": valid, "operator": "tests"}


def _yesterday() -> str:
    return (datetime.now(UTC) - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")


def _pem(certificates: tuple[x509.Certificate, ...]) -> bytes:
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


_SHA256 = hashes.SHA256()
