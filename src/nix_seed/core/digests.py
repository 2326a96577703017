"""Digests, as three types that cannot be mistaken for one another.

``Digest`` names bytes in a registry, ``DiffID`` names a layer's uncompressed tar, ``NarHash`` names
what a store path contains. All are SHA-256, the only algorithm the project writes or accepts.
"""

import base64
import binascii
import hashlib
import re
from typing import Self

from nix_seed.core.errors import InputError
from nix_seed.core.values import dataclass

_HEX = re.compile(r"[0-9a-f]{64}\Z")
_OCI = re.compile(r"sha256:([0-9a-f]{64})\Z")
_NIX32 = "0123456789abcdfghijklmnpqrsvwxyz"


@dataclass(frozen=True, slots=True, order=True)
class Sha256:
    """32 bytes of SHA-256 as lower-case hex."""

    hex: str

    def __post_init__(self) -> None:
        if _HEX.match(self.hex) is None:
            raise InputError(f"{self.hex!r} is not a SHA-256 in lower-case hex")

    @classmethod
    def of(cls, data: bytes) -> Self:
        """Hash *data*."""
        return cls(hashlib.sha256(data).hexdigest())

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the bare hex; kinds of digests have spellings of their own."""
        return cls(text)

    @property
    def raw(self) -> bytes:
        """The 32 bytes."""
        return bytes.fromhex(self.hex)


@dataclass(frozen=True, slots=True, order=True)
class Digest(Sha256):
    """An OCI digest, ``sha256:<64 hex>`` (image-spec, descriptor.md)."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``sha256:<hex>``; no other spelling or algorithm is accepted."""
        match = _OCI.match(text)
        if match is None:
            raise InputError(f"{text!r} is not a digest of the form sha256:<64 hex digits>")
        return cls(match[1])

    def __str__(self) -> str:
        return f"sha256:{self.hex}"


@dataclass(frozen=True, slots=True, order=True)
class DiffID(Digest):
    """The digest of a layer's *uncompressed* tar (image-spec, config.md)."""


@dataclass(frozen=True, slots=True, order=True)
class NarHash(Sha256):
    """The SHA-256 of a NAR; written as SRI ``sha256-<base64>``, read in each of Nix's spellings."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read SRI, or ``sha256:`` and hex, base 32 or base 64."""
        try:
            if text.startswith("sha256-"):
                return cls(_of_base64(text[7:]))
            body = text.removeprefix("sha256:")
            if body != text and len(body) == 64:
                return cls(body)
            if body != text and len(body) == 52:
                return cls(decode_nix32(body, 32).hex())
            if body != text:
                return cls(_of_base64(body))
        except ValueError:
            pass
        raise InputError(f"{text!r} is not a SHA-256 NAR hash")

    def __str__(self) -> str:
        return f"sha256-{to_base64(self.raw)}"

    @property
    def nix32(self) -> str:
        """The spelling of Nix's older tools: ``sha256:<52 characters>``."""
        return "sha256:" + encode_nix32(self.raw)


def _of_base64(text: str) -> str:
    raw = exact_base64(text)
    if len(raw) != 32:
        raise ValueError("not 32 bytes")
    return raw.hex()


def exact_base64(text: str) -> bytes:
    """Read standard base64, padded and with no stray bits; ``ValueError`` for any other.

    What Python's own reader takes besides differs from version to version.
    """
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"{text[:40]!r} is not base64") from error
    if to_base64(raw) != text:
        raise ValueError(f"{text[:40]!r} is not the one base64 of its bytes")
    return raw


def to_base64(raw: bytes) -> str:
    """Spell *raw* in standard base64, padded."""
    return base64.b64encode(raw).decode()


def encode_nix32(raw: bytes) -> str:
    """Spell *raw* in Nix's base 32: its own alphabet, least significant digit last."""
    length = (len(raw) * 8 + 4) // 5
    number = int.from_bytes(raw, "little")
    return "".join(_NIX32[(number >> (5 * i)) & 31] for i in reversed(range(length)))


def decode_nix32(text: str, size: int) -> bytes:
    """Read *size* bytes from Nix's base 32; ``ValueError`` for any but their one spelling."""
    number = 0
    for character in text:
        number = number << 5 | _NIX32.index(character)
    raw = number.to_bytes((number.bit_length() + 7) // 8, "little").ljust(size, b"\0")
    if len(raw) != size or encode_nix32(raw) != text:
        raise ValueError(f"{text!r} is not {size} bytes in base 32")
    return raw
