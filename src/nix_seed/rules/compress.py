"""Compression as a value: the library's exact version and the level belong to the digest.

Every frame is compressed in one call by a context of its own, so its bytes are a function of its
contents alone: not of threads, of how the input arrived, or of what was compressed before. (A zstd
context that is used again salts its hash tables anew, and from level 5 on that may change output.)

Frames carry their content size, which lets a reader allocate at once. They carry no checksum: a
blob is read by its digest and a store path by its NAR hash, both stronger.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from nix_seed.formats.oci import media_types
from nix_seed.formats.seekable import Frame, SeekTable
from nix_seed.ground.errors import InputError

__all__ = ["Compressor"]

Name = Literal["zstd", "gzip"]
_LEVELS: Mapping[str, range] = {"zstd": range(1, 20), "gzip": range(1, 13)}
_DEFAULT_LEVELS: Mapping[Name, int] = {"zstd": 3, "gzip": 6}
_MEDIA_TYPES: Mapping[str, str] = {
    "zstd": media_types.LAYER_ZSTD,
    "gzip": media_types.LAYER_GZIP,
}


@dataclass(frozen=True, slots=True)
class Compressor:
    """``zstd`` by libzstd *version*, or ``gzip`` by the ``deflate`` package's *version*."""

    name: str
    version: str
    level: int

    def __post_init__(self) -> None:
        if self.name not in _LEVELS:
            raise InputError(f"compressor {self.name!r} is unknown; there are zstd and gzip")
        levels = _LEVELS[self.name]
        if self.level not in levels:
            raise InputError(
                f"{self.name} level {self.level} is not from {levels[0]} to {levels[-1]}"
            )

    @classmethod
    def at_hand(cls, name: Name = "zstd", level: int | None = None) -> Self:
        """The compressor this machine has, at *level* (zstd 3, gzip 6)."""
        return cls(name, _version(name), _DEFAULT_LEVELS[name] if level is None else level)

    @classmethod
    def from_json(cls, value: Any, where: str) -> Self:
        """Read ``{"name", "version", "level"}``; *where* names it in errors."""
        match value:
            case {"name": str(name), "version": str(version), "level": int(level)} if (
                level is not True and level is not False
            ):
                return cls(name, version, level)
        raise InputError(f"{where}: a compressor needs a name, a version and a level")

    def to_json(self) -> dict[str, Any]:
        """Return the object a spec holds."""
        return {"name": self.name, "version": self.version, "level": self.level}

    @property
    def media_type(self) -> str:
        """The media type of a layer so compressed."""
        return _MEDIA_TYPES[self.name]

    def check_at_hand(self) -> None:
        """Raise ``InputError`` if this machine would give other bytes than the spec wants."""
        here = _version(self.name)
        if here != self.version:
            raise InputError(
                f"the spec wants {self.name} {self.version}, but {here} is installed here,"
                " and another version gives other digests",
                hint="install the nix-seed release that made the spec, or make the spec anew",
            )

    def compress(self, data: bytes | bytearray | memoryview) -> bytes:
        """Return *data* as one frame (zstd) or one member (gzip). Releases the interpreter lock."""
        if self.name == "gzip":
            import deflate  # noqa: PLC0415  (slow to import, and zstd images never need it)

            return bytes(deflate.gzip_compress(data, self.level))
        import zstandard  # noqa: PLC0415

        return zstandard.ZstdCompressor(level=self.level).compress(data)

    def trailer(self, frames: tuple[Frame, ...]) -> bytes:
        """What follows the last frame: zstd's seek table; gzip has no such thing."""
        return SeekTable(frames).dump() if self.name == "zstd" else b""


def _version(name: str) -> str:
    if name == "gzip":
        import deflate  # noqa: PLC0415

        return str(deflate.__version__)
    import zstandard  # noqa: PLC0415

    return ".".join(str(part) for part in zstandard.ZSTD_VERSION)
