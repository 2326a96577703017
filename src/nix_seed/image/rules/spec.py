"""The seed spec, ``seed.json``: what commits to every byte of an image (docs/image.md).

RFC 8785 canonical JSON without commit, time or host. Its NAR hash is the narHash of the seed, which
anyone can recompute from an image, where it lies at ``/etc/nix-seed/seed.json``.

What an image says of itself: its last layer, its configuration and its manifest.

The last layer makes a closure a system: the files the recipe asks for, the Nix database of exactly
the paths in the image, and the spec itself. All three are pure functions of the spec and the other
layers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, replace
from typing import Annotated, Any, ClassVar, Literal, Self

import msgspec

from nix_seed.core import canonical_json
from nix_seed.core.declared import Codec, Declared, at, codec_of
from nix_seed.core.digests import DiffID, Digest, NarHash
from nix_seed.core.errors import InputError, foreign
from nix_seed.core.values import dataclass
from nix_seed.core.version import FORMAT
from nix_seed.flake.rules.choice import FlakeChoice
from nix_seed.flake.rules.outline import CONTENTS_PATH, SPEC_PATH, File, ImageConfig, check_files
from nix_seed.formats.nix.database import SCHEMA_VERSION, build_database
from nix_seed.formats.nix.nar import nar_hash_of_file
from nix_seed.formats.nix.store_path import PathInfo, StorePath
from nix_seed.formats.oci import manifest as oci, tar
from nix_seed.image.rules.contents import dump_contents
from nix_seed.image.rules.frames import Compressor
from nix_seed.image.rules.partition.plan import Group
from nix_seed.licences.rules.judge import UnknownLicence, Withheld

# Images of format 1 have no table of contents, and are used all the same.
_FORMATS = (1, FORMAT)


def _outlined(kind: Any) -> Codec:
    """Return how what an outline says as *kind* stands in a spec."""

    def read(found: Any, name: str, where: str) -> Any:
        with foreign(f"{where}: {name}", msgspec.ValidationError, as_=InputError):
            return msgspec.convert(found, kind)

    return Codec(read, msgspec.to_builtins)


@dataclass(frozen=True, slots=True)
class _PathEntry:
    """What is said of a path under its name."""

    closed: ClassVar = True

    nar_hash: NarHash
    nar_size: int
    references: tuple[str, ...]


_ENTRIES = codec_of(Mapping[str, _PathEntry])


def _read_paths(*found: Any) -> Mapping[StorePath, PathInfo]:
    entries = _ENTRIES.read(*found)
    # Most references are to what is read here anyway, and parsing them takes longest.
    known = {text: StorePath.parse(text) for text in entries}
    paths = {}
    for text, each in entries.items():
        references = tuple(known.get(path) or StorePath.parse(path) for path in each.references)
        paths[known[text]] = PathInfo(known[text], each.nar_hash, each.nar_size, references)
    return paths


def _write_paths(paths: Mapping[StorePath, PathInfo]) -> Any:
    return _ENTRIES.write(
        {
            str(path): _PathEntry(
                each.nar_hash, each.nar_size, tuple(map(str, sorted(each.references)))
            )
            for path, each in paths.items()
        }
    )


@dataclass(frozen=True, slots=True)
class Spec(Declared):
    """One image, entirely.

    ``tiers`` names them in order, ``paths`` holds every store path of the image, ``layers`` says
    which lie in which layer (without the last, the container's own), ``inputs`` names the flake
    inputs' source trees. With ``any_user`` everyone may write to the store and its database.
    ``excluded`` are outputs of the flake, and kinds, that whoever had it made left out.
    ``format`` is the number of the rules that its bytes follow.
    """

    closed: ClassVar = True

    kind: Literal["seed", "run"]
    name: str
    system: str
    config: Annotated[ImageConfig, _outlined(ImageConfig)]
    files: Annotated[tuple[File, ...], _outlined(tuple[File, ...])]
    inputs: Mapping[str, str]
    tiers: tuple[str, ...]
    paths: Annotated[Mapping[StorePath, PathInfo], Codec(_read_paths, _write_paths)]
    layers: tuple[Group, ...]
    compressor: Compressor
    withheld: tuple[Withheld, ...] = ()
    # Written only where they say something: a spec without is what it always was.
    unknown: tuple[UnknownLicence, ...] = field(default=(), metadata=at(omit=True))
    any_user: bool = field(default=False, metadata=at(omit=True))
    excluded: tuple[str, ...] = field(default=(), metadata=at(omit=True))
    format: int = FORMAT
    _text: bytes | None = field(default=None, init=False, compare=False, repr=False)

    def dump(self) -> bytes:
        """Return the bytes of ``seed.json``."""
        return self._text or canonical_json.dumps(self.to_json())

    def choice(self, attr: str | None) -> FlakeChoice:
        """Return what to ask a flake for, whose attribute *attr* made it, to have it again."""
        return FlakeChoice(self.kind, attr, self.system, self.excluded)

    @property
    def has_contents(self) -> bool:
        """Whether the last layer holds a table of contents."""
        return self.format > 1 and self.compressor.name == "zstd"

    def largest(self, paths: Iterable[StorePath]) -> list[StorePath]:
        """Return *paths* of it, the largest first."""
        return sorted(paths, key=lambda path: (-self.paths[path].nar_size, path))

    def registrable(self, path: StorePath) -> PathInfo:
        """Return what a store can be told of *path* while it lacks what was withheld.

        Nix's database knows no reference to what is not there. Whoever adds what was withheld
        registers what refers to it again (``use/withheld.py``).
        """
        info = self.paths[path]
        inside = tuple(reference for reference in info.references if reference in self.paths)
        return info if inside == info.references else replace(info, references=inside)

    @property
    def nar_hash(self) -> NarHash:
        """The narHash of the seed: of the NAR of ``seed.json``."""
        return nar_hash_of_file(self.dump())

    @classmethod
    def parse(cls, text: bytes, label: str) -> Self:
        """Read ``seed.json`` in its canonical spelling; *label* names it in errors."""
        value = canonical_json.loads(text, label=label)
        if isinstance(value, dict) and value.get("format") not in _FORMATS:
            raise InputError(
                f"{label} is of format {value.get('format')!r};"
                f" this release reads formats 1 to {FORMAT}",
                hint="use the release of nix-seed that made it",
            )
        spec = cls.from_json(value, label)
        _check(spec, label)
        if spec.dump() != text:
            raise InputError(f"{label} is not in canonical form")
        # Spelling thousands of paths takes a while, and the narHash is asked for more than once.
        object.__setattr__(spec, "_text", text)
        return spec


def _check(spec: Spec, label: str) -> None:
    """Raise ``InputError`` where the parts of *spec* are not of one image."""
    paths, laid = spec.paths, [path for group in spec.layers for path in group.paths]
    if len(laid) != len(set(laid)) or set(laid) != set(paths):
        raise InputError(f"{label}: its layers do not hold each of its paths exactly once")
    if not {group.tier for group in spec.layers} <= set(spec.tiers):
        raise InputError(f"{label}: a layer is of a tier that is not listed")
    if any(list(group.paths) != sorted(group.paths) for group in spec.layers):
        raise InputError(f"{label}: the paths of a layer are not in order")
    withheld = frozenset(item.path for item in spec.withheld)
    if withheld & paths.keys() or len(withheld) != len(spec.withheld):
        raise InputError(f"{label}: what it calls withheld is in it, or is named twice")
    for info in paths.values():
        absent = [each for each in info.references if each not in paths and each not in withheld]
        if absent:
            raise InputError(f"{label}: {info.path} refers to {min(absent)}, which is not in it")
    unknown = [item.path for item in spec.unknown]
    if unknown != sorted(set(unknown)) or not set(unknown) <= paths.keys():
        raise InputError(f"{label}: what it calls of unknown licence is not in it, or not in order")
    check_files(spec.files)


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
    # Nix's state: a valid store from the first moment, with nothing to import.
    database = build_database(spec.registrable(path) for path in sorted(spec.paths))
    file_mode, mode = (0o666, 0o1777) if spec.any_user else (0o644, 0o755)
    entries.append(tar.TarEntry(b"nix/var/nix/db/db.sqlite", tar.FILE, file_mode, database))
    entries.append(tar.TarEntry(b"nix/var/nix/db/schema", tar.FILE, 0o644, SCHEMA_VERSION))
    for name in _STATE:
        entries.append(tar.TarEntry(f"nix/var/nix/{name}".encode(), tar.DIRECTORY, mode))
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
        config=oci.Descriptor.of(oci.MediaType.CONFIG, config),
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
    return platform.to_json() | {
        "created": _CREATED,
        "config": config | {name: value for name, value in members.items() if value},
        "rootfs": {"type": "layers", "diff_ids": [str(diff) for diff in diff_ids]},
        "history": [
            {"created": _CREATED, "created_by": "nix-seed", "comment": comment}
            for comment in _comments(spec, tiers)
        ],
    }


def _comments(spec: Spec, tiers: Sequence[str]) -> list[str]:
    """Name each layer for ``docker history``: its tier and its largest packages."""
    comments = []
    for group in spec.layers:
        largest = spec.largest(group.paths)
        names = ", ".join(path.name for path in largest[:3])
        more = f" and {len(largest) - 3} more" if len(largest) > 3 else ""
        comments.append(f"{group.tier}: {names}{more}")
    return [*comments, f"{tiers[-1]}: files, Nix database, seed.json"]
