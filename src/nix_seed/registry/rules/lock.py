"""``seed.lock``: the promoted image of each system, pinned by digest and committed by the user.

Consumers use what it names, and it is the base of the next partition. JSON, indented for people.
"""

import json
from collections.abc import Mapping
from typing import ClassVar, Final, Self

from nix_seed.core import canonical_json
from nix_seed.core.declared import Declared
from nix_seed.core.digests import Digest, NarHash
from nix_seed.core.errors import InputError
from nix_seed.core.values import dataclass
from nix_seed.formats.oci.reference import LayoutReference, Reference, parse_reference

LOCK_NAME: Final = "seed.lock"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class LockedImage:
    """One system's image."""

    closed: ClassVar = True

    digest: Digest
    nar_hash: NarHash


@dataclass(frozen=True, slots=True)
class SeedLock(Declared):
    """Where the images are, and which they are, by system."""

    closed: ClassVar = True

    image: str
    systems: Mapping[str, LockedImage]
    version: int = _VERSION

    @classmethod
    def parse(cls, text: bytes, label: str) -> Self:
        """Read ``seed.lock``; *label* names it in errors."""
        value = canonical_json.loads(text, label=label)
        try:
            found = cls.from_json(value, label)
        except InputError as error:
            raise InputError(error.message, hint=_HINT) from error
        if found.version != _VERSION:
            raise InputError(f"{label} is of version {found.version}, not {_VERSION}", hint=_HINT)
        reference = parse_reference(found.image)
        if reference.name is not None:
            raise InputError(f"{label}: image must name a repository, without tag or digest")
        return found

    def dump(self) -> bytes:
        """Return the bytes of the file."""
        systems = dict(sorted(self.to_json()["systems"].items()))
        value = {"version": self.version, "image": self.image, "systems": systems}
        return (json.dumps(value, indent=2) + "\n").encode()

    def reference(self, system: str) -> Reference | LayoutReference | None:
        """Name the image of *system* by its digest, if there is one."""
        entry = self.systems.get(system)
        return None if entry is None else parse_reference(self.image).at(entry.digest)


_HINT = "write it anew: nix-seed lock REF"
