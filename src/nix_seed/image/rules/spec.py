"""The seed spec, ``seed.json``: what commits to every byte of an image (docs/image.md).

RFC 8785 canonical JSON without commit, time or host. Its NAR hash is the narHash of the seed, which
anyone can recompute from an image, where it lies at ``/etc/nix-seed/seed.json``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

import msgspec

from nix_seed.core import canonical_json
from nix_seed.core.digests import NarHash
from nix_seed.core.errors import InputError
from nix_seed.core.format import FORMAT
from nix_seed.flake.rules.outline import File, ImageConfig, check_files
from nix_seed.formats.nix.nar import nar_hash_of_file
from nix_seed.formats.nix.store_path import PathInfo, StorePath
from nix_seed.image.rules.frames import Compressor
from nix_seed.image.rules.partition.plan import Group
from nix_seed.licences.rules.withheld import UnknownLicence, Withheld

# Images of format 1 have no table of contents, and are used all the same.
_FORMATS = (1, FORMAT)


@dataclass(frozen=True, slots=True)
class Spec:
    """One image, entirely.

    ``tiers`` names them in order, ``paths`` holds every store path of the image, ``layers`` says
    which lie in which layer (without the last, the container's own), ``inputs`` names the flake
    inputs' source trees. With ``any_user`` everyone may write to the store and its database.
    inputs' source trees. ``format`` is the number of the rules that its bytes follow.
    """

    kind: Literal["seed", "run"]
    name: str
    system: str
    config: ImageConfig
    files: tuple[File, ...]
    inputs: Mapping[str, str]
    tiers: tuple[str, ...]
    paths: Mapping[StorePath, PathInfo]
    layers: tuple[Group, ...]
    compressor: Compressor
    withheld: tuple[Withheld, ...] = field(default_factory=tuple)
    unknown: tuple[UnknownLicence, ...] = field(default_factory=tuple)
    any_user: bool = False
    format: int = FORMAT
    _text: bytes | None = field(default=None, init=False, compare=False, repr=False)

    def dump(self) -> bytes:
        """Return the bytes of ``seed.json``."""
        if self._text is not None:
            return self._text
        document = _Document(
            format=self.format,
            kind=self.kind,
            name=self.name,
            system=self.system,
            config=self.config,
            files=self.files,
            inputs=dict(self.inputs),
            tiers=self.tiers,
            paths={str(path): _PathEntry.of(info) for path, info in self.paths.items()},
            layers=tuple(
                _LayerEntry(group.tier, tuple(map(str, group.paths))) for group in self.layers
            ),
            compressor=self.compressor.to_json(),
            withheld=tuple(
                _WithheldEntry(str(item.path), item.name, item.licence, item.derivation, item.url)
                for item in self.withheld
            ),
            unknown=tuple(_UnknownEntry(str(item.path), item.licence) for item in self.unknown),
            any_user=self.any_user,
        )
        return canonical_json.dumps(msgspec.to_builtins(document))

    @property
    def has_contents(self) -> bool:
        """Whether the last layer holds a table of contents."""
        return self.format > 1 and self.compressor.name == "zstd"

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
        try:
            document = msgspec.convert(value, _Document)
        except msgspec.ValidationError as error:
            raise InputError(f"{label} is not a seed spec: {error}") from error
        spec = cls._of(document, label)
        if spec.dump() != text:
            raise InputError(f"{label} is not in canonical form")
        # Spelling thousands of paths takes a while, and the narHash is asked for more than once.
        object.__setattr__(spec, "_text", text)
        return spec

    @classmethod
    def _of(cls, document: _Document, label: str) -> Self:
        paths = {StorePath.parse(path): entry.info(path) for path, entry in document.paths.items()}
        layers = tuple(
            Group(entry.tier, tuple(map(StorePath.parse, entry.paths))) for entry in document.layers
        )
        _check_partition(paths, layers, document.tiers, label)
        withheld = frozenset(StorePath.parse(item.path) for item in document.withheld)
        if withheld & paths.keys() or len(withheld) != len(document.withheld):
            raise InputError(f"{label}: what it calls withheld is in it, or is named twice")
        _check_references(paths, withheld, label)
        unknown = tuple(
            UnknownLicence(StorePath.parse(item.path), item.licence) for item in document.unknown
        )
        _check_unknown([item.path for item in unknown], paths, label)
        check_files(document.files)
        return cls(
            kind=document.kind,
            name=document.name,
            system=document.system,
            config=document.config,
            files=document.files,
            inputs=document.inputs,
            tiers=document.tiers,
            paths=paths,
            layers=layers,
            compressor=Compressor.from_json(document.compressor, label),
            withheld=tuple(
                Withheld(
                    StorePath.parse(item.path), item.name, item.licence, item.derivation, item.url
                )
                for item in document.withheld
            ),
            unknown=unknown,
            any_user=document.any_user,
            format=document.format,
        )


def _check_partition(
    paths: Mapping[StorePath, PathInfo],
    layers: Sequence[Group],
    tiers: Sequence[str],
    label: str,
) -> None:
    """See that every path lies in exactly one layer of a known tier."""
    laid = [path for group in layers for path in group.paths]
    if len(laid) != len(set(laid)) or set(laid) != set(paths):
        raise InputError(f"{label}: its layers do not hold each of its paths exactly once")
    if not {group.tier for group in layers} <= set(tiers):
        raise InputError(f"{label}: a layer is of a tier that is not listed")
    if any(list(group.paths) != sorted(group.paths) for group in layers):
        raise InputError(f"{label}: the paths of a layer are not in order")


def _check_references(
    paths: Mapping[StorePath, PathInfo], withheld: frozenset[StorePath], label: str
) -> None:
    """See that the image is closed, but for what was withheld."""
    for info in paths.values():
        if info.nar_size < 0:
            raise InputError(f"{label}: {info.path} has a negative size")
        absent = [each for each in info.references if each not in paths and each not in withheld]
        if absent:
            raise InputError(f"{label}: {info.path} refers to {min(absent)}, which is not in it")


def _check_unknown(
    unknown: Sequence[StorePath], paths: Mapping[StorePath, PathInfo], label: str
) -> None:
    """See that what is of unknown licence is in the image, each once and in order."""
    if list(unknown) != sorted(set(unknown)) or not set(unknown) <= paths.keys():
        raise InputError(f"{label}: what it calls of unknown licence is not in it, or not in order")


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    pass


class _PathEntry(_Part, frozen=True):
    nar_hash: str
    nar_size: int
    references: tuple[str, ...]

    @classmethod
    def of(cls, info: PathInfo) -> _PathEntry:
        return cls(str(info.nar_hash), info.nar_size, tuple(map(str, sorted(info.references))))

    def info(self, path: str) -> PathInfo:
        return PathInfo(
            StorePath.parse(path),
            NarHash.parse(self.nar_hash),
            self.nar_size,
            tuple(map(StorePath.parse, self.references)),
        )


class _LayerEntry(_Part, frozen=True):
    tier: str
    paths: tuple[str, ...]


class _WithheldEntry(_Part, frozen=True, omit_defaults=True):
    path: str
    name: str
    licence: str
    derivation: str
    url: str = ""


class _UnknownEntry(_Part, frozen=True, omit_defaults=True):
    path: str
    licence: str = ""


# Written without the last two where they say nothing: such a spec is what it always was.
class _Document(_Part, frozen=True, omit_defaults=True):
    format: int
    kind: Literal["seed", "run"]
    name: str
    system: str
    config: ImageConfig
    files: tuple[File, ...]
    inputs: dict[str, str]
    tiers: tuple[str, ...]
    paths: dict[str, _PathEntry]
    layers: tuple[_LayerEntry, ...]
    compressor: dict[str, Any]
    withheld: tuple[_WithheldEntry, ...]
    unknown: tuple[_UnknownEntry, ...] = ()
    any_user: bool = False
