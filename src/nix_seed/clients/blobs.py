"""What an image layout on disk and a repository of a registry have in common.

Flows move images between any two of these and never ask which they have.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from nix_seed.formats.oci import media_types
from nix_seed.formats.oci.descriptor import Descriptor, Manifest
from nix_seed.ground.digests import Digest
from nix_seed.ground.errors import InputError

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = ["BlobSource", "Fetched", "Held", "ImageStore", "referrer_entry"]


@dataclass(frozen=True, slots=True)
class Held:
    """The first *size* bytes of a blob, already here; *state* has hashed them."""

    size: int = 0
    state: _Hash = field(default_factory=hashlib.sha256)


@dataclass(frozen=True, slots=True)
class Fetched:
    """A manifest's or index's exact bytes, and the descriptor they were found to have."""

    descriptor: Descriptor
    body: bytes


BlobSource = Callable[[Held], Iterator[bytes]]
"""Yields the rest of a blob after what is held; each call begins anew."""


class ImageStore(Protocol):
    """Holds manifests, blobs and tags; ``str`` of it is its name for people."""

    def head_manifest(self, name: str | Digest) -> Descriptor | None:
        """Return what the store says *name* is, unverified; None if there is no such manifest."""
        ...

    def get_manifest(self, name: str | Digest) -> Fetched | None:
        """Return the manifest with this tag or digest, verified; None if there is none."""
        ...

    def put_manifest(
        self, body: bytes, media_type: str, name: str | Digest | None = None
    ) -> Descriptor:
        """Store a manifest whose blobs are there already, under a tag if *name* is one."""
        ...

    def has_blob(self, digest: Digest) -> bool:
        """Whether the blob is there, whole."""
        ...

    def open_blob(self, blob: Descriptor, held: Held | None = None) -> Iterator[bytes]:
        """Yield the blob after what is *held*; right if, and only if, the iterator ends."""
        ...

    def read_range_unverified(self, blob: Descriptor, start: int, length: int) -> bytes:
        """Return part of a blob; the caller must have a proof of its own."""
        ...

    def take_blob(self, blob: Descriptor, source: BlobSource) -> bool:
        """Store a blob from elsewhere; nothing shows unless all of it is as *blob* says.

        False where no bytes had to be moved for that.
        """
        ...

    def list_tags(self) -> tuple[str, ...]:
        """Return every tag, sorted."""
        ...

    def attach(self, body: bytes) -> Descriptor:
        """Store a manifest that has a ``subject``, and list it among the subject's referrers."""
        ...

    def referrers(
        self, subject: Digest, artifact_type: str | None = None
    ) -> tuple[Descriptor, ...]:
        """Return what points at *subject*, sorted by digest; with a type, what is of that type."""
        ...


def referrer_entry(body: bytes) -> tuple[Descriptor, Digest]:
    """Return how the manifest *body* is listed as a referrer, and the digest of its subject."""
    manifest = Manifest.parse(body, "the referrer to be stored")
    if manifest.subject is None:
        raise InputError("the manifest to be attached names no subject")
    entry = Descriptor(
        media_types.MANIFEST,
        Digest.of(body),
        len(body),
        annotations=manifest.annotations,
        artifact_type=manifest.artifact_type or manifest.config.media_type,
    )
    return entry, manifest.subject.digest
