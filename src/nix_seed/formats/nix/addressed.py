"""Store paths that are one file, named by what it holds: derivations, and small sources.

Such a name proves the file, whoever sent it (Nix manual, *Store Path Specification*).
"""

import hashlib
from typing import Self

from nix_seed.core.digests import NarHash, Sha256, encode_nix32
from nix_seed.core.errors import InputError
from nix_seed.core.values import dataclass
from nix_seed.formats.nix.nar import NarHasher
from nix_seed.formats.nix.store_path import STORE_DIR, Derivation, PathInfo, StorePath


@dataclass(frozen=True, slots=True)
class AddressedFile:
    """A file of *data* at the path that *info* names; *address* is how Nix's database puts that.

    A *derivation* is read. Other files refer to nothing.
    """

    info: PathInfo
    data: bytes
    executable: bool
    address: str
    derivation: Derivation | None = None

    @classmethod
    def parse(cls, base_name: str, data: bytes) -> Self:
        """Read the file of the path *base_name*; ``InputError`` where that names another."""
        path = StorePath.parse(f"{STORE_DIR}/{base_name}")
        derivation, references = None, tuple[StorePath, ...]()
        if base_name.endswith(".drv"):
            derivation = Derivation.parse(data.decode("utf-8", "surrogateescape"), base_name)
            references = tuple(sorted({*derivation.input_drvs, *derivation.input_srcs}))
        text, plain = Sha256.of(data), _info(path, data, references)
        if path == _named(":".join(("text", *map(str, references))), text, path.name):
            address = f"text:sha256:{encode_nix32(text.raw)}"
            return cls(plain, data, False, address, derivation)
        for info, executable in ((plain, False), (_info(path, data, executable=True), True)):
            if derivation is None and path == _named("source", info.nar_hash, path.name):
                return cls(info, data, executable, f"fixed:r:{info.nar_hash.nix32}")
        raise InputError(f"{path} is not the name of what it is said to hold")


def _info(
    path: StorePath,
    data: bytes,
    references: tuple[StorePath, ...] = (),
    *,
    executable: bool = False,
) -> PathInfo:
    nar = NarHasher()
    nar.file(0, b"", len(data), executable)
    nar.add(data)
    nar.end_file(len(data))
    return PathInfo(path, nar.finish(), nar.size, references)


def _named(kind: str, content: Sha256 | NarHash, name: str) -> StorePath:
    text = f"{kind}:sha256:{content.hex}:{STORE_DIR}:{name}"
    whole = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
    folded = bytes(one ^ two for one, two in zip(whole[:20], whole[20:] + bytes(8), strict=True))
    return StorePath(f"{encode_nix32(folded)}-{name}")
