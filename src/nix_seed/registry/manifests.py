"""A repository's manifests and tags: asked for, stored, listed."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from urllib.parse import quote

from nix_seed.core import canonical_json
from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError, of_store
from nix_seed.core.parallel import in_parallel
from nix_seed.formats.oci import manifest as oci
from nix_seed.formats.oci.reference import check_tag
from nix_seed.registry import store
from nix_seed.registry.auth import TokenScope
from nix_seed.registry.blobs import RepositoryBlobs
from nix_seed.registry.errors import Denied
from nix_seed.registry.rules import http
from nix_seed.registry.session import RegistryRequest, Reply

MANIFEST_LIMIT = 4 << 20  # bytes; the specification asks registries to take that much, and no more
_FEW = 4  # beginnings of tags that are asked for one by one
_MOST_PAGES = 1000
_MOST_LISTED = 64 << 20  # bytes of all pages
_LONGEST_LINK = 4096  # the pattern takes the square of its length
# Quay leaves the brackets out.
_NEXT = re.compile(r'(?:<([^>]*)>|([^\s<>;,]+))\s*;[^,]*\brel="?next"?')
_READ, _PUSH = ("pull",), ("pull", "push")


class RepositoryManifests(RepositoryBlobs):
    """One repository's manifests and tags, and its blobs."""

    def head_manifest(self, name: str | Digest, *, writing: bool = False) -> oci.Descriptor | None:
        """Return what the registry says *name* is, None if it has no such manifest.

        A hint, good for "is it there?": nothing was hashed. A registry whose answer lacks digest
        or size, or that knows no HEAD, is asked for the manifest itself. Who is *writing* takes a
        refusal for "not there yet": what is written next shows whether it may be.
        """
        reply = self._ask("HEAD", name, writing)
        if reply is None:
            return None
        size = http.number(reply.headers.get("Content-Length"))
        hint = http.digest_hint(reply.headers)
        other = isinstance(name, Digest) and hint != name
        if reply.error is not None or hint is None or not size or other:
            fetched = self.get_manifest(name, writing=writing)
            return None if fetched is None else fetched.descriptor
        return oci.Descriptor(http.document_type(reply.headers.get("Content-Type")), hint, size)

    def get_manifest(self, name: str | Digest, *, writing: bool = False) -> store.Fetched | None:
        """Return the manifest called *name*, verified, or None if there is none.

        Raises ``CheckedFalse`` where the bytes have another digest than the one asked for, or than
        the registry's own header says.
        """
        label = f"{self}{'@' if isinstance(name, Digest) else ':'}{name}"
        reply = self._ask("GET", name, writing)
        if reply is None:
            return None
        if reply.body is None:
            raise CheckedFalse(
                f"{label} is larger than {MANIFEST_LIMIT >> 20} MiB, which no manifest may be",
                hint="this is no image of ours; nothing of it was read",
            )
        digest, hint = Digest.of(reply.body), http.digest_hint(reply.headers)
        if digest != name and http.is_page(reply.headers):
            raise CouldNotCheck(
                f"{label}: a web page came in its place",
                hint="a login page, or a proxy's: see what a browser shows at the registry",
            )
        if isinstance(name, Digest) and digest != name:
            raise CheckedFalse(f"{label} has other bytes than its digest names: {digest}")
        if hint is not None and hint != digest:
            # What has the digest that the header names settles which of the two is meant.
            return self.get_manifest(hint, writing=writing) or self._fetched(reply, label)
        return self._fetched(reply, label)

    def _fetched(self, reply: Reply, label: str) -> store.Fetched:
        assert reply.body is not None
        with of_store():
            kind = http.document_type(reply.headers.get("Content-Type"), reply.body, label)
        return store.Fetched(oci.Descriptor.of(kind, reply.body), reply.body)

    def _ask(self, method: str, name: str | Digest, writing: bool) -> Reply | None:
        """Ask for a manifest in every way there is; None if it is not there.

        The reply has an ``error`` where only a GET can tell.
        """
        reply = self._manifest(method, name, _READ)
        if isinstance(reply.error, Denied) and self._session.has_credential(self.path):
            # Some registries let nobody read where nothing is yet, but whoever may write there.
            again = self._manifest(method, name, _PUSH)
            reply = reply if isinstance(again.error, Denied) else again
        if reply.meaning is http.Meaning.NO:
            return None
        if reply.error is None or (method == "HEAD" and not isinstance(reply.error, Denied)):
            return reply
        if isinstance(reply.error, Denied) and (writing or self._lacks(name)):
            return None
        raise reply.error

    def _lacks(self, name: str | Digest) -> bool:
        """Whether the list of tags can be had, and does not have *name*."""
        if isinstance(name, Digest):
            return False
        try:
            return name not in self.list_tags()
        except CouldNotCheck:
            return False

    def put_manifest(
        self, body: bytes, media_type: str, name: str | Digest | None = None
    ) -> oci.Descriptor:
        """Store a manifest or index, under a tag if *name* is one; return its descriptor.

        What it refers to must be there already. Its exact bytes are kept.
        """
        digest = Digest.of(body)
        if isinstance(name, str):
            check_tag(name, str(self))
        elif name not in (None, digest):
            raise InputError(f"{self}: this manifest is {digest}, not {name}")
        request = RegistryRequest(
            "PUT",
            f"{self.path}/manifests/{_in_path(name or digest)}",
            f"pushing manifest {name or digest} to {self}",
            (TokenScope(self.path, _PUSH),),
            http.RegistryQuestion.TAKE_MANIFEST,
            headers={"Content-Type": media_type},
            body=lambda: body,
            settle=True,
        )
        reply = self._session.call(request)
        if reply.error is not None:
            there = self.head_manifest(name or digest, writing=True)
            if there is None or there.digest != digest:
                raise reply.error
        hint = http.digest_hint(reply.headers)
        if hint not in (None, digest) and self.head_manifest(digest, writing=True) is None:
            raise CheckedFalse(f"{self}: pushed manifest {digest}, but the registry stored {hint}")
        return oci.Descriptor(media_type, digest, len(body))

    def put_manifests(self, documents: Sequence[store.NamedDocument], jobs: int = 1) -> None:
        """Store many as ``put_manifest`` does, *jobs* at once."""
        in_parallel(lambda each: self.put_manifest(*each), documents, jobs)

    def edit_indexes(self, edits: Mapping[str, store.IndexEdit], jobs: int = 1) -> frozenset[str]:
        """Make each edit of the index at its tag: read, and written if that changed something."""
        changed = in_parallel(lambda each: self._edit(*each), edits.items(), jobs)
        return frozenset(tag for tag, done in zip(edits, changed, strict=True) if done)

    def _edit(self, tag: str, edit: store.IndexEdit) -> bool:
        before = store.index_members(self.get_manifest(tag, writing=True), f"{self}:{tag}")
        after = edit(before)
        if after != before:
            self.put_manifest(oci.Index(after).dump(), oci.MediaType.INDEX, tag)
        return after != before

    def list_tags(self) -> tuple[str, ...]:
        """Return every tag, sorted; none for a repository that does not exist."""
        return tuple(sorted({tag for page in self._tag_pages() for tag in page}))

    def tags_with(self, prefixes: Collection[str], jobs: int = 1) -> tuple[str, ...]:
        """Return the tags that begin with one of *prefixes*, each of which ends in a dot.

        For few of them, a registry that sorts its tags is not asked for the others.
        """
        first, *rest = prefixes
        found = self._sorted_tags(first) if len(rest) < _FEW else None
        if found is None:
            # Many registries look at all of their tags for each request.
            return tuple(tag for tag in self.list_tags() if tag.startswith(tuple(prefixes)))
        others = in_parallel(lambda each: self._sorted_tags(each) or [], rest, jobs)
        return (*found, *(tag for tags in others for tag in tags))

    def _sorted_tags(self, prefix: str) -> list[str] | None:
        """Return the tags that begin with *prefix*, None where the registry begins elsewhere."""
        after, found = prefix[:-1], list[str]()
        try:
            for page in self._tag_pages(f"?last={after}"):
                if not http.follows(page, after):
                    return None
                found += (tag for tag in page if tag.startswith(prefix))
                if page and not page[-1].startswith(prefix):
                    break
                after = page[-1] if page else after
        except CouldNotCheck:
            return None
        return found

    def _tag_pages(self, query: str = "") -> Iterator[list[str]]:
        label = f"the tags of {self}"
        url = f"{self.path}/tags/list{query}"
        request = RegistryRequest(
            "GET", url, f"listing {label}", (TokenScope(self.path),), http.RegistryQuestion.TAGS
        )
        for reply in self.pages(request):
            if reply.error is not None:
                raise reply.error
            try:
                value = canonical_json.loads(reply.body or b"", label=label)
            except InputError as error:
                raise CouldNotCheck(f"{label}: the registry answered no list") from error
            found = value.get("tags") if isinstance(value, dict) else None
            listed = found if isinstance(found, list) else ()
            yield [tag for tag in listed if isinstance(tag, str)]

    def pages(self, request: RegistryRequest) -> Iterator[Reply]:
        """Yield a paginated answer (RFC 8288 ``Link``); nothing where there is no such list.

        A first reply without a body stands for a list that is asked for in another way.
        """
        seen, left = set[str](), _MOST_LISTED
        for page in range(_MOST_PAGES):
            seen.add(request.url)
            reply = self._session.call(request, limit=MANIFEST_LIMIT)
            if page and reply.error is not None:
                raise reply.error
            if page and reply.meaning is http.Meaning.NO:
                raise CouldNotCheck(f"{request.doing}: page {page + 1} of the list is not there")
            if reply.meaning is http.Meaning.NO:
                return
            left -= len(reply.body or b"")
            if reply.body is None or left < 0:
                raise CouldNotCheck(f"{request.doing}: the answer is too long to be read")
            yield reply
            following = _NEXT.search(reply.headers.get("Link", "")[:_LONGEST_LINK])
            if following is None:
                return
            here, about = http.parse_url(reply.url), f"{request.doing}: the next page"
            target = http.join_url(here, following[1] or following[2] or "", about).target
            # Behind a proxy it may name another host: the list goes on where it began.
            url = replace(here, target=target)
            if str(url) in seen:
                raise CouldNotCheck(f"{request.doing}: its pages lead in a circle")
            request = replace(request, url=str(url))
        raise CouldNotCheck(f"{request.doing}: more than {_MOST_PAGES} pages")

    def _manifest(self, method: str, name: str | Digest, actions: tuple[str, ...]) -> Reply:
        joint = "@" if isinstance(name, Digest) else ":"
        verb = "looking for" if method == "HEAD" else "fetching"
        request = RegistryRequest(
            method,
            f"{self.path}/manifests/{_in_path(name)}",
            f"{verb} {self}{joint}{name}",
            (TokenScope(self.path, actions),),
            http.RegistryQuestion.THERE,
            headers={"Accept": ", ".join(http.READABLE)},
        )
        return self._session.call(request, limit=MANIFEST_LIMIT)


def _in_path(name: str | Digest) -> str:
    # A colon stays one: zot takes `sha256%3A…` for a tag.
    return quote(str(name), safe=":/")
