"""A builder's signature in a file: what was signed, in full, and by whom. docs/ledger-evm.md.

The file holds the typed data as wallets take it, so that it may be signed elsewhere; it is read by
making the typed data anew from its values, which must give the very same.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from eth_account import Account

from nix_seed.core import canonical_json
from nix_seed.core.digests import Digest
from nix_seed.core.errors import InputError
from nix_seed.evm.builders import BuilderSet, EvmBuilder, read_address
from nix_seed.evm.keys import EvmKey
from nix_seed.evm.messages import Domain, ReleaseMessage, Signed, signable, typed_data
from nix_seed.release.rules.ledger_entry import LedgerEntry

TYPE: Final = "urn:nix-seed:evm-signature:v1"
_MOST: Final = 64
_WORD: Final = re.compile(r"0x[0-9a-f]{64}\Z")
_HALF_ORDER: Final = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0


@dataclass(frozen=True, slots=True)
class EvmSignature:
    """*raw* is r, s, v (65 bytes) over *content* for *domain*; it recovers to *signer*."""

    domain: Domain
    content: Signed
    signer: str
    raw: bytes

    @classmethod
    def make(cls, key: EvmKey, domain: Domain, content: Signed) -> Self:
        """Sign; needs nothing but the key."""
        return cls.check(domain, content, key.sign(signable(domain, content)), "the signature")

    @classmethod
    def check(cls, domain: Domain, content: Signed, raw: bytes, label: str) -> Self:
        """Find out whose signature *raw* is; ``InputError`` for one the contract would refuse."""
        if len(raw) != 65 or raw[64] not in (27, 28):
            raise InputError(f"{label}: a signature has 65 bytes, the last of them 27 or 28")
        if int.from_bytes(raw[32:64]) > _HALF_ORDER:
            raise InputError(
                f"{label}: its s is in the upper half", hint="sign anew; it was made malleable"
            )
        try:
            signer = Account.recover_message(signable(domain, content), signature=raw)
        except Exception as error:  # of several libraries; all mean that there is no such point
            raise InputError(f"{label}: it is nobody's signature") from error
        return cls(domain, content, str(signer), raw)

    @classmethod
    def load(cls, text: bytes, label: str) -> Self:
        """Read a file's bytes; *label* names it in errors."""
        value = canonical_json.loads(text, label=label)
        if not isinstance(value, dict) or value.get("type") != TYPE:
            raise InputError(
                f"{label} is not a signature of {TYPE}",
                hint="'nix-seed ledger evm sign' makes them",
            )
        try:
            domain, content = _read_typed(value["typedData"])
            signer, raw = value["signer"], bytes.fromhex(value["signature"].removeprefix("0x"))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{label} is malformed: {type(error).__name__}") from error
        except InputError as error:
            raise InputError(f"{label}: {error.message}", hint=error.hint) from error
        if value["typedData"] != typed_data(domain, content):
            raise InputError(f"{label}: its typed data are not those that the contract verifies")
        found = cls.check(domain, content, raw, label)
        if found.signer != signer:
            raise InputError(
                f"{label} does not hold: {signer} is said to have signed, and it recovers to "
                f"{found.signer}",
                hint="what was signed or the signature was altered",
            )
        return found

    def dump(self) -> bytes:
        """Return the file's bytes."""
        value = {
            "type": TYPE,
            "typedData": typed_data(self.domain, self.content),
            "signer": self.signer,
            "signature": f"0x{self.raw.hex()}",
        }
        return canonical_json.dumps(value) + b"\n"

    @property
    def words(self) -> tuple[int, int, int]:
        """(v, r, s) as the contract takes them."""
        return self.raw[64], int.from_bytes(self.raw[:32]), int.from_bytes(self.raw[32:64])


@dataclass(frozen=True, slots=True)
class CollectedSignatures:
    """The signatures over one content, of different builders of a set, in the contract's order."""

    counted: tuple[EvmSignature, ...]
    signed_by: tuple[EvmBuilder, ...]
    missing: tuple[EvmBuilder, ...]
    strangers: tuple[str, ...]
    wanted: int

    @property
    def enough(self) -> bool:
        """Whether the contract's threshold is met."""
        return len(self.counted) >= self.wanted


def collect(
    signatures: Iterable[EvmSignature], domain: Domain, content: Signed, builders: BuilderSet
) -> CollectedSignatures:
    """Count those of *signatures* that are for *domain* and *content*, each builder once."""
    found = {
        each.signer: each for each in signatures if (each.domain, each.content) == (domain, content)
    }
    signed_by = tuple(each for each in builders.builders if each.account in found)
    return CollectedSignatures(
        counted=tuple(found[each.account] for each in signed_by),
        signed_by=signed_by,
        missing=tuple(each for each in builders.builders if each.account not in found),
        strangers=tuple(sorted(set(found) - {each.account for each in builders.builders})),
        wanted=builders.threshold,
    )


def _read_typed(value: Mapping[str, Any]) -> tuple[Domain, Signed]:
    chain, address = value["domain"]["chainId"], value["domain"]["verifyingContract"]
    domain = Domain(_whole(chain), read_address(address, "verifyingContract"))
    message = value["message"]
    epoch = _whole(message["epoch"])
    if value["primaryType"] == "Publish":
        key, root, record = (
            Digest(_word(message[name]).hex()) for name in ("commitKey", "root", "record")
        )
        return domain, ReleaseMessage(LedgerEntry(key, root, record), epoch)
    builders = [_builder(each) for each in message["builders"][:_MOST]]
    return domain, BuilderSet.propose(builders, _whole(message["threshold"]), epoch)


def _builder(value: Mapping[str, Any]) -> EvmBuilder:
    return EvmBuilder.read(_word(value["id"]).rstrip(b"\0").decode("utf-8"), value["account"])


def _word(text: str) -> bytes:
    if _WORD.match(text) is None:
        raise ValueError("not 32 bytes in lower-case hex")
    return bytes.fromhex(text[2:])


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 53:
        raise ValueError("not a whole number")
    return value
