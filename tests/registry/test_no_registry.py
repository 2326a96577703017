"""What says "not there" and is no registry: that could not be checked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from nix_seed.core.errors import CouldNotCheck
from nix_seed.registry.client import Repository
from nix_seed.registry.credentials import Credential, Keyring
from support.quirks import PASSWORD, USER, Reply, page, refuse
from support.repositories import Registry
from support.web import PlainHandler, answering

US = Keyring(given=Credential("the test", USER, PASSWORD))
NOT_FOUND = page(404, "<html><title>404 Not Found</title></html>")
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("absent", "greeting", "is_one"),
    [
        (NOT_FOUND, NOT_FOUND, False),
        (Reply(404), Reply(404), False),
        (Reply(404, JSON, b'{"detail": "Not Found"}'), Reply(404, JSON, b"{}"), False),
        (NOT_FOUND, page(200, "<html>the same for any address</html>"), False),
        (Reply(404), Reply(403), False),
        (NOT_FOUND, Reply(301, {"Location": "/login"}), False),
        (NOT_FOUND, Reply(200, JSON, b"{}"), True),
        (NOT_FOUND, Reply(401, {"WWW-Authenticate": 'Basic realm="x"'}), True),
        (NOT_FOUND, Reply(404, {"docker-distribution-api-version": "registry/2.0"}), True),
        (Reply(404, {"Docker-Distribution-API-Version": "registry/2.0"}), NOT_FOUND, True),
    ],
)
def test_what_is_no_registry_does_not_lack_an_image(
    absent: Reply, greeting: Reply, *, is_one: bool
) -> None:
    def quirk(query: Any, go: Any) -> Reply:
        return greeting if query.url == "/v2/" else absent

    with open_registry(quirk) as host:
        for ask in (
            lambda: repository(host).head_manifest("v1"),
            lambda: repository(host).get_manifest("v1"),
            lambda: repository(host).list_tags() or None,
        ):
            if is_one:
                assert ask() is None
            else:
                with pytest.raises(CouldNotCheck, match="404 was answered, but not by a registry"):
                    ask()


def test_a_registry_that_shows_itself_by_its_words_alone_is_one() -> None:
    """A HEAD has none, and something before it keeps strangers from `/v2/`: the GET tells."""

    def quirk(query: Any, go: Any) -> Reply:
        return page(403) if query.url == "/v2/" else refuse(404, "MANIFEST_UNKNOWN")

    with open_registry(quirk) as host:
        assert repository(host).head_manifest("v1") is None


def repository(host: str) -> Repository:
    return Registry(host, keyring=US).repository("q/x")


@contextmanager
def open_registry(answer: Any) -> Iterator[str]:
    """Serve what *answer* makes of any request, with no logins."""

    class Handler(PlainHandler):
        def reply(self) -> None:
            found = answer(SimpleNamespace(method=self.command, url=self.path), None)
            self.send_response(found.status)
            for name, value in (dict(found.headers) | {"Content-Length": len(found.body)}).items():
                self.send_header(name, str(value))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(found.body)

        do_GET = do_HEAD = reply

    with answering(Handler) as server:
        yield f"127.0.0.1:{server.server_port}"
