"""What points at a manifest (distribution specification 1.1, "Listing Referrers").

By the referrers API, and by the fallback tag ``sha256-<hex>``: an index that clients keep up to
date themselves. Reading takes both together. Writing keeps the tag in any case, because a registry
may be mirrored to one without the API.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from nix_seed.clients.registry.auth import Scope
from nix_seed.clients.registry.session import Request
from nix_seed.formats.oci import media_types
from nix_seed.formats.oci.descriptor import Descriptor, Index
from nix_seed.ground.digests import Digest
from nix_seed.ground.errors import CouldNotCheck

if TYPE_CHECKING:
    from nix_seed.clients.registry.client import Repository

__all__ = ["add_to_fallback", "fallback_tag", "list_referrers"]

_ROUNDS = 5


def fallback_tag(subject: Digest) -> str:
    """Return ``sha256-<hex>``, the tag of the subject's list of referrers."""
    return f"sha256-{subject.hex}"


def list_referrers(
    repository: Repository, subject: Digest, artifact_type: str | None = None
) -> tuple[Descriptor, ...]:
    """Return the descriptors of what has *subject* as its subject, sorted by digest.

    *artifact_type* keeps those of one type; an artifact type missing in a list keeps the entry,
    because fallback lists written by others often lack it: the manifest decides.
    """
    found = {item.digest: item for item in _from_tag(repository, subject)}
    found |= {item.digest: item for item in _from_api(repository, subject)}
    return tuple(
        found[digest]
        for digest in sorted(found)
        if artifact_type is None or found[digest].artifact_type in (None, artifact_type)
    )


def add_to_fallback(repository: Repository, subject: Digest, referrer: Descriptor) -> None:
    """Put *referrer* on the list at the subject's fallback tag: read, merge, write, read again.

    The protocol knows no compare-and-swap: another writer may overwrite what was just written,
    which the last read shows, and it is written again.
    """
    tag = fallback_tag(subject)
    for attempt in range(_ROUNDS):
        present = _from_tag(repository, subject)
        if any(item.digest == referrer.digest for item in present):
            return
        merged = sorted((*present, referrer), key=lambda item: item.digest)
        repository.put_manifest(Index(tuple(merged)).dump(), media_types.INDEX, tag)
        repository.wait(attempt)
    if not any(item.digest == referrer.digest for item in _from_tag(repository, subject)):
        raise CouldNotCheck(
            f"{repository}:{tag} is being rewritten by others; the referrer "
            f"{referrer.digest} is pushed, but not on that list",
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
