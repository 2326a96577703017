"""Real registries on loopback: Debian's docker-registry, with passwords, TLS or tokens as asked."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

USER, PASSWORD = "seeder", "correct horse"


@dataclass(frozen=True, slots=True)
class Running:
    """A registry that answers at *host* (``127.0.0.1:port``)."""

    host: str
    log: Path
    process: subprocess.Popen[bytes]


def needs(program: str, package: str) -> str:
    """Return the program's path, or skip the test by the package's name."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"needs {program}: apt-get install {package}")
    return found


def free_port() -> int:
    """Return a port that, for a minute, is given to nobody who does not ask for it by number.

    A connection that the port's side ended first keeps it (TIME-WAIT, RFC 9293); servers may bind
    it nevertheless, by SO_REUSEADDR, as those of Go, Rust and Python do.
    """
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", 0))
        server.listen()
        port: int = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            server.accept()[0].close()
            client.recv(1)
        return port


@dataclass(frozen=True, slots=True)
class Tokens:
    """The token service a registry is told to trust: its address and its CA's certificate."""

    realm: str
    certificate: Path


@dataclass(frozen=True, slots=True)
class Certificate:
    """A server's certificate and key, and the CA that signed it."""

    ca: Path
    certificate: Path
    key: Path


@contextmanager
def docker_registry(
    root: Path,
    *,
    password: bool = True,
    tls: Certificate | None = None,
    tokens: Tokens | None = None,
    port: int | None = None,
    program: str | None = None,
) -> Iterator[Running]:
    """Run docker-registry 2.x, or *program*, a later one, with its blobs below *root*."""
    program = program or needs("docker-registry", "docker-registry")
    port = port or free_port()
    config = root / "config.yml"
    root.mkdir(parents=True, exist_ok=True)
    lines = [
        "version: 0.1",
        "log: {level: warn}",
        f"storage: {{filesystem: {{rootdirectory: '{root / 'data'}'}}, delete: {{enabled: true}}}}",
        "http:",
        f"  addr: 127.0.0.1:{port}",
        "  secret: only for tests",
    ]
    if tls is not None:
        lines.append(f"  tls: {{certificate: '{tls.certificate}', key: '{tls.key}'}}")
    if tokens is not None:
        lines.append(
            f"auth: {{token: {{realm: '{tokens.realm}', service: test-registry, "
            f"issuer: test-issuer, rootcertbundle: '{tokens.certificate}'}}}}"
        )
    elif password:
        lines.append(f"auth: {{htpasswd: {{realm: tests, path: '{_htpasswd(root)}'}}}}")
    config.write_text("\n".join(lines) + "\n")
    with _serving([program, "serve", str(config)], port, root / "registry.log") as running:
        yield running


@contextmanager
def referrers_registry(root: Path) -> Iterator[Running]:
    """Run a registry that has the referrers API: go-containerregistry's, built on first use."""
    from support.goprograms import go_registry

    program, port = go_registry(), free_port()
    with _serving([program, f"127.0.0.1:{port}"], port, root / "registry.log") as running:
        yield running


@contextmanager
def _serving(command: list[str], port: int, log: Path) -> Iterator[Running]:
    with log.open("ab") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink, stdin=subprocess.DEVNULL)
    try:
        _wait(process, port, log)
        yield Running(f"127.0.0.1:{port}", log, process)
    finally:
        process.kill()
        process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    for _ in range(1200):
        if process.poll() is not None:
            break
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"the registry did not start: {log.read_text()[-2000:]}")


def _htpasswd(root: Path) -> Path:
    path = root / "htpasswd"
    program = needs("htpasswd", "apache2-utils")
    subprocess.run(
        [program, "-Bbc", "-C", "5", str(path), USER, PASSWORD], check=True, capture_output=True
    )
    return path


def certificate(
    root: Path, address: str = "127.0.0.1", *, usage: bool = True, days: int = 2
) -> Certificate:
    """Make a CA and a certificate for *address* and localhost."""
    program = needs("openssl", "openssl")
    root.mkdir(parents=True, exist_ok=True)
    made = Certificate(root / "ca.pem", root / "server.pem", root / "server.key")
    ca_key, request, extra = root / "ca.key", root / "server.csr", root / "extra"
    kind = "IP" if address[0].isdigit() else "DNS"
    extra.write_text(f"subjectAltName={kind}:{address},DNS:localhost\n")

    def openssl(*arguments: str) -> None:
        subprocess.run([program, *arguments], check=True, capture_output=True)

    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl(
        "req",
        "-x509",
        *curve,
        "-keyout",
        str(ca_key),
        "-out",
        str(made.ca),
        "-days",
        "2",
        "-subj",
        "/CN=test CA",
        *(("-addext", "keyUsage=critical,keyCertSign") if usage else ()),
    )
    openssl("req", *curve, "-keyout", str(made.key), "-out", str(request), "-subj", "/CN=registry")
    openssl(
        "x509",
        "-req",
        "-in",
        str(request),
        "-CA",
        str(made.ca),
        "-CAkey",
        str(ca_key),
        "-CAcreateserial",
        "-out",
        str(made.certificate),
        "-days",
        str(days),
        "-extfile",
        str(extra),
    )
    return made
