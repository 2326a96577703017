"""Descriptors, the documents made of them, and the tag that lists referrers (OCI, 1.1).

Reading is strict about what the project relies on (digests, sizes, types) and keeps quiet about
members it does not know, as the specification asks of implementations.
"""

import re
from collections.abc import Mapping
from dataclasses import field, fields
from typing import Any, ClassVar, Final, Self

from nix_seed.core.declared import Declared, at, read, write
from nix_seed.core.digests import Digest
from nix_seed.core.errors import InputError
from nix_seed.core.values import dataclass


class MediaType:
    """Media types of the OCI image specification 1.1 that the project writes or reads."""

    INDEX: Final = "application/vnd.oci.image.index.v1+json"
    MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
    CONFIG: Final = "application/vnd.oci.image.config.v1+json"
    LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
    LAYER_GZIP: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
    LAYER_ZSTD: Final = "application/vnd.oci.image.layer.v1.tar+zstd"
    EMPTY: Final = "application/vnd.oci.empty.v1+json"


@dataclass(frozen=True, slots=True)
class Platform(Declared):
    """``os``, ``architecture`` and, for some, ``variant`` (image-index.md)."""

    loose: ClassVar = True

    os: str
    architecture: str
    variant: str | None = field(default=None, metadata=at(omit=True))


@dataclass(frozen=True, slots=True)
class Descriptor(Declared):
    """Names bytes by media type, digest and size in bytes (descriptor.md)."""

    loose: ClassVar = True

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict, metadata=at(omit=True))
    platform: Platform | None = field(default=None, metadata=at(omit=True))
    artifact_type: str | None = field(default=None, metadata=at(omit=True))

    @classmethod
    def of(cls, media_type: str, body: bytes, **more: Any) -> Self:
        """Name *body* by its digest and size; *more* are further fields."""
        return cls(media_type, Digest.of(body), len(body), **more)


DOCKERS: Final = {
    "application/vnd.docker.distribution.manifest.v2+json": MediaType.MANIFEST,
    "application/vnd.docker.distribution.manifest.list.v2+json": MediaType.INDEX,
}
"""Docker's own types, each with the one of OCI that took its place."""

EMPTY: Final = b"{}"
"""What lies where nothing has to: a blob of ``MediaType.EMPTY``."""


@dataclass(frozen=True, slots=True)
class _Head(Declared):
    loose: ClassVar = True

    schema_version: int
    media_type: str | None


class _Document(Declared):
    """A manifest or an index: of version 2, and of the one type that it is read as."""

    __slots__ = ()
    loose: ClassVar = True
    type: ClassVar[str]

    @classmethod
    def from_json(cls, value: Any, where: str) -> Self:
        """Read the object; the type may be absent (image-spec 1.0)."""
        head = read(_Head, value, where)
        if head.schema_version != 2:
            raise InputError(f"{where}: schemaVersion is not 2")
        if head.media_type not in (None, cls.type):
            raise InputError(f"{where}: mediaType is not {cls.type}")
        return read(cls, value, where)

    def to_json(self) -> dict[str, Any]:
        """Return the object as the specification spells it, without empty members."""
        return write(self) | {"schemaVersion": 2, "mediaType": self.type}


@dataclass(frozen=True, slots=True)
class Manifest(_Document):
    """An image manifest (manifest.md)."""

    type: ClassVar = MediaType.MANIFEST

    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict, metadata=at(omit=True))
    artifact_type: str | None = field(default=None, metadata=at(omit=True))
    subject: Descriptor | None = field(default=None, metadata=at(omit=True))

    @property
    def kind(self) -> str:
        """The type of artifact that it is; its configuration's where it says none."""
        return self.artifact_type or self.config.media_type


@dataclass(frozen=True, slots=True)
class Index(_Document):
    """An image index (image-index.md)."""

    type: ClassVar = MediaType.INDEX

    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict, metadata=at(omit=True))
    artifact_type: str | None = field(default=None, metadata=at(omit=True))


_TAG = re.compile(r"sha256-[0-9a-f]{64}(\.[a-z]+(-[a-z]+)*|\.[0-9a-f]{16})?\Z")
MARK = 16
"""Digits of a manifest's digest in the tag that marks it as attached."""


def fallback_tag(subject: Digest) -> str:
    """Return ``sha256-<hex>``, the tag of the subject's list of referrers."""
    return f"sha256-{subject.hex}"


def own_tag(subject: Digest) -> str:
    """Return the list's tag where a registry takes ``sha256-<hex>`` for the digest itself."""
    return f"{fallback_tag(subject)}.nix-seed"


def mark_tag(subject: Digest, referrer: Digest) -> str:
    """Return the tag that *referrer* alone has, by which it is found where its list lost it."""
    return f"{fallback_tag(subject)}.{referrer.hex[:MARK]}"


def lists_referrers(tag: str | None) -> bool:
    """Whether *tag* is one of these, or one of cosign's older kind (``….att``, ``….sig``)."""
    return tag is not None and _TAG.match(tag) is not None


def subject_listed(tag: str) -> Digest | None:
    """Return whose referrers are listed at *tag*, None for any other tag."""
    algorithm, _, value = tag.partition("-")
    if algorithm != "sha256" or re.fullmatch("[0-9a-f]{64}", value) is None:
        return None
    return Digest(value)


TITLE = "org.opencontainers.image.title"
LICENSES = "org.opencontainers.image.licenses"


@dataclass(frozen=True, slots=True)
class About:
    """What a document says of itself to registries and people; empty where nothing is known.

    *created* is the time of the commit, or of the build: RFC 3339. Never on an image's manifest:
    images of several commits are one image.
    """

    source: str = ""
    revision: str = ""
    created: str = ""
    licenses: str = ""

    def annotations(self) -> dict[str, str]:
        """Return the annotations that the specification has for it (annotations.md).

        The title is the repository's name.
        """
        source = self.source.removeprefix("git+")
        title = source.rstrip("/").rpartition("/")[2].removesuffix(".git")
        said = {each.name: getattr(self, each.name) for each in fields(self)}
        said |= {"source": source, "title": title}
        return {f"org.opencontainers.image.{name}": text for name, text in said.items() if text}


UNSAID = About()

_PREFIX = "io.nix-seed."
ANNOTATION_FORMAT = _PREFIX + "format"
ANNOTATION_KIND = _PREFIX + "kind"
ANNOTATION_NAME = _PREFIX + "name"
ANNOTATION_NAR_HASH = _PREFIX + "nar-hash"
ANNOTATION_SYSTEM = _PREFIX + "system"
ANNOTATION_TIER = _PREFIX + "tier"
# Not in the image, for two recipes may have one image: on the descriptor that names it.
ANNOTATION_INPUT_KEY = _PREFIX + "input-key"
ANNOTATION_EXPORTED = _PREFIX + "exported-from"

_ARCHITECTURES = {
    "x86_64": ("amd64", None),
    "aarch64": ("arm64", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i686": ("386", None),
    "riscv64": ("riscv64", None),
    "powerpc64le": ("ppc64le", None),
    "s390x": ("s390x", None),
}


def platform_of(system: str) -> Platform:
    """Translate Nix's ``aarch64-linux`` to OCI's ``linux/arm64/v8``."""
    machine, _, os = system.partition("-")
    if machine not in _ARCHITECTURES or os not in ("linux", "darwin"):
        raise InputError(
            f"{system} has no OCI platform",
            hint=f"machines: {', '.join(_ARCHITECTURES)}; with -linux or -darwin",
        )
    return Platform(os, *_ARCHITECTURES[machine])
