"""``seed.lock``: the promoted image of each system, pinned by digest and committed by the user.

Consumers use what it names, and it is the base of the next partition. JSON, indented for people.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

import msgspec

from nix_seed.core import canonical_json
from nix_seed.core.digests import Digest, NarHash
from nix_seed.core.errors import InputError
from nix_seed.formats.oci.reference import LayoutReference, Reference, parse_reference

LOCK_NAME: Final = "seed.lock"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class LockedImage:
    """One system's image."""

    digest: Digest
    nar_hash: NarHash


@dataclass(frozen=True, slots=True)
class SeedLock:
    """Where the images are, and which they are, by system."""

    image: str
    systems: Mapping[str, LockedImage]

    @classmethod
    def parse(cls, text: bytes, label: str) -> Self:
        """Read ``seed.lock``; *label* names it in errors."""
        value = canonical_json.loads(text, label=label)
        try:
            document = msgspec.convert(value, _Document)
        except msgspec.ValidationError as error:
            raise InputError(f"{label} is not a seed.lock: {error}", hint=_HINT) from error
        if document.version != _VERSION:
            raise InputError(
                f"{label} is of version {document.version}, not {_VERSION}", hint=_HINT
            )
        reference = parse_reference(document.image)
        if reference.name is not None:
            raise InputError(f"{label}: image must name a repository, without tag or digest")
        systems = {
            system: LockedImage(Digest.parse(entry.digest), NarHash.parse(entry.nar_hash))
            for system, entry in document.systems.items()
        }
        return cls(document.image, systems)

    def dump(self) -> bytes:
        """Return the bytes of the file."""
        value = {
            "version": _VERSION,
            "image": self.image,
            "systems": {
                system: {"digest": str(entry.digest), "narHash": str(entry.nar_hash)}
                for system, entry in sorted(self.systems.items())
            },
        }
        return (json.dumps(value, indent=2) + "\n").encode()

    def reference(self, system: str) -> Reference | LayoutReference | None:
        """Name the image of *system* by its digest, if there is one."""
        entry = self.systems.get(system)
        return None if entry is None else parse_reference(self.image).at(entry.digest)


_HINT = "write it anew: nix-seed lock REF"


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    pass


class _Entry(_Part, frozen=True):
    digest: str
    nar_hash: str


class _Document(_Part, frozen=True):
    version: int
    image: str
    systems: dict[str, _Entry]
