"""A repository of a registry: its manifests and tags, and what points at a manifest.

Referrers are listed by the referrers API and by a fallback tag, an index that clients keep
(distribution specification 1.1). Reading takes both. Writing keeps the tag in any case: a registry
may be mirrored to one without the API. Where the tag means the digest, it ends in ``.nix-seed``.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CouldNotCheck, InputError, of_store
from nix_seed.formats.oci import manifest as oci
from nix_seed.formats.oci.reference import Reference
from nix_seed.registry import store
from nix_seed.registry.auth import TokenScope
from nix_seed.registry.errors import NotTaken
from nix_seed.registry.manifests import RepositoryManifests
from nix_seed.registry.rules import http
from nix_seed.registry.session import RegistryRequest, Session

_TURNS = 30
_ONE_WRITER = threading.Lock()
_IMMUTABLE = (
    "this registry has no referrers API, and its tags cannot be moved: exempt the tags sha256-* "
    "from that (ECR: an exclusion filter; Harbor, Google: the repository's settings), or use "
    "another registry; nothing was signed"
)


def _typed(
    repository: Repository, item: oci.Descriptor, artifact_type: str
) -> oci.Descriptor | None:
    """Return *item* with its true artifact type if that is the one asked for, else None."""
    if item.artifact_type == artifact_type:
        return item
    if item.media_type != oci.MediaType.MANIFEST:
        return None
    fetched = repository.get_manifest(item.digest)
    if fetched is None:
        return None  # deleted since it was listed
    try:
        manifest = oci.Manifest.parse(fetched.body, f"{repository}@{item.digest}")
    except InputError:
        return None  # whatever it is, it says of itself nothing that is asked for
    return replace(item, artifact_type=artifact_type) if manifest.kind == artifact_type else None


def _add_at(repository: Repository, subject: Digest, referrer: oci.Descriptor) -> None:
    """Choose the tag: where the first is the subject itself, or cannot be made, it is the other."""
    tag, new = oci.fallback_tag(subject), (referrer,)
    present = _at_tag(repository, subject, tag, writing=True)
    if present is None:
        return _settle(repository, subject, oci.own_tag(subject), new)
    try:
        return _settle(repository, subject, tag, new)
    except NotTaken:
        if present:
            raise
        return _settle(repository, subject, oci.own_tag(subject), new)


def _settle(
    repository: Repository,
    subject: Digest,
    tag: str,
    new: Collection[oci.Descriptor] = (),
    gone: Collection[Digest] = (),
) -> None:
    """Have the list at *tag* name what is *new* and all that others attached, but nothing *gone*.

    The protocol knows no compare-and-swap: who read the list before we wrote it may overwrite it.
    So each manifest is marked before it is listed, and who wrote a list adds what of all that is
    marked it lacks: the last to write leaves it whole. Writers in this process take turns.
    """
    marked: Mapping[str, oci.Descriptor | None] = {}
    for turn in range(_TURNS):
        present = _at_tag(repository, subject, tag, writing=True) or ()
        listed = {item.digest: item for item in present if item.digest not in gone}
        added = [item for item in new if item.digest not in listed]
        known = {*(item.digest for item in (*present, *added)), *gone}
        added += _lacking(repository, subject, marked, known)
        if not added and len(listed) == len(present):
            return
        merged = sorted((*listed.values(), *added), key=lambda item: item.digest)
        repository.put_manifest(oci.Index(tuple(merged)).dump(), oci.MediaType.INDEX, tag)
        marked = _marked(repository, subject, turn)
    raise CouldNotCheck(
        f"{repository}:{tag} is being rewritten by others; what was pushed may lack on that list",
        hint="run the same command again",
    )


def _marked(
    repository: Repository, subject: Digest, turn: int
) -> Mapping[str, oci.Descriptor | None]:
    """Return what was attached to *subject*, by the digest's beginning: API or marks know it."""
    if (listed := repository.by_api(subject)) is not None:
        return {item.digest.hex[: oci.MARK]: item for item in listed}
    prefix = f"{oci.fallback_tag(subject)}."
    try:
        return dict.fromkeys(tag.removeprefix(prefix) for tag in repository.tags_with([prefix]))
    except CouldNotCheck:
        # Who may not list tags sees only what is listed still a while later.
        repository.wait(turn)
        return {}


def _lacking(
    repository: Repository,
    subject: Digest,
    marked: Mapping[str, oci.Descriptor | None],
    known: Collection[Digest],
) -> Iterator[oci.Descriptor]:
    """Yield what is *marked* and not *known*."""
    for mark in sorted(marked.keys() - {digest.hex[: oci.MARK] for digest in known}):
        if (item := marked[mark]) is not None:
            yield item
            continue
        fetched = repository.get_manifest(f"{oci.fallback_tag(subject)}.{mark}")
        if fetched is not None and fetched.descriptor.media_type == oci.MediaType.MANIFEST:
            with suppress(InputError):  # whatever else has such a tag is nothing of ours
                entry, about = store.referrer_entry(fetched.body)
                if about == subject and entry.digest.hex.startswith(mark):
                    yield entry


def _holds(listed: tuple[oci.Descriptor, ...] | None, referrer: oci.Descriptor) -> bool:
    return any(item.digest == referrer.digest for item in listed or ())


def _at_tag(
    repository: Repository, subject: Digest, tag: str, *, writing: bool = False
) -> tuple[oci.Descriptor, ...] | None:
    """Read the list at *tag*; None where the registry takes the tag for the subject's digest."""
    fetched = repository.get_manifest(tag, writing=writing)
    if fetched is None or fetched.descriptor.digest == subject:
        return () if fetched is None else None
    with of_store():
        return oci.Index.parse(fetched.body, f"{repository}:{tag}").manifests


def _from_api(repository: Repository, subject: Digest) -> tuple[oci.Descriptor, ...] | None:
    """Read the API's list, None where the registry has no such API: what answers is no index."""
    label = f"the referrers of {repository}@{subject}"
    request = RegistryRequest(
        "GET",
        f"{repository.path}/referrers/{subject}",
        f"listing {label}",
        (TokenScope(repository.path),),
        http.RegistryQuestion.BESIDE,
        headers={"Accept": oci.MediaType.INDEX},
    )
    found: list[oci.Descriptor] = []
    for page, reply in enumerate(repository.pages(request)):
        try:
            index = oci.Index.parse(reply.body or b"", label)
        except InputError as error:
            if page == 0:
                return None
            raise CouldNotCheck(f"{label}: page {page + 1} is no index") from error
        found.extend(index.manifests)
    return tuple(found)


class Repository(RepositoryManifests):
    """One repository of a registry; its blobs, manifests, tags and referrers.

    Blobs it lacks are linked from those at *mount_from*, where the registry has them there.
    """

    def __init__(
        self, session: Session, reference: Reference, mount_from: tuple[str, ...] = ()
    ) -> None:
        super().__init__(session, reference)
        self._mount_from = tuple(path for path in mount_from if path != reference.repository)
        self._has_api = True

    def take_blob(self, blob: oci.Descriptor, source: store.BlobSource) -> bool:
        """Store a blob from another store, by a link (False) where the registry makes one."""
        if any(self.mount_blob(blob.digest, path) for path in self._mount_from):
            return False
        self.push_blob(blob, lambda: source(store.Held()))
        return True

    def attach(self, body: bytes) -> oci.Descriptor:
        """Push a manifest that has a ``subject``, and put it on the subject's fallback list."""
        entry, subject = store.referrer_entry(body)
        if self.by_api(subject) is None:
            try:
                self.put_manifest(body, entry.media_type, oci.mark_tag(subject, entry.digest))
            except NotTaken:
                self.put_manifest(body, entry.media_type)
        else:
            self.put_manifest(body, entry.media_type)
        with _ONE_WRITER:
            try:
                _add_at(self, subject, entry)
            except NotTaken:
                # A tag that cannot be moved does not matter where the API lists the referrer.
                if not _holds(_from_api(self, subject), entry):
                    raise
        return entry

    def by_api(self, subject: Digest) -> tuple[oci.Descriptor, ...] | None:
        """Return what the API lists, None where none answers, which is asked for once."""
        found = None
        if self._has_api:
            with suppress(CouldNotCheck):
                found = _from_api(self, subject)
        self._has_api = found is not None
        return found

    def detach(self, subject: Digest, gone: Collection[Digest]) -> None:
        """Take the manifests *gone* off the subject's lists, and their marks with them.

        A mark becomes an empty index: few registries let a client remove a tag.
        """
        prefix = f"{oci.fallback_tag(subject)}."
        marked = self.tags_with([prefix])
        nothing = oci.Index(()).dump(), oci.MediaType.INDEX
        for tag in (oci.mark_tag(subject, digest) for digest in gone):
            if tag in marked:
                self.put_manifest(*nothing, tag)
        with _ONE_WRITER:
            for tag in (oci.fallback_tag(subject), oci.own_tag(subject)):
                _settle(self, subject, tag, gone=gone)

    def referrers(
        self, subject: Digest, artifact_type: str | None = None
    ) -> tuple[oci.Descriptor, ...]:
        """Return what points at *subject*, by API and fallback tag, sorted by digest.

        With *artifact_type*, those of that type only, which their manifests decide: lists often
        give another one (the config's media type, say) or none.
        """
        by_api = _from_api(self, subject)
        found = {item.digest: item for item in by_api or ()}
        tagged = _at_tag(self, subject, oci.fallback_tag(subject))
        if tagged is None or (not tagged and by_api is None):
            tagged = _at_tag(self, subject, oci.own_tag(subject))
        found |= {item.digest: item for item in tagged or ()}
        listed = [found[digest] for digest in sorted(found)]
        if artifact_type is None:
            return tuple(listed)
        typed = (_typed(self, item, artifact_type) for item in listed)
        return tuple(item for item in typed if item is not None)

    def check_attachable(self, subject: Digest) -> None:
        """Raise ``CouldNotCheck`` where one more could not be listed; ask before signing.

        Where a list is there already and no API is, the list is written again, with the same
        members.
        """
        if _from_api(self, subject) is not None:
            return
        with _ONE_WRITER:
            for tag in (oci.fallback_tag(subject), oci.own_tag(subject)):
                present = _at_tag(self, subject, tag, writing=True)
                if not present:
                    continue
                again = oci.Index(present).dump() + b"\n"
                try:
                    self.put_manifest(again, oci.MediaType.INDEX, tag)
                except NotTaken as error:
                    raise NotTaken(error.message, hint=_IMMUTABLE) from error
                marked = _marked(self, subject, 0)
                known = [item.digest for item in present]
                _settle(self, subject, tag, [*_lacking(self, subject, marked, known)])

    def wait(self, attempt: int) -> None:
        """Let other writers finish: what they had read before our write, they write by now."""
        if (delay := self._session.patience.delay(attempt)) is not None:
            self._session.patience.sleep(delay)
