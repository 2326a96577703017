"""Real transparency logs on loopback: Rekor v2 with its directory, Rekor v1 with its database."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nix_seed.clients.logs.http import LogHttp
from nix_seed.clients.logs.rekor_v2 import RekorV2
from nix_seed.clients.logs.tile_source import DirectorySource
from nix_seed.clients.registry.patience import Patience
from nix_seed.clients.signers.key import KeyKind, KeySigner
from nix_seed.formats.tlog.note import NoteKey
from nix_seed.rules.log_verify import TrustedLog
from support.goprograms import go_log_check, installed
from support.registries import free_port

PATIENCE = Patience(attempts=3, base=0.2, connect=5.0, stall=60.0, settle=60.0)


@dataclass(frozen=True, slots=True)
class RealLog:
    """A log that answers at *url*; its files lie in *storage*."""

    url: str
    trusted: TrustedLog
    key_pem: str
    storage: Path

    @property
    def client(self) -> RekorV2:
        http = LogHttp(self.url, patience=PATIENCE)
        return RekorV2(self.trusted, self.url, tiles=DirectorySource(self.storage), http=http)


@contextmanager
def rekor_v2(directory: Path, kind: KeyKind = "ed25519") -> Iterator[RealLog]:
    """Start Rekor v2 in *directory*, signing with a key of the *kind*."""
    program = installed("posix")
    directory.mkdir(parents=True, exist_ok=True)
    signer = KeySigner.generate(kind)
    (directory / "key.pem").write_bytes(signer.pem())
    origin = f"rekor.test/{kind}"
    ports = [free_port() for _ in range(3)]
    storage = directory / "storage"
    command = [
        program, "serve", "--hostname", origin, "--storage-dir", str(storage),
        "--signer-filepath", str(directory / "key.pem"), "--checkpoint-interval", "500ms",
        "--batch-max-age", "50ms", "--http-port", str(ports[0]), "--grpc-port", str(ports[1]),
        "--http-metrics-port", str(ports[2]), "--log-level", "warn", "--persistent-antispam",
    ]  # fmt: skip
    url = f"http://127.0.0.1:{ports[0]}"
    key = NoteKey.from_der(origin, signer.public_key.der)
    trusted = TrustedLog(f"real {kind}", "rekor-v2", origin, key)
    with running(command, directory / "server.log", f"{url}/healthz"):
        yield RealLog(url, trusted, signer.public_key.pem.decode(), storage)


@contextmanager
def running(command: list[str], log: Path, healthy: str | None, wait: float = 60) -> Iterator[None]:
    """Run a server, niced, until the block ends; wait until *healthy* answers 200."""
    with log.open("wb") as output:
        process = subprocess.Popen(["nice", "-n", "10", *command], stdout=output, stderr=output)
    try:
        if healthy is not None:
            _await(process, healthy, log, wait)
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await(process: subprocess.Popen[bytes], url: str, log: Path, wait: float) -> None:
    end = time.monotonic() + wait
    while time.monotonic() < end:
        if process.poll() is not None:
            pytest.fail(f"the server ended at once: {log.read_text()[-1500:]}")
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"{url} did not answer in {wait} s: {log.read_text()[-1500:]}")


def ask_their_verifier(questions: list[dict[str, Any]]) -> list[str]:
    """Return what Rekor v2's own verifier says to each: ``ok``, or what is wrong."""
    lines = "".join(json.dumps(question) + "\n" for question in questions)
    done = subprocess.run(
        [go_log_check()], input=lines, capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout.splitlines()
