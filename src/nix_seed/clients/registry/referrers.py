"""What points at a manifest (distribution specification 1.1, "Listing Referrers").

By the referrers API, and by the fallback tag ``sha256-<hex>``: an index that clients keep up to
date themselves. Reading takes both together. Writing keeps the tag in any case, because a registry
may be mirrored to one without the API.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import quote

from nix_seed.clients.registry.auth import Scope
from nix_seed.clients.registry.session import Request
from nix_seed.formats.oci import media_types
from nix_seed.formats.oci.descriptor import Descriptor, Index, Manifest
from nix_seed.formats.oci.referrers import fallback_tag
from nix_seed.ground.digests import Digest
from nix_seed.ground.errors import CouldNotCheck

if TYPE_CHECKING:
    from nix_seed.clients.registry.client import Repository

__all__ = ["add_to_fallback", "list_referrers"]

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
