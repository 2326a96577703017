"""What an image says of itself: its last layer, its configuration and its manifest.

The last layer makes a closure a system: the files the recipe asks for, the Nix database of exactly
the paths in the image, and the spec itself. All three are pure functions of the spec and the other
layers.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nix_seed.core import canonical_json
from nix_seed.core.digests import DiffID, Digest
from nix_seed.core.errors import InputError
from nix_seed.flake.rules.outline import CONTENTS_PATH, SPEC_PATH, File
from nix_seed.formats.nix.database import SCHEMA_VERSION, build_database
from nix_seed.formats.oci import manifest as oci
from nix_seed.formats.oci import tar
from nix_seed.formats.oci.manifest import MediaType
from nix_seed.image.rules.contents import dump_contents
from nix_seed.image.rules.spec import Spec

_STATE = ("gcroots", "profiles", "temproots", "userpool")
# What Nix writes to, or makes directories in, beside its state.
_WRITTEN = ("nix/store", "nix/var", "nix/var/nix", "nix/var/nix/db")


def container_entries(spec: Spec, contents: Sequence[bytes]) -> tuple[tar.TarEntry, ...]:
    """Return the entries of the last layer of the image that *spec* describes.

    *contents* are the other layers' parts of the table of contents, which an image may have.
    """
    entries = [_entry(file) for file in spec.files]
    entries.append(tar.TarEntry(SPEC_PATH.encode(), tar.FILE, 0o444, spec.dump()))
    if spec.has_contents:
        table = dump_contents(contents)
        entries.append(tar.TarEntry(CONTENTS_PATH.encode(), tar.FILE, 0o444, table))
    entries += _database(spec)
    if spec.any_user:
        entries += [tar.TarEntry(name.encode(), tar.DIRECTORY, 0o1777) for name in _WRITTEN]
    return tuple(entries)


def container_key(spec: Spec) -> str:
    """Return what the last layer is cached under; the spec's narHash decides its bytes."""
    return hashlib.sha256(f"nix-seed/container/v1\0{spec.nar_hash}".encode()).hexdigest()


def _entry(file: File) -> tar.TarEntry:
    name = file.path.encode()
    if file.link is not None:
        return tar.TarEntry(name, tar.SYMLINK, 0o777, file.link.encode())
    if file.text is not None:
        return tar.TarEntry(name, tar.FILE, int(file.mode or "0644", 8), file.text.encode())
    return tar.TarEntry(name, tar.DIRECTORY, int(file.mode or "0755", 8))


def _database(spec: Spec) -> Iterator[tar.TarEntry]:
    """Yield Nix's state: a valid store from the first moment, with nothing to import."""
    database = build_database(spec.registrable(path) for path in sorted(spec.paths))
    file_mode, mode = (0o666, 0o1777) if spec.any_user else (0o644, 0o755)
    yield tar.TarEntry(b"nix/var/nix/db/db.sqlite", tar.FILE, file_mode, database)
    yield tar.TarEntry(b"nix/var/nix/db/schema", tar.FILE, 0o644, SCHEMA_VERSION)
    for name in _STATE:
        yield tar.TarEntry(f"nix/var/nix/{name}".encode(), tar.DIRECTORY, mode)


CONTAINER_TIER = "container"

# Nix's own notion of no time; a zero would be read as absent by some engines.
_CREATED = "1970-01-01T00:00:01Z"


@dataclass(frozen=True, slots=True)
class ImageDocuments:
    """The bytes of the configuration and of the manifest; ``digest`` is the image's."""

    config: bytes
    manifest: bytes
    platform: oci.Platform

    @property
    def digest(self) -> Digest:
        """The digest by which the image is known."""
        return Digest.of(self.manifest)


def build_image(spec: Spec, layers: Sequence[tuple[oci.Descriptor, DiffID]]) -> ImageDocuments:
    """Compose the documents; *layers* are finished, in the order of the spec, the last included."""
    if len(layers) != len(spec.layers) + 1:
        raise InputError(f"{len(layers)} layers given for a spec of {len(spec.layers) + 1}")
    platform = oci.platform_of(spec.system)
    tiers = [group.tier for group in spec.layers] + [CONTAINER_TIER]
    config = canonical_json.dumps(_config(spec, platform, tiers, [diff for _, diff in layers]))
    manifest = oci.Manifest(
        config=oci.Descriptor(MediaType.CONFIG, Digest.of(config), len(config)),
        layers=tuple(
            oci.Descriptor(layer.media_type, layer.digest, layer.size, {oci.ANNOTATION_TIER: tier})
            for (layer, _), tier in zip(layers, tiers, strict=True)
        ),
        annotations=_annotations(spec),
    )
    return ImageDocuments(config, manifest.dump(), platform)


def _annotations(spec: Spec) -> Mapping[str, str]:
    return {
        oci.ANNOTATION_FORMAT: str(spec.format),
        oci.ANNOTATION_KIND: spec.kind,
        oci.ANNOTATION_NAME: spec.name,
        oci.ANNOTATION_NAR_HASH: str(spec.nar_hash),
        oci.ANNOTATION_SYSTEM: spec.system,
    }


def _config(
    spec: Spec, platform: oci.Platform, tiers: Sequence[str], diff_ids: Sequence[DiffID]
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
