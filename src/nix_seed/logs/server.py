"""Serves the embedded log: its files, and Rekor v2's ``POST /api/v2/log/entries``."""

import json
import socket
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

from nix_seed.core.errors import InputError, NixSeedError, foreign
from nix_seed.formats.tlog.entry import ECDSA_P256, parse_request
from nix_seed.formats.tlog.merkle import Tile
from nix_seed.logs.embedded import EmbeddedLog
from nix_seed.registry.rules.http import number

_LARGEST_REQUEST = 1 << 17
_SECONDS = 30  # for a client to send its request
_PREFIX = "/api/v2/"
_TEXT, _BYTES, _JSON = "text/plain; charset=utf-8", "application/octet-stream", "application/json"
# gRPC's numbers, which Rekor's gateway puts into errors.
_CODES = {400: 3, 404: 5, 405: 12, 409: 6, 411: 3, 413: 8, 500: 13}


class LogServer:
    """An HTTP server of *log* on *host* and *port* (0: any free one); ``run`` serves until stopped.

    *on_request* is told (method, path, status) of each request.
    """

    def __init__(
        self,
        log: EmbeddedLog,
        host: str = "127.0.0.1",
        port: int = 0,
        on_request: Callable[[str, str, int], None] = lambda *_: None,
    ) -> None:
        handler = type("Handler", (_Handler,), {"log": log, "on_request": staticmethod(on_request)})
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        server = type("Server", (_Server,), {"address_family": family})
        failed = f"serving on {host}, port {port}, failed"
        hint = "choose another --port; 0 takes any that is free"
        with foreign(failed, OSError, OverflowError, TypeError, UnicodeError, hint=hint):
            self._server: ThreadingHTTPServer = server((host, port), handler)

    @property
    def url(self) -> str:
        """The address it serves at."""
        host, port = self._server.server_address[:2]
        name = str(host)
        return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"

    def run(self) -> None:
        """Serve until ``stop``."""
        self._server.serve_forever(poll_interval=0.2)

    def stop(self) -> None:
        """Stop serving; requests begun are finished."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    request_queue_size = 64
    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _SECONDS
    log: ClassVar[EmbeddedLog]
    on_request: ClassVar[Callable[[str, str, int], None]]

    def do_GET(self) -> None:
        """Answer with one of the log's files."""
        path = self.path.removeprefix(_PREFIX).lstrip("/")
        try:
            if path != "checkpoint":
                path = Tile.parse(path).path
            data = self.log.source.read(path)
        except InputError:
            data = None
        except NixSeedError as error:
            self._refuse(500, error.message)
            return
        if data is None:
            self._refuse(404, "there is no such file in the log")
            return
        newest = path == "checkpoint"
        caching = "no-cache" if newest else "public, max-age=31536000, immutable"
        self._answer(200, _TEXT if newest else _BYTES, data, {"Cache-Control": caching})

    do_HEAD = do_GET

    def do_POST(self) -> None:
        """Append an entry, and answer with it."""
        if self.path != f"{_PREFIX}log/entries":
            self._refuse(404, "entries are posted to /api/v2/log/entries")
            return
        data = self._request_body()
        if data is None:
            return
        try:
            body = parse_request(data)
            # As Rekor demands.
            good = body.is_signed()
            if good is None or body.verifier.key_details != ECDSA_P256:
                raise InputError("only ECDSA on P-256 with SHA-256 can be verified by its hash")
            if not good:
                raise InputError("the signature is not the verifier's over the digest")
            done = self.log.append_bodies([body.dump()])[0]
        except InputError as error:
            self._refuse(400, f"invalid hashedrekord request: {error.message}")
        except NixSeedError as error:
            self._refuse(500, error.message)
        else:
            index = str(done.entry.index)
            if done.duplicate:
                text = f"an equivalent entry already exists in the log with index {index}"
                self._refuse(409, text, {"X-Log-Index": index})
            else:
                self._answer(201, _JSON, json.dumps(done.entry.to_json()).encode())

    def _request_body(self) -> bytes | None:
        length = number(self.headers.get("Content-Length"))
        if length is None:
            self._refuse(411, "a Content-Length is needed")
        elif length > _LARGEST_REQUEST:
            self._refuse(413, f"a request has at most {_LARGEST_REQUEST} bytes")
        else:
            return self.rfile.read(length)
        return None

    def _refuse(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        # What is left of a body that was not read would be taken for the next request.
        self.close_connection = self.close_connection or status in {404, 411, 413}
        error = {"code": _CODES[status], "message": message, "details": []}
        self._answer(status, _JSON, json.dumps(error).encode(), headers or {})

    def _answer(
        self, status: int, kind: str, data: bytes, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(HTTPStatus(status))
        sent = {"Content-Type": kind, "Content-Length": str(len(data))} | (headers or {})
        for name, value in sent.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
        type(self).on_request(self.command, self.path, status)

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing by itself: *on_request* reports."""
