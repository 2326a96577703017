"""What points at a manifest (distribution specification 1.1, "Listing Referrers").

By the referrers API, and by the fallback tag ``sha256-<hex>``: an index that clients keep up to
date themselves. Reading takes both together. Writing keeps the tag in any case, because a registry
may be mirrored to one without the API.

A registry and its repositories: the client's front room.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, urljoin

from nix_seed.core import canonical_json
from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError
from nix_seed.formats.oci import media_types
from nix_seed.formats.oci.manifest import Descriptor, Index, Manifest, fallback_tag
from nix_seed.formats.oci.reference import Reference, check_tag
from nix_seed.registry import blobs as download
from nix_seed.registry import blobs as upload
from nix_seed.registry.auth import Scope
from nix_seed.registry.blobs import Source
from nix_seed.registry.credentials import Keyring
from nix_seed.registry.http import Patience, origin
from nix_seed.registry.session import Request, Session
from nix_seed.registry.store import BlobSource, Fetched, Held, referrer_entry

_ROUNDS = 5
_ONE_WRITER = threading.Lock()


def list_referrers(
    repository: Repository, subject: Digest, artifact_type: str | None = None
) -> tuple[Descriptor, ...]:
    """Return the descriptors of what has *subject* as its subject, sorted by digest.

    With *artifact_type*, those of that type only, which their manifests decide: lists often give
    another one (the config's media type, say) or none.
    """
    found = {item.digest: item for item in _from_api(repository, subject)}
    found |= {item.digest: item for item in _from_tag(repository, subject)}
    listed = [found[digest] for digest in sorted(found)]
    if artifact_type is None:
        return tuple(listed)
    typed = (_typed(repository, item, artifact_type) for item in listed)
    return tuple(item for item in typed if item is not None)


def _typed(repository: Repository, item: Descriptor, artifact_type: str) -> Descriptor | None:
    """Return *item* with its true artifact type if that is the one asked for, else None."""
    if item.artifact_type == artifact_type:
        return item
    if item.media_type != media_types.MANIFEST:
        return None
    fetched = repository.get_manifest(item.digest)
    if fetched is None:
        return None  # deleted since it was listed
    manifest = Manifest.parse(fetched.body, f"{repository}@{item.digest}")
    true = manifest.artifact_type or manifest.config.media_type
    return replace(item, artifact_type=true) if true == artifact_type else None


def add_to_fallback(repository: Repository, subject: Digest, referrer: Descriptor) -> None:
    """Put *referrer* on the list at the subject's fallback tag: read, merge, write, read again.

    The protocol knows no compare-and-swap: a writer elsewhere may overwrite what was just written,
    which the last read shows, and it is written again. Writers in this process take turns.
    """
    tag = fallback_tag(subject)
    with _ONE_WRITER:
        for attempt in range(_ROUNDS):
            present = _from_tag(repository, subject)
            if any(item.digest == referrer.digest for item in present):
                return
            merged = sorted((*present, referrer), key=lambda item: item.digest)
            repository.put_manifest(Index(tuple(merged)).dump(), media_types.INDEX, tag)
            repository.wait(attempt)
        if any(item.digest == referrer.digest for item in _from_tag(repository, subject)):
            return
    raise CouldNotCheck(
        f"{repository}:{tag} is being rewritten by others; the referrer {referrer.digest} is "
        "pushed, but not on that list",
        hint="run the same command again",
    )


def _from_tag(repository: Repository, subject: Digest) -> tuple[Descriptor, ...]:
    fetched = repository.get_manifest(fallback_tag(subject))
    if fetched is None:
        return ()
    what = f"{repository}:{fallback_tag(subject)}"
    return Index.parse(fetched.body, what).manifests


def _from_api(repository: Repository, subject: Digest) -> tuple[Descriptor, ...]:
    """Read the API's list, empty where the registry has no such API (404, 405)."""
    url = f"{repository.path}/referrers/{quote(str(subject))}"
    what = f"the referrers of {repository}@{subject}"
    found: list[Descriptor] = []
    for body in repository.pages(
        Request(
            "GET",
            url,
            doing=f"listing {what}",
            scopes=(Scope(repository.path),),
            expect=frozenset({200, 400, 404, 405}),
            headers={"Accept": media_types.INDEX},
        )
    ):
        found.extend(Index.parse(body, what).manifests)
    return tuple(found)


MANIFEST_LIMIT = 4 << 20  # bytes; the specification asks registries to take that much, and no more
_READABLE = (
    media_types.MANIFEST,
    media_types.INDEX,
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MOST_PAGES = 1000
_NEXT = re.compile(r'<([^>]*)>\s*;[^,]*\brel="?next"?')


class Registry:
    """One registry, ``host[:port]``. Thread-safe; keeps its connections and tokens."""

    def __init__(
        self,
        host: str,
        *,
        keyring: Keyring | None = None,
        patience: Patience | None = None,
        plain_http: bool = False,
        ca_file: str | None = None,
    ) -> None:
        self.host = host
        self._session = Session(
            host,
            Keyring(dict(os.environ), Path.home()) if keyring is None else keyring,
            patience=patience or Patience(),
            plain_http=plain_http,
            ca_file=ca_file,
        )

    def repository(self, path: str, mount_from: tuple[str, ...] = ()) -> Repository:
        """Return the repository at *path* (``owner/name``).

        Blobs it lacks are linked from those at *mount_from*, where the registry has them there.
        """
        return Repository(self._session, Reference(self.host, path), mount_from)


class Repository:
    """One repository of a registry; its blobs, manifests, tags and referrers."""

    def __init__(
        self, session: Session, reference: Reference, mount_from: tuple[str, ...] = ()
    ) -> None:
        self._session = session
        self._mount_from = tuple(path for path in mount_from if path != reference.repository)
        self.registry = reference.registry
        self.path = reference.repository

    def __str__(self) -> str:
        return f"{self.registry}/{self.path}"

    def head_manifest(self, name: str | Digest) -> Descriptor | None:
        """Return what the registry says *name* is, None if it has no such manifest.

        A hint, good for "is it there?": nothing was hashed. A registry whose answer lacks digest
        or size is asked for the manifest itself.
        """
        reply = self._session.call(self._manifest("HEAD", name, "looking for"))
        if reply.status == 404:
            return None
        digest = reply.headers.get("Docker-Content-Digest", "")
        size = reply.headers.get("Content-Length", "")
        if not digest.startswith("sha256:") or not size.isdigit():
            fetched = self.get_manifest(name)
            return None if fetched is None else fetched.descriptor
        found = Descriptor(
            _media_type(reply.headers.get("Content-Type")), _parse(digest), int(size)
        )
        if isinstance(name, Digest) and found.digest != name:
            raise CheckedFalse(f"{self}: asked for manifest {name}, answered {found.digest}")
        return found

    def get_manifest(self, name: str | Digest) -> Fetched | None:
        """Return the manifest called *name*, verified, or None if there is none.

        Raises ``CheckedFalse`` where the bytes have another digest than the one asked for, or than
        the registry's own header says.
        """
        what = f"{self}{'@' if isinstance(name, Digest) else ':'}{name}"
        reply = self._session.call(self._manifest("GET", name, "fetching"), limit=MANIFEST_LIMIT)
        if reply.status == 404:
            return None
        if reply.body is None:
            raise CheckedFalse(
                f"{what} is larger than {MANIFEST_LIMIT >> 20} MiB, which no manifest may be",
                hint="this is no image of ours; nothing of it was read",
            )
        digest = Digest.of(reply.body)
        hint = reply.headers.get("Docker-Content-Digest", "")
        if isinstance(name, Digest) and digest != name:
            raise CheckedFalse(f"{what} has other bytes than its digest names: {digest}")
        if hint.startswith("sha256:") and hint != str(digest):
            raise CheckedFalse(f"{what} has digest {digest}, but the registry says {hint}")
        kind = _media_type(reply.headers.get("Content-Type"), reply.body, what)
        return Fetched(Descriptor(kind, digest, len(reply.body)), reply.body)

    def put_manifest(
        self, body: bytes, media_type: str, name: str | Digest | None = None
    ) -> Descriptor:
        """Store a manifest or index, under a tag if *name* is one; return its descriptor.

        What it refers to must be there already. Its exact bytes are kept.
        """
        digest = Digest.of(body)
        if isinstance(name, str):
            check_tag(name, str(self))
        elif name not in (None, digest):
            raise InputError(f"{self}: this manifest is {digest}, not {name}")
        reply = self._session.call(
            Request(
                "PUT",
                f"{self.path}/manifests/{quote(str(name or digest))}",
                doing=f"pushing manifest {name or digest} to {self}",
                scopes=(Scope(self.path, ("pull", "push")),),
                expect=frozenset({201}),
                headers={"Content-Type": media_type},
                body=lambda: body,
                settle=True,
            )
        )
        hint = reply.headers.get("Docker-Content-Digest", "")
        if hint.startswith("sha256:") and hint != str(digest):
            raise CheckedFalse(f"{self}: pushed manifest {digest}, but the registry stored {hint}")
        return Descriptor(media_type, digest, len(body))

    def has_blob(self, digest: Digest) -> bool:
        """Whether the registry says it has the blob; asked by who is to push it otherwise."""
        # With the right to push: where there is nothing yet, nobody has the right to pull.
        reply = self._session.call(
            Request(
                "HEAD",
                f"{self.path}/blobs/{digest}",
                doing=f"looking for blob {digest} in {self}",
                scopes=(Scope(self.path, ("pull", "push")),),
                expect=frozenset({200, 404}),
            )
        )
        return reply.status == 200

    def mount_blob(self, digest: Digest, source: str) -> bool:
        """Have the registry link a blob it has in repository *source*; False where it will not."""
        return upload.mount_blob(self._session, self.path, digest, source)

    def push_blob(self, blob: Descriptor, source: Source) -> None:
        """Send a blob of known digest and size; *source* yields its bytes, anew at each call."""
        upload.push_blob(self._session, self.path, blob, source)

    def take_blob(self, blob: Descriptor, source: BlobSource) -> bool:
        """Store a blob from another store, by a link (False) where the registry makes one."""
        if any(self.mount_blob(blob.digest, path) for path in self._mount_from):
            return False
        self.push_blob(blob, lambda: source(Held()))
        return True

    def push_stream(self, source: Source, media_type: str) -> Descriptor:
        """Send a stream of unknown length and return what it proved to be."""
        return upload.push_stream(self._session, self.path, source, media_type)

    def open_blob(self, blob: Descriptor, held: Held | None = None) -> Iterator[bytes]:
        """Yield the blob (after what is *held*); verified when, and only when, it ends."""
        return download.open_blob(self._session, self.path, blob, held)

    def read_range_unverified(self, blob: Descriptor, start: int, length: int) -> bytes:
        """Return part of a blob by one range request; the caller must have a proof of its own."""
        return download.read_range(self._session, self.path, blob, start, length)

    def attach(self, body: bytes) -> Descriptor:
        """Push a manifest that has a ``subject``, and put it on the subject's fallback list."""
        entry, subject = referrer_entry(body)
        self.put_manifest(body, entry.media_type)
        add_to_fallback(self, subject, entry)
        return entry

    def referrers(
        self, subject: Digest, artifact_type: str | None = None
    ) -> tuple[Descriptor, ...]:
        """Return what points at *subject*, by API and fallback tag, sorted by digest."""
        return list_referrers(self, subject, artifact_type)

    def list_tags(self) -> tuple[str, ...]:
        """Return every tag, sorted; none for a repository that does not exist."""
        tags: set[str] = set()
        what = f"the tags of {self}"
        for body in self.pages(
            Request(
                "GET",
                f"{self.path}/tags/list",
                doing=f"listing {what}",
                scopes=(Scope(self.path),),
                expect=frozenset({200, 404}),
            )
        ):
            value = canonical_json.loads(body, what=what)
            found = value.get("tags") if isinstance(value, dict) else None
            tags.update(tag for tag in found or () if isinstance(tag, str))
        return tuple(sorted(tags))

    def pages(self, request: Request) -> Iterator[bytes]:
        """Yield the bodies of a paginated answer (RFC 8288 ``Link``); none for another than 200."""
        for _ in range(_MOST_PAGES):
            reply = self._session.call(request, limit=MANIFEST_LIMIT)
            if reply.status != 200:
                return
            if reply.body is None:
                raise CouldNotCheck(f"{request.doing}: the answer is too long to be read")
            yield reply.body
            following = _NEXT.search(reply.headers.get("Link", ""))
            if following is None:
                return
            url = urljoin(reply.url, following[1])
            if origin(url) != origin(reply.url):
                raise CouldNotCheck(f"{request.doing}: the next page is on another host")
            request = Request(
                request.method, url, request.doing, request.scopes, request.expect, request.headers
            )
        raise CouldNotCheck(f"{request.doing}: more than {_MOST_PAGES} pages")

    def wait(self, attempt: int) -> None:
        """Let other writers finish: what they had read before our write, they write by now."""
        delay = self._session.patience.delay(attempt)
        if delay is not None:
            self._session.patience.sleep(delay)

    def _manifest(self, method: str, name: str | Digest, verb: str) -> Request:
        joint = "@" if isinstance(name, Digest) else ":"
        return Request(
            method,
            f"{self.path}/manifests/{quote(str(name))}",
            doing=f"{verb} {self}{joint}{name}",
            scopes=(Scope(self.path),),
            expect=frozenset({200, 404}),
            headers={"Accept": ", ".join(_READABLE)},
        )


def _parse(text: str) -> Digest:
    try:
        return Digest.parse(text)
    except InputError as error:
        raise CouldNotCheck(f"the registry answered {error.message}") from error


def _media_type(header: str | None, body: bytes = b"", what: str = "") -> str:
    """Return the header's media type, or for a general one what the document says of itself."""
    kind = (header or "").partition(";")[0].strip()
    if kind in _READABLE or not body:
        return kind or media_types.MANIFEST
    value = canonical_json.loads(body, what=what)
    inner = value.get("mediaType") if isinstance(value, dict) else None
    return inner if isinstance(inner, str) else kind or media_types.MANIFEST
