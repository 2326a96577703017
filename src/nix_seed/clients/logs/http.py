"""Requests to a log: a log that is down is waited for, one that refuses is quoted."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from nix_seed.clients.registry.failures import Unreachable, retryable
from nix_seed.clients.registry.patience import Patience
from nix_seed.clients.registry.transport import Transport
from nix_seed.ground import canonical_json
from nix_seed.ground.errors import CouldNotCheck, InputError

__all__ = ["HttpSource", "LogHttp", "Reply", "parse_answer", "refusal"]

LARGEST_ANSWER = 1 << 25  # a bundle of 256 entries has at most 16 MiB
_WORDS = 300


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str


class LogHttp:
    """Speaks to the log at *url*, over HTTPS, or plain HTTP on loopback only. Thread-safe.

    Every request may be repeated: logs refuse what they already hold, and say where it is.
    """

    def __init__(self, url: str, *, patience: Patience | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query:
            raise InputError(f"{url!r} is not the address of a log: https://HOST[/PATH] is")
        self.url = url.rstrip("/")
        # Rekor v2 answers a new entry when it is in the tree: 20 s at least (its documentation).
        self._patience = patience or Patience(stall=60.0, settle=60.0)
        self._transport = Transport(self._patience, os.environ)

    def get(self, path: str, doing: str) -> Reply:
        """GET *path* below the log's address; any status below 500 is an answer."""
        return self._send("GET", path, None, doing)

    def post(self, path: str, body: bytes, doing: str) -> Reply:
        """POST JSON to *path* below the log's address."""
        return self._send("POST", path, body, doing)

    def _send(self, method: str, path: str, body: bytes | None, doing: str) -> Reply:
        url = f"{self.url}/{path}"
        return self._patience.retry(lambda: self._once(method, url, body, doing))

    def _once(self, method: str, url: str, body: bytes | None, doing: str) -> Reply:
        headers = {"Accept": "application/json, */*"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        answer = self._transport.send(method, url, headers, body)
        if retryable(answer.status) or answer.status >= 500:
            words = _said(answer.read_error())
            raise Unreachable(
                f"{doing}: the log answered {answer.status}{words}",
                hint="this is the log's trouble; try again later",
                retry_after=answer.headers.get("Retry-After"),
            )
        found = answer.read(LARGEST_ANSWER)
        if found is None:
            raise CouldNotCheck(f"{doing}: the answer is longer than {LARGEST_ANSWER} bytes")
        return Reply(answer.status, answer.headers, found, url)


class HttpSource:
    """A tile log's files behind an address."""

    def __init__(self, http: LogHttp) -> None:
        self._http = http

    def read(self, path: str) -> bytes | None:
        """Return the file's bytes, None for 404."""
        doing = f"reading {path} of the log at {self}"
        reply = self._http.get(path, doing)
        if reply.status == 404:
            return None
        if reply.status != 200:
            raise refusal(reply, doing)
        return reply.body

    def __str__(self) -> str:
        return self._http.url


def refusal(reply: Reply, doing: str) -> CouldNotCheck | InputError:
    """Return the error for an answer that was not asked for."""
    text = f"{doing}: the log answered {reply.status}{_said(reply.body)}"
    if reply.status == 400:
        return InputError(text, hint="the log does not take such entries")
    return CouldNotCheck(text, hint="is this the address of a transparency log of this kind?")


def parse_answer(reply: Reply, doing: str) -> Mapping[str, Any]:
    """Return the JSON object of an answer; what is none is no answer of a log."""
    try:
        value = canonical_json.loads(reply.body, what="the answer")
    except InputError as error:
        raise CouldNotCheck(f"{doing}: {error.message}") from error
    if not isinstance(value, dict):
        raise CouldNotCheck(f"{doing}: the answer is not a JSON object")
    return value


def _said(body: bytes) -> str:
    """Return the message of an error's JSON, ready to be put after its number."""
    try:
        text = str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return ": " + "".join(c if c.isprintable() else " " for c in text)[:_WORDS]
