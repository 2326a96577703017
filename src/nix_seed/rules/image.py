"""The documents of an image: its configuration and manifest, from the spec and finished layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nix_seed.formats.oci import media_types
from nix_seed.formats.oci.descriptor import Descriptor, Manifest, Platform
from nix_seed.ground import canonical_json
from nix_seed.ground.digests import DiffID, Digest
from nix_seed.ground.errors import InputError
from nix_seed.rules.format import FORMAT

if TYPE_CHECKING:
    from nix_seed.rules.spec import Spec

__all__ = [
    "ANNOTATION_FORMAT",
    "ANNOTATION_INPUT_KEY",
    "ANNOTATION_KIND",
    "ANNOTATION_NAME",
    "ANNOTATION_NAR_HASH",
    "ANNOTATION_SYSTEM",
    "ANNOTATION_TIER",
    "CONTAINER_TIER",
    "ImageDocuments",
    "build_image",
    "platform_of",
]

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

CONTAINER_TIER = "container"

# Nix's own notion of no time; a zero would be read as absent by some engines.
_CREATED = "1970-01-01T00:00:01Z"

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


@dataclass(frozen=True, slots=True)
class ImageDocuments:
    """The bytes of the configuration and of the manifest; ``digest`` is the image's."""

    config: bytes
    manifest: bytes
    platform: Platform

    @property
    def digest(self) -> Digest:
        """The digest by which the image is known."""
        return Digest.of(self.manifest)


def build_image(spec: Spec, layers: Sequence[tuple[Descriptor, DiffID]]) -> ImageDocuments:
    """Compose the documents; *layers* are finished, in the order of the spec, the last included."""
    if len(layers) != len(spec.layers) + 1:
        raise InputError(f"{len(layers)} layers given for a spec of {len(spec.layers) + 1}")
    platform = platform_of(spec.system)
    tiers = [group.tier for group in spec.layers] + [CONTAINER_TIER]
    config = canonical_json.dumps(_config(spec, platform, tiers, [diff for _, diff in layers]))
    manifest = Manifest(
        config=Descriptor(media_types.CONFIG, Digest.of(config), len(config)),
        layers=tuple(
            Descriptor(layer.media_type, layer.digest, layer.size, {ANNOTATION_TIER: tier})
            for (layer, _), tier in zip(layers, tiers, strict=True)
        ),
        annotations=_annotations(spec),
    )
    return ImageDocuments(config, manifest.dump(), platform)


def platform_of(system: str) -> Platform:
    """Translate Nix's ``aarch64-linux`` to OCI's ``linux/arm64/v8``."""
    machine, _, os = system.partition("-")
    if machine not in _ARCHITECTURES or os not in ("linux", "darwin"):
        raise InputError(
            f"{system} has no OCI platform",
            hint=f"machines: {', '.join(_ARCHITECTURES)}; with -linux or -darwin",
        )
    return Platform(os, *_ARCHITECTURES[machine])


def _annotations(spec: Spec) -> Mapping[str, str]:
    return {
        ANNOTATION_FORMAT: str(FORMAT),
        ANNOTATION_KIND: spec.kind,
        ANNOTATION_NAME: spec.name,
        ANNOTATION_NAR_HASH: str(spec.nar_hash),
        ANNOTATION_SYSTEM: spec.system,
    }


def _config(
    spec: Spec, platform: Platform, tiers: Sequence[str], diff_ids: Sequence[DiffID]
) -> dict[str, Any]:
    return platform.to_json() | {
        "created": _CREATED,
        "config": _container_config(spec),
        "rootfs": {"type": "layers", "diff_ids": [str(diff) for diff in diff_ids]},
        "history": [
            {"created": _CREATED, "created_by": "nix-seed", "comment": comment}
            for comment in _comments(spec, tiers)
        ],
    }


def _container_config(spec: Spec) -> dict[str, Any]:
    given = spec.config
    config: dict[str, Any] = {
        "Env": [f"{name}={value}" for name, value in sorted(given.env.items())],
        "Labels": dict(given.labels) | dict(_annotations(spec)),
    }
    members = {
        "Entrypoint": list(given.entrypoint),
        "Cmd": list(given.cmd),
        "WorkingDir": given.working_dir,
        "User": given.user,
    }
    return config | {name: value for name, value in members.items() if value}


def _comments(spec: Spec, tiers: Sequence[str]) -> list[str]:
    """Name each layer for ``docker history``: its tier and its largest packages."""
    comments = []
    for group in spec.layers:
        largest = sorted(group.paths, key=lambda path: (-spec.paths[path].nar_size, path))
        names = ", ".join(path.name for path in largest[:3])
        more = f" and {len(largest) - 3} more" if len(largest) > 3 else ""
        comments.append(f"{group.tier}: {names}{more}")
    return [*comments, f"{tiers[-1]}: files, Nix database, seed.json"]
