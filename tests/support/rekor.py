"""Real transparency logs on loopback: Rekor v2 with its directory, Rekor v1 with its database."""

from __future__ import annotations

import fcntl
import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from nix_seed.formats.tlog.note import NoteKey
from nix_seed.logs.log import DirectorySource
from nix_seed.logs.rekor import LogHttp, RekorV2
from nix_seed.logs.rules.entry import TrustedLog
from nix_seed.registry.errors import Patience
from nix_seed.trust.sign import KeyKind, KeySigner
from support.apt import CACHE
from support.goprograms import MODULES, go_log_check, installed
from support.registries import free_port, needs
from support.web import answering

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
def rekor_v2(
    directory: Path, kind: KeyKind = "ed25519", origin: str | None = None
) -> Iterator[RealLog]:
    """Start Rekor v2 in *directory*, signing with a key of the *kind*."""
    program = installed("posix")
    directory.mkdir(parents=True, exist_ok=True)
    signer = KeySigner.generate(kind)
    (directory / "key.pem").write_bytes(signer.pem())
    origin = origin or f"rekor.test/{kind}"
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
def fronted(log: RealLog) -> Iterator[str]:
    """Serve the log whole at one address, as public ones are: its files, and the server behind."""
    with answering(_Front) as server:
        server.log = log  # type: ignore[attr-defined]
        yield f"http://127.0.0.1:{server.server_port}"


class _Front(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        log: RealLog = self.server.log  # type: ignore[attr-defined]
        file = (log.storage / self.path.removeprefix("/api/v2/")).resolve()
        there = file.is_relative_to(log.storage.resolve()) and file.is_file()
        self._answer(200 if there else 404, file.read_bytes() if there else b"", {})

    def do_POST(self) -> None:
        log: RealLog = self.server.log  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers["Content-Length"]))
        kind = {"Content-Type": self.headers["Content-Type"]}
        try:
            with urllib.request.urlopen(
                urllib.request.Request(log.url + self.path, body, kind), timeout=60
            ) as done:
                self._answer(done.status, done.read(), dict(done.headers))
        except urllib.error.HTTPError as error:
            self._answer(error.code, error.read(), dict(error.headers))

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name in headers.keys() & {"Content-Type", "X-Log-Index"}:
            self.send_header(name, headers[name])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


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
            process.wait(2)  # what they would save is thrown away
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


@contextmanager
def rekor_v1(directory: Path) -> Iterator[tuple[str, NoteKey]]:
    """Start Rekor v1 on Trillian on MariaDB, all on loopback; give its address and key."""
    server = installed("rekor-server")
    port = free_port()
    with trillian(directory) as (rpc, socket_path), metrics_port(), unpublished(METRICS_PORT):
        rekor = [
            server, "serve", "--rekor_server.address", "127.0.0.1", "--port", str(port),
            "--rekor_server.hostname", "rekor.test", "--trillian_log_server.port", str(rpc),
            "--search_index.storage_provider", "mysql",
            "--search_index.mysql.dsn", f"root@unix({socket_path})/search", "--log_type", "prod",
        ]  # fmt: skip
        url = f"http://127.0.0.1:{port}"
        with running(rekor, directory / "rekor.log", f"{url}/api/v1/log"):
            with urllib.request.urlopen(f"{url}/api/v1/log/publicKey", timeout=20) as answer:
                key = NoteKey.read(answer.read().decode(), "rekor.test")
            yield url, key


@contextmanager
def trillian(directory: Path) -> Iterator[tuple[int, Path]]:
    """Start Trillian on MariaDB; give the port of its log server, and the database's socket."""
    programs = {name: installed(name) for name in ("trillian_log_server", "trillian_log_signer")}
    directory.mkdir(parents=True, exist_ok=True)
    rpc, signer_rpc = free_port(), free_port()
    with _mariadb(directory) as socket_path:
        common = [
            "--mysql_uri", f"root@unix({socket_path})/trillian", "--http_endpoint", "",
            "--alsologtostderr", "--quota_system", "noop",
        ]  # fmt: skip
        tree = [programs["trillian_log_server"], *common, "--rpc_endpoint", f"127.0.0.1:{rpc}"]
        sequencer = [
            programs["trillian_log_signer"], *common, "--rpc_endpoint", f"127.0.0.1:{signer_rpc}",
            "--force_master", "--sequencer_interval", "100ms", "--batch_size", "50",
            "--num_sequencers", "1",
        ]  # fmt: skip
        with (
            running(tree, directory / "tree.log", None),
            running(sequencer, directory / "sequencer.log", None),
        ):
            _await_port(rpc)
            yield rpc, socket_path


@contextmanager
def _mariadb(directory: Path) -> Iterator[Path]:
    """Run a database of its own, without a network, with the tables that Trillian wants."""
    install, server = needs("mariadb-install-db", _DATABASE), needs("mariadbd", _DATABASE)
    data, socket_path = directory / "db", Path(tempfile.mkdtemp(prefix="db")) / "s"
    own = ["--no-defaults", f"--datadir={data}", "--user=root"]
    subprocess.run(
        [install, *own, "--auth-root-authentication-method=normal", "--skip-test-db"],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    command = [
        server, *own, f"--socket={socket_path}", "--skip-networking",
        f"--pid-file={directory}/db.pid", "--innodb-flush-log-at-trx-commit=0",
    ]  # fmt: skip
    client = [needs("mariadb", _DATABASE), "--no-defaults", f"--socket={socket_path}", "-uroot"]
    with running(command, directory / "db.log", None):
        end = time.monotonic() + 60
        while subprocess.run(
            [*client, "-e", "select 1"], capture_output=True, check=False
        ).returncode:
            assert time.monotonic() < end, (directory / "db.log").read_text()[-1500:]
            time.sleep(0.2)
        subprocess.run(
            [*client, "-e", "create database trillian; create database search"], check=True
        )
        subprocess.run([*client, "trillian"], input=_schema(), check=True)
        yield socket_path
    shutil.rmtree(socket_path.parent)


def _schema() -> bytes:
    """Return Trillian's tables, from the very module that its servers are built of."""
    module = MODULES["trillian_log_server"]
    name = f"github.com/google/trillian@{module.rpartition('@')[2]}"
    done = subprocess.run(
        ["go", "mod", "download", "-json", name], capture_output=True, check=True, timeout=300
    )
    return (Path(json.loads(done.stdout)["Dir"]) / "storage/mysql/schema/storage.sql").read_bytes()


METRICS_PORT = 2112
"""Where Rekor v1 and the timestamp authority show their metrics; neither takes another."""


@contextmanager
def metrics_port() -> Iterator[None]:
    """Wait until no other process of the tests has a program on ``METRICS_PORT``, and keep it."""
    with (CACHE / ".metrics-port.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def unpublished(port: int) -> Iterator[None]:
    """Hold *port*, on which Rekor v1 would show its metrics to the whole network."""
    with socket.socket(socket.AF_INET6) as held:
        with suppress(OSError):
            held.bind(("::", port))
        yield


def _await_port(port: int) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    pytest.fail(f"nothing answers on port {port}")


_DATABASE = "mariadb-server"
