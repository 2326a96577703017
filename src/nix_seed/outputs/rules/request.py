"""What an HTTP request asks of a cache that serves its own machine alone: GET and HEAD, no more."""

from __future__ import annotations

import re
from typing import Final

from nix_seed.core.values import dataclass

LARGEST_HEAD: Final = 1 << 16
"""Bytes of a request up to its empty line."""
_MOST_LINES: Final = 100
_FIRST: Final = re.compile(r"([A-Z]+) ([!-~]+) HTTP/1\.([01])\Z")
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HERE: Final = re.compile(r"(?:127\.0\.0\.1|localhost|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class CacheRequest:
    """A request for *path*; *bodiless* for HEAD. After the answer to the *last* one comes none."""

    path: str
    bodiless: bool
    last: bool


def read_request(head: bytes) -> CacheRequest | int:
    """Read *head*, all that comes before the empty line, or the beginning of what is too long.

    Return a status of HTTP's where that refuses it.
    """
    first, *lines = head.decode("latin-1").split("\r\n")
    if len(first) > LARGEST_HEAD:
        return 414
    if len(lines) > _MOST_LINES or len(head) > LARGEST_HEAD:
        return 431
    asked, parts = _FIRST.match(first), [line.partition(":") for line in lines]
    if asked is None or not all(_NAME.fullmatch(name) for name, _, _ in parts):
        return 400
    if asked[1] not in ("GET", "HEAD"):
        return 501
    headers: dict[str, list[str]] = {}
    for name, _, value in parts:
        headers.setdefault(name.lower(), []).append(value.strip())
    if not all(map(_HERE.fullmatch, headers.get("host", ()))):
        # A web page whose name was made to lead here must not read what a project builds.
        return 421
    # What follows a request that announces a body is no request.
    body = not headers.keys().isdisjoint(("content-length", "transfer-encoding"))
    wish = ",".join(headers.get("connection", ())).lower()
    ends = "close" in wish or (asked[3] == "0" and "keep-alive" not in wish)
    return CacheRequest(asked[2], asked[1] == "HEAD", body or ends)
