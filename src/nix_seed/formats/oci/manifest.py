"""Descriptors and the documents made of them (OCI image specification 1.1).

Reading is strict about what the project relies on (digests, sizes, types) and keeps quiet about
members it does not know, as the specification asks of implementations.

The tag under which a subject's referrers are listed (distribution specification 1.1).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from nix_seed.core import canonical_json
from nix_seed.core.digests import Digest
from nix_seed.core.errors import InputError
from nix_seed.formats.oci import media_types


@dataclass(frozen=True, slots=True)
class Platform:
    """``os``, ``architecture`` and, for some, ``variant`` (image-index.md)."""

    os: str
    architecture: str
    variant: str | None = None

    @classmethod
    def from_json(cls, value: Any, where: str) -> Self:
        """Read a ``platform`` object; *where* names it in errors."""
        variant = _get(value, "variant", str, where, optional=True)
        return cls(_get(value, "os", str, where), _get(value, "architecture", str, where), variant)

    def to_json(self) -> dict[str, Any]:
        """Return the object as the specification spells it."""
        value = {"os": self.os, "architecture": self.architecture}
        return value if self.variant is None else value | {"variant": self.variant}


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Names bytes by media type, digest and size in bytes (descriptor.md)."""

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    platform: Platform | None = None
    artifact_type: str | None = None

    @classmethod
    def from_json(cls, value: Any, where: str) -> Self:
        """Read a descriptor; *where* names it in errors."""
        size = _get(value, "size", int, where)
        if size < 0:
            raise InputError(f"{where}: size is negative")
        platform = _get(value, "platform", dict, where, optional=True)
        return cls(
            media_type=_get(value, "mediaType", str, where),
            digest=Digest.parse(_get(value, "digest", str, where)),
            size=size,
            annotations=_annotations(value, where),
            platform=None if platform is None else Platform.from_json(platform, where),
            artifact_type=_get(value, "artifactType", str, where, optional=True),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the object as the specification spells it, without empty members."""
        value: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": str(self.digest),
            "size": self.size,
        }
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        if self.platform is not None:
            value["platform"] = self.platform.to_json()
        if self.artifact_type is not None:
            value["artifactType"] = self.artifact_type
        return value


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image manifest (manifest.md)."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str | None = None
    subject: Descriptor | None = None

    @classmethod
    def parse(cls, text: bytes, what: str) -> Self:
        """Read the bytes of a manifest; *what* names it in errors."""
        value = _document(text, media_types.MANIFEST, what)
        subject = _get(value, "subject", dict, what, optional=True)
        return cls(
            config=Descriptor.from_json(_get(value, "config", dict, what), f"{what}, config"),
            layers=_descriptors(value, "layers", what),
            annotations=_annotations(value, what),
            artifact_type=_get(value, "artifactType", str, what, optional=True),
            subject=None if subject is None else Descriptor.from_json(subject, f"{what}, subject"),
        )

    def dump(self) -> bytes:
        """Return the canonical bytes, the ones a digest is taken of."""
        value: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": media_types.MANIFEST,
            "config": self.config.to_json(),
            "layers": [layer.to_json() for layer in self.layers],
        }
        if self.artifact_type is not None:
            value["artifactType"] = self.artifact_type
        if self.subject is not None:
            value["subject"] = self.subject.to_json()
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        return canonical_json.dumps(value)


@dataclass(frozen=True, slots=True)
class Index:
    """An image index (image-index.md)."""

    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str | None = None

    @classmethod
    def parse(cls, text: bytes, what: str) -> Self:
        """Read the bytes of an index; *what* names it in errors."""
        value = _document(text, media_types.INDEX, what)
        return cls(
            manifests=_descriptors(value, "manifests", what),
            annotations=_annotations(value, what),
            artifact_type=_get(value, "artifactType", str, what, optional=True),
        )

    def dump(self) -> bytes:
        """Return the canonical bytes, the ones a digest is taken of."""
        value: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": media_types.INDEX,
            "manifests": [manifest.to_json() for manifest in self.manifests],
        }
        if self.artifact_type is not None:
            value["artifactType"] = self.artifact_type
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        return canonical_json.dumps(value)


def _document(text: bytes, media_type: str, what: str) -> Any:
    value = canonical_json.loads(text, what=what)
    if _get(value, "schemaVersion", int, what) != 2:
        raise InputError(f"{what}: schemaVersion is not 2")
    # The member may be absent (image-spec 1.0); present, it must agree with how it is being read.
    if _get(value, "mediaType", str, what, optional=True) not in (None, media_type):
        raise InputError(f"{what}: mediaType is not {media_type}")
    return value


def _descriptors(value: Any, key: str, where: str) -> tuple[Descriptor, ...]:
    items = _get(value, key, list, where)
    return tuple(
        Descriptor.from_json(item, f"{where}, {key}[{position}]")
        for position, item in enumerate(items)
    )


def _annotations(value: Any, where: str) -> dict[str, str]:
    found = _get(value, "annotations", dict, where, optional=True) or {}
    if not all(isinstance(text, str) for text in found.values()):
        raise InputError(f"{where}: annotations must be strings")
    return dict(found)


def _get(value: Any, key: str, kind: type, where: str, *, optional: bool = False) -> Any:
    if not isinstance(value, dict):
        raise InputError(f"{where}: an object is wanted, not {type(value).__name__}")
    found = value.get(key)
    if found is None and optional:
        return None
    if not isinstance(found, kind) or isinstance(found, bool):
        raise InputError(f"{where}: {key} must be {_NAMES[kind]}")
    return found


_NAMES = {str: "a string", int: "an integer", dict: "an object", list: "an array"}

_TAG = re.compile(r"sha256-[0-9a-f]{64}(\.[a-z]+(-[a-z]+)*)?\Z")


def fallback_tag(subject: Digest) -> str:
    """Return ``sha256-<hex>``, the tag of the subject's list of referrers."""
    return f"sha256-{subject.hex}"


def own_tag(subject: Digest) -> str:
    """Return the list's tag where a registry takes ``sha256-<hex>`` for the digest itself."""
    return f"{fallback_tag(subject)}.nix-seed"


def lists_referrers(tag: str | None) -> bool:
    """Whether *tag* is such a tag, or one of cosign's older kind (``….att``, ``….sig``)."""
    return tag is not None and _TAG.match(tag) is not None


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
