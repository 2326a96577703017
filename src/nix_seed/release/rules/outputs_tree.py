"""The outputs of a release, of all its systems, as one Merkle tree (docs/outputs.md).

The tree is RFC 6962's, over leaves sorted by system and path, each once. All of them lie beside the
record as one document; the record signs the root and the size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Self

from nix_seed.core.declared import Declared, at, write
from nix_seed.core.digests import Digest, NarHash
from nix_seed.core.errors import CheckedFalse, InputError
from nix_seed.formats.intoto.statement import Commit
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.formats.tlog.merkle import TreeHead, build_root, leaf_hash, read_from_leaves

DOMAIN: Final = "nix-seed/output/v1"
MOST_RELEASED: Final = 10_000


@dataclass(frozen=True, slots=True, order=True)
class OutputLeaf(Declared):
    """One output that a quorum stands for; *names* are the flake outputs that it is."""

    system: str
    path: StorePath
    commit: Commit
    nar_hash: NarHash
    names: tuple[str, ...] = ()

    @property
    def hash(self) -> bytes:
        """The 32 bytes of RFC 6962's leaf hash."""
        return leaf_hash(self.dump())

    def to_json(self) -> dict[str, Any]:
        """Return the object that is hashed."""
        return {"domain": DOMAIN, **write(self)}


@dataclass(frozen=True, slots=True)
class ReleasedOutputs(Declared):
    """All outputs of a release, sorted."""

    otherwise: ClassVar = "is not spelled as it would be written: canonical JSON"

    leaves: tuple[OutputLeaf, ...] = field(metadata=at("outputs", sizes=(1, MOST_RELEASED)))

    def __post_init__(self) -> None:
        if not 1 <= len(self.leaves) <= MOST_RELEASED:
            raise InputError(f"a release has 1 to {MOST_RELEASED} outputs, not {len(self.leaves)}")
        places = [(leaf.system, leaf.path) for leaf in self.leaves]
        if places != sorted(set(places)):
            raise InputError("its outputs must be sorted by system and path, each once")

    @property
    def head(self) -> TreeHead:
        """The root over the leaves, and how many these are."""
        return build_root(len(self.leaves), read_from_leaves([leaf.hash for leaf in self.leaves]))

    @property
    def root(self) -> Digest:
        """The root, as a digest."""
        return Digest(self.head.root.hex())

    @classmethod
    def read(cls, text: bytes, commit: Commit, root: Digest, size: int) -> Self:
        """Read the document of *commit*'s record; ``CheckedFalse`` for another than it signs."""
        try:
            found = cls.parse(text, "the record's list of outputs")
        except InputError as error:
            raise CheckedFalse(error.message) from error
        if found.head != TreeHead(size, root.raw):
            raise CheckedFalse(f"a list of outputs has the root {found.root}, not {root}")
        if any(leaf.commit != commit for leaf in found.leaves):
            raise CheckedFalse("the record's list of outputs is of another commit")
        return found

    def named(self, name: str, system: str) -> OutputLeaf:
        """Return the output called *name*; ``CheckedFalse`` where no quorum stands for one."""
        for leaf in self.leaves:
            if leaf.system == system and name in (*leaf.names, str(leaf.path)):
                return leaf
        here = (leaf.names for leaf in self.leaves if leaf.system == system)
        known = sorted({each for names in here for each in names})
        raise CheckedFalse(
            f"no output {name} was promoted for {system}",
            hint=f"promoted are: {', '.join(known[:20])}" if known else "none was for this system",
        )
