"""The contract's builders: accounts with ids, how many must sign, and the count of their sets."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from eth_utils.address import is_checksum_address, to_checksum_address

from nix_seed.core.errors import InputError

MOST: Final = 32
"""Builders at most; the contract's own bound."""


def read_address(text: str, label: str) -> str:
    """Return the address in its checksummed spelling (EIP-55); *label* names it in errors.

    Letters of one case carry no checksum; mixed ones do, and it must be right.
    """
    digits = text[2:]
    plain = digits in (digits.lower(), digits.upper())
    shaped = text.startswith("0x") and len(digits) == 40
    if not shaped or not all(c in "0123456789abcdefABCDEF" for c in digits):
        raise InputError(f"{label}: {text!r} is no address: 0x and 40 hex digits are")
    if not plain and not is_checksum_address(text):
        raise InputError(
            f"{label}: the capitals of {text} are a checksum, and it is wrong",
            hint="copy the address anew; a digit differs",
        )
    return to_checksum_address(text)


@dataclass(frozen=True, slots=True)
class EvmBuilder:
    """A builder: whose account signs, under which name (at most 32 bytes of UTF-8)."""

    id: str
    account: str

    @classmethod
    def read(cls, id: str, account: str) -> Self:
        """Check both; ``InputError`` names what is wrong."""
        raw = id.encode("utf-8", "surrogatepass")
        if not 0 < len(raw) <= 32 or not id.isprintable() or id.strip() != id:
            raise InputError(
                f"{id!r} is no id of a builder on chain", hint="1 to 32 bytes of UTF-8 are"
            )
        if unicodedata.normalize("NFC", id) != id:
            raise InputError(f"{id!r} is spelled in a way that looks like another")
        return cls(id, read_address(account, f"builder {id}"))

    @classmethod
    def from_chain(cls, account: str, raw: bytes) -> Self:
        """Take what the contract holds, where nobody vouches for the id's bytes being text."""
        text = raw.rstrip(b"\0").decode("utf-8", "backslashreplace")
        shown = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
        return cls(shown, to_checksum_address(account))

    @property
    def raw_id(self) -> bytes:
        """The id as the contract holds it: 32 bytes, filled up with zeros."""
        return self.id.encode().ljust(32, b"\0")

    @property
    def number(self) -> int:
        """The account as a number, by which sets and signatures are ordered."""
        return int(self.account, 16)


@dataclass(frozen=True, slots=True)
class BuilderSet:
    """*threshold* of *builders* must sign, in the set's *epoch* (the first is 1)."""

    builders: tuple[EvmBuilder, ...]
    threshold: int
    epoch: int

    @classmethod
    def propose(cls, builders: Sequence[EvmBuilder], threshold: int, epoch: int) -> Self:
        """Return a set that the contract would take, in its order, or raise ``InputError``."""
        if not 0 < len(builders) <= MOST:
            raise InputError(f"{len(builders)} builders: a set has 1 to {MOST}")
        for name in ("account", "id"):
            values = [getattr(each, name) for each in builders]
            for value in values:
                if values.count(value) > 1:
                    raise InputError(f"two builders have the {name} {value}: they would be one")
        if min(each.number for each in builders) == 0:
            raise InputError("the zero address is nobody's account")
        if not 1 <= threshold <= len(builders):
            raise InputError(
                f"a threshold of {threshold} of {len(builders)} builders",
                hint=f"it must be from 1 to {len(builders)}",
            )
        if epoch < 1:
            raise InputError(f"{epoch} is no epoch: the first is 1")
        ordered = sorted(builders, key=lambda each: each.number)
        return cls(tuple(ordered), threshold, epoch)

    def named(self, account: str) -> EvmBuilder | None:
        """Return the builder whose account it is."""
        return next((each for each in self.builders if each.account == account), None)
