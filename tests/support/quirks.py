"""A registry on loopback that behaves as one real family of registries does, by a switch.

It keeps everything in memory, serves one repository as well as any other and wants a token for each
request. A *quirk* changes its answers as a public report says that the real ones do.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from support.web import PlainHandler, answering

USER, PASSWORD = "seeder", "correct horse battery"
INDEX = "application/vnd.oci.image.index.v1+json"
_PATH = re.compile(
    r"/v2/(?P<repository>.+?)/(?P<kind>manifests|blobs|tags|referrers)/(?P<name>.+)\Z"
)


@dataclass(frozen=True, slots=True)
class Query:
    """A request: what *kind* of thing is asked for, by which *name*, with which *actions*."""

    method: str
    url: str
    repository: str
    kind: str
    name: str
    headers: Mapping[str, str]
    body: bytes
    actions: frozenset[str]
    server: Quirky

    @property
    def is_tag(self) -> bool:
        return self.kind == "manifests" and not self.name.startswith("sha256:")

    def __contains__(self, text: str) -> bool:
        return text in self.url


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def but(self, **headers: str | None) -> Reply:
        """The same with other headers; None takes one away."""
        changed = {name.replace("_", "-"): value for name, value in headers.items()}
        kept = {name: value for name, value in self.headers.items() if name not in changed}
        return replace(self, headers=kept | {k: v for k, v in changed.items() if v is not None})


def refuse(status: int, code: str, message: str = "") -> Reply:
    """An error document of the distribution specification."""
    body = json.dumps({"errors": [{"code": code, "message": message or code.lower()}]}).encode()
    return Reply(status, {"Content-Type": "application/json"}, body)


def page(status: int, text: str = "<html><body>Sign in</body></html>") -> Reply:
    """What a login page or a proxy answers."""
    return Reply(status, {"Content-Type": "text/html"}, text.encode())


Quirk = Callable[[Query, Callable[[], Reply]], Reply]


@dataclass(slots=True)
class Quirky:
    """The running registry: what it holds, and what it was asked."""

    host: str
    quirk: Quirk
    api: bool
    manifests: dict[tuple[str, str], tuple[str, bytes]] = field(default_factory=dict)
    tags: dict[tuple[str, str], str] = field(default_factory=dict)
    blobs: dict[tuple[str, str], bytes] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    counter: Iterator[int] = field(default_factory=itertools.count)
    seen: list[Query] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)
    challenge: Callable[[str], str] = str
    token: Callable[[dict[str, str]], dict[str, str]] = dict
    # What a stranger is answered anywhere but at /v2/, which alone challenges; 0: a challenge.
    hides: int = 0

    @property
    def storage(self) -> str:
        """The address of the storage behind: another host, to whoever compares hosts."""
        return f"http://{self.host.replace('127.0.0.1', 'localhost')}/storage"

    def stored(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Answer as storage does, which knows no token and takes no HEAD."""
        assert "authorization" not in headers, "credentials went to another host"
        found = re.fullmatch(r"/storage/(.+?)/(manifests|blobs)/(.+)", path)
        assert found is not None
        repository, kind, name = found.groups()
        query = Query(
            method, path, repository, kind, name.partition("?")[0], headers, body,
            frozenset(("pull", "push")), self,
        )  # fmt: skip
        refused = method == "HEAD" or name.startswith("expired-")
        return Reply(403) if refused else self.regular(query)

    def exists(self, repository: str) -> bool:
        """Whether anything was ever put into *repository*."""
        return any(key[0] == repository for key in (*self.manifests, *self.blobs))

    def find(self, repository: str, name: str) -> tuple[str, str, bytes] | None:
        """The digest, media type and bytes of a manifest."""
        digest = self.tags.get((repository, name), name)
        found = self.manifests.get((repository, digest))
        return None if found is None else (digest, *found)

    def answer(self, query: Query) -> Reply:
        """Answer as the specification says."""
        with self.lock:
            self.seen.append(query)
            return self.quirk(query, lambda: self.regular(query))

    def regular(self, query: Query) -> Reply:
        """Answer as a registry without any quirk."""
        handle: Callable[[Query], Reply] = getattr(self, f"_{query.kind}")
        return handle(query)

    def _manifests(self, query: Query) -> Reply:
        if query.method == "PUT":
            return self._put(query)
        found = self.find(query.repository, query.name)
        if found is None:
            return refuse(404, "MANIFEST_UNKNOWN")
        digest, kind, body = found
        return Reply(200, {"Content-Type": kind, "Docker-Content-Digest": digest}, body)

    def _put(self, query: Query) -> Reply:
        digest = f"sha256:{hashlib.sha256(query.body).hexdigest()}"
        if not query.is_tag and query.name != digest:
            return refuse(400, "DIGEST_INVALID")
        kind = query.headers.get("content-type", "")
        self.manifests[query.repository, digest] = (kind, query.body)
        if query.is_tag:
            self.tags[query.repository, query.name] = digest
        return Reply(201, {"Docker-Content-Digest": digest, "Location": f"/v2/x/{digest}"})

    def _referrers(self, query: Query) -> Reply:
        if not self.api:
            return Reply(404, {"Content-Type": "text/plain"}, b"404 page not found")
        listed = []
        for (repository, digest), (kind, body) in self.manifests.items():
            value = json.loads(body)
            if (
                repository == query.repository
                and value.get("subject", {}).get("digest") == query.name
            ):
                listed.append({"mediaType": kind, "digest": digest, "size": len(body)})
        body = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}).encode()
        return Reply(200, {"Content-Type": INDEX}, body)

    def _tags(self, query: Query) -> Reply:
        names = sorted(tag for repository, tag in self.tags if repository == query.repository)
        if not self.exists(query.repository):
            return refuse(404, "NAME_UNKNOWN")
        body = json.dumps({"name": query.repository, "tags": names}).encode()
        return Reply(200, {"Content-Type": "application/json"}, body)

    def _blobs(self, query: Query) -> Reply:
        if query.name.startswith("uploads/"):
            return self._upload(query)
        found = self.blobs.get((query.repository, query.name))
        if found is None:
            return refuse(404, "BLOB_UNKNOWN")
        wanted = re.match(r"bytes=([0-9]+)-([0-9]+)", query.headers.get("range", ""))
        if wanted:
            start, end = int(wanted[1]), int(wanted[2])
            said = f"bytes {start}-{end}/{len(found)}"
            return Reply(206, {"Content-Range": said}, found[start : end + 1])
        return Reply(200, {"Docker-Content-Digest": query.name}, found)

    def _upload(self, query: Query) -> Reply:  # noqa: PLR0911
        parts = urlsplit(query.url)
        asked, name = parse_qs(parts.query), parts.path.rpartition("/")[2]
        if query.method == "POST":
            if "mount" in asked:
                source = self.blobs.get((asked["from"][0], asked["mount"][0]))
                if source is not None:
                    self.blobs[query.repository, asked["mount"][0]] = source
                    return Reply(201, {"Location": "/v2/x"})
            # Of others that are under way none may have it.
            name = f"u{next(self.counter)}"
            self.uploads[name] = b""
            return Reply(202, {"Location": f"/v2/{query.repository}/blobs/uploads/{name}?state=1"})
        if query.method == "DELETE":
            self.uploads.pop(name, None)
            return Reply(204)
        if name not in self.uploads:
            return refuse(404, "BLOB_UPLOAD_UNKNOWN")
        self.uploads[name] += query.body
        if query.method == "PATCH":
            sent = len(self.uploads[name])
            where = f"/v2/{query.repository}/blobs/uploads/{name}?state=2"
            return Reply(202, {"Location": where, "Range": f"0-{sent - 1}"})
        data = self.uploads.pop(name)
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if asked["digest"] != [digest]:
            return refuse(400, "DIGEST_INVALID")
        self.blobs[query.repository, digest] = data
        return Reply(201, {"Docker-Content-Digest": digest, "Location": "/v2/x"})


@contextmanager
def quirky_registry(quirk: Quirk, *, api: bool, **more: Any) -> Iterator[Quirky]:
    """Run a registry with *quirk*; *api*: it has the referrers API. *more* are members of it."""
    with answering(_Handler) as server:
        registry = Quirky(f"127.0.0.1:{server.server_port}", quirk, api, **more)
        server.registry = registry  # type: ignore[attr-defined]
        yield registry


class _Handler(PlainHandler):
    def every(self) -> None:
        registry: Quirky = self.server.registry  # type: ignore[attr-defined]
        body = self.content()
        if self.path.startswith("/token"):
            self.send(self.token())
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        if self.path.startswith("/storage/"):
            with registry.lock:
                self.send(registry.stored(self.command, unquote(self.path), headers, body))
            return
        found = _PATH.match(unquote(urlsplit(self.path).path))
        said = headers.get("authorization", "")
        if found is None:
            door = f'Bearer realm="http://{registry.host}/token",service="quirks"'
            shut = registry.hides and not said
            greeting = refuse(401, "UNAUTHORIZED").but(WWW_Authenticate=registry.challenge(door))
            self.send(greeting if shut else Reply(200))
            return
        actions = self.granted(said)
        repository = found["repository"]
        query = Query(
            self.command, self.path, repository, found["kind"], found["name"], headers, body,
            actions, registry,
        )  # fmt: skip
        needed = "push" if self.command not in ("GET", "HEAD") else "pull"
        if needed not in actions:
            realm = f'Bearer realm="http://{registry.host}/token",service="quirks"'
            challenge = registry.challenge(f'{realm},scope="repository:{repository}:{needed}"')
            if registry.hides and not said:
                self.send(refuse(registry.hides, "NAME_UNKNOWN"))
                return
            self.send(refuse(401, "UNAUTHORIZED").but(WWW_Authenticate=challenge))
            return
        self.send(registry.answer(query))

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = every

    def token(self) -> Reply:
        """Grant anyone to pull, and who has the password to push."""
        said = self.headers.get("Authorization", "")
        known = said == "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        asked = " ".join(parse_qs(urlsplit(self.path).query).get("scope", []))
        actions = ["pull"] + (["push"] if known and "push" in asked else [])
        text = base64.urlsafe_b64encode(" ".join(actions).encode()).decode().rstrip("=")
        registry: Quirky = self.server.registry  # type: ignore[attr-defined]
        return Reply(200, {}, json.dumps(registry.token({"token": text})).encode())

    def granted(self, said: str) -> frozenset[str]:
        text = said.removeprefix("Bearer ")
        return frozenset(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode().split())

    def content(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        headers = dict(reply.headers)
        if headers.pop("X-No-Length", None) is None:
            headers.setdefault("Content-Length", str(len(reply.body)))
        elif self.command != "HEAD":
            headers["Connection"] = "close"
            self.close_connection = True
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)
