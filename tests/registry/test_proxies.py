"""Through a real proxy, as variables say: with a password, for all or some hosts, in TLS too."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any

import pytest

from nix_seed.core.errors import CouldNotCheck
from nix_seed.registry.client import Repository
from nix_seed.registry.credentials import Credential, Keyring
from nix_seed.registry.errors import Patience
from support.faults import Fault, fault_proxy
from support.quirks import PASSWORD, USER, Quirky, quirky_registry
from support.registries import certificate
from support.repositories import Registry

NAME = "registry.example:5000"  # a name that only the proxy can find
SECRET = "p:w@d"
QUICK = Patience(attempts=2, base=0.001, connect=3, stall=5)


class ForwardProxy(ThreadingTCPServer):
    """Sends everything on to one server, whoever is asked for, if the password is right."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, upstream: str, wanted: str | None) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        host, _, port = upstream.partition(":")
        self.upstream, self.wanted = (host, int(port)), wanted
        self.asked: list[str] = []


class _Connection(BaseRequestHandler):
    def handle(self) -> None:
        proxy: ForwardProxy = self.server  # type: ignore[assignment]
        head = b""
        while b"\r\n\r\n" not in head and (data := self.request.recv(1 << 16)):
            head += data
        lines, _, rest = head.partition(b"\r\n\r\n")
        first, *headers = lines.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        proxy.asked.append(f"{method} {target}")
        said = dict(line.split(": ", 1) for line in headers)
        if proxy.wanted is not None and said.get("Proxy-Authorization") != proxy.wanted:
            self.request.sendall(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n")
            return
        with socket.create_connection(proxy.upstream) as there:
            if method == "CONNECT":
                self.request.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            else:
                path = "/" + target.split("/", 3)[3]
                kept = [line for line in headers if not line.startswith("Proxy-")]
                line = f"{method} {path} HTTP/1.1"
                text = "\r\n".join([line, *kept, "Connection: close", "", ""])
                there.sendall(text.encode("latin-1") + rest)
            self.pipe(there, b"" if method == "CONNECT" else b"Connection: close\r\n")

    def pipe(self, there: socket.socket, header: bytes) -> None:
        def back() -> None:
            with suppress(OSError):
                status = b""
                while header and not status.endswith(b"\r\n") and (data := there.recv(1)):
                    status += data
                # Else who asks takes the connection for one that stays, until it sees its end.
                self.request.sendall(status + header)
                while data := there.recv(1 << 16):
                    self.request.sendall(data)
                self.request.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=back, daemon=True)
        thread.start()
        with suppress(OSError):
            while data := self.request.recv(1 << 16):
                there.sendall(data)
        thread.join()


@contextmanager
def proxying(upstream: str, password: str | None = None) -> Iterator[tuple[str, ForwardProxy]]:
    """Run a proxy; give its ``host:port``. *password* is ``user:password``."""
    wanted = None if password is None else f"Basic {base64.b64encode(password.encode()).decode()}"
    with ForwardProxy(upstream, wanted) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        address: Any = server.server_address
        yield f"127.0.0.1:{address[1]}", server
        server.shutdown()
        thread.join()


@pytest.fixture
def registry() -> Iterator[Quirky]:
    with quirky_registry(lambda query, go: go(), api=False) as running:
        yield running


def through(environ: Mapping[str, str], host: str = NAME) -> Repository:
    keyring = Keyring(environ, given=Credential("the test", USER, PASSWORD))
    return Registry(host, keyring=keyring, patience=QUICK, plain_http=True).repository("q/x")


FORMS = {
    "HTTP_PROXY": ("HTTP_PROXY", "http://{where}", None),
    "without a scheme": ("http_proxy", "{where}", None),
    "ALL_PROXY": ("ALL_PROXY", "http://{where}", None),
    "all, without a scheme, with a password": ("all_proxy", "me:p%3Aw%40d@{where}", f"me:{SECRET}"),
    "with a password": ("HTTP_PROXY", "http://me:p%3Aw%40d@{where}/", f"me:{SECRET}"),
}


@pytest.mark.parametrize("form", FORMS)
def test_all_goes_through_the_proxy(form: str, registry: Quirky) -> None:
    name, text, password = FORMS[form]
    with proxying(registry.host, password) as (where, proxy):
        ours = through({name: text.format(where=where)})
        stored = ours.push_stream(lambda: [b"data"], "x")
        assert b"".join(ours.open_blob(stored)) == b"data"
    assert len(proxy.asked) > 3
    assert all(each.split(" ")[1].startswith(f"http://{NAME}/") for each in proxy.asked)


def test_a_wrong_password_is_named_and_not_shown(registry: Quirky) -> None:
    with (
        proxying(registry.host, f"me:{SECRET}") as (where, _),
        pytest.raises(CouldNotCheck) as caught,
    ):
        through({"http_proxy": f"http://me:wrong-word@{where}"}).get_manifest("v1")
    said = f"{caught.value.message} {caught.value.hint}"
    assert "the proxy answered 407" in said
    assert "the proxy wants credentials" in said
    assert "wrong-word" not in said


def test_tls_goes_through_a_tunnel_with_the_password(registry: Quirky) -> None:
    """The registry behind speaks no TLS: the greeting got there, and its answer back."""
    with proxying(registry.host, f"me:{SECRET}") as (where, proxy):
        keyring = Keyring({"HTTPS_PROXY": f"http://me:p%3Aw%40d@{where}"})
        ours = Registry("registry.example", keyring=keyring, patience=QUICK).repository("q/x")
        with pytest.raises(CouldNotCheck, match="does not speak TLS"):
            ours.get_manifest("v1")
    assert set(proxy.asked) == {"CONNECT registry.example:443"}


EXEMPT = {
    "192.0.2.0/24": "192.0.2.7:5000",
    "192.0.2.7": "192.0.2.7:5000",
    "registry.invalid:5000": "registry.invalid:5000",
    ".invalid": "registry.invalid:5000",
    "*": "registry.invalid:5000",
}


@pytest.mark.parametrize("exempt", EXEMPT)
def test_who_is_exempt_is_asked_directly(exempt: str, registry: Quirky) -> None:
    hasty = Patience(attempts=1, connect=0.2, stall=0.2)
    with proxying(registry.host) as (where, proxy):
        for no_proxy, direct in ((exempt, True), ("other.example,10.0.0.0/8,:443", False)):
            keyring = Keyring({"HTTP_PROXY": where, "NO_PROXY": no_proxy})
            host = EXEMPT[exempt]
            asked = Registry(host, keyring=keyring, patience=hasty, plain_http=True)
            with suppress(CouldNotCheck):  # directly, there is nobody at these addresses
                asked.repository("q/x").get_manifest("v1")
            assert bool(proxy.asked) is not direct
            proxy.asked.clear()


def test_this_machine_itself_is_asked_directly(registry: Quirky, tmp_path: Path) -> None:
    with proxying(registry.host) as (where, proxy):
        assert through({"ALL_PROXY": where}, registry.host).get_manifest("v1") is None
    assert proxy.asked == []


def test_a_password_goes_to_no_token_server_in_plain(tmp_path: Path) -> None:
    """From HTTPS nothing leads to plain HTTP, whatever a challenge names."""
    asked: list[object] = []
    made = certificate(tmp_path)
    with (
        quirky_registry(lambda query, go: go(), api=False, token=asked.append) as tokens,
        fault_proxy(tokens.host, tls=made) as front,
    ):
        realm = f'Bearer realm="http://{tokens.host}/token",service="x"'
        front.faults += [Fault("GET", "/v2/", status=401, headers=(("WWW-Authenticate", realm),))]
        keyring = Keyring(given=Credential("the test", USER, PASSWORD))
        ours = Registry(front.host, keyring=keyring, patience=QUICK, ca_file=str(made.ca))
        with pytest.raises(CouldNotCheck, match="leads from HTTPS to http for a token"):
            ours.repository("q/x").get_manifest("v1")
    assert asked == []
