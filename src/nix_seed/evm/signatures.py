"""A builder's signature in a file: what was signed, in full, and by whom. docs/ledger-evm.md.

The file holds the typed data as wallets take it, so that it may be signed elsewhere; it is read by
making the typed data anew from its values, which must give the very same.

Typed data is EIP-712's, for one contract on one chain:
``Publish(bytes32 commitKey,bytes32 root,bytes32 record,uint256 epoch)`` and
``SetBuilders(Builder[] builders,uint256 threshold,uint256 epoch)`` with
``Builder(address account,bytes32 id)``; a wallet that knows EIP-712 can show and sign either.

Accounts: secp256k1 keys in files, encrypted as keystores of version 3; never shown.
"""

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

from eth_account import Account
from eth_account.messages import SignableMessage, encode_typed_data
from eth_account.signers.local import LocalAccount
from eth_utils.address import is_checksum_address, to_checksum_address

from nix_seed.core import canonical_json
from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, InputError
from nix_seed.core.files import write_new
from nix_seed.core.values import dataclass
from nix_seed.release.rules.record import LedgerEntry
from nix_seed.trust.rules.policy import LedgerSpec
from nix_seed.trust.sign import read_key_file

_HEX: Final = re.compile(rb"\s*(?:0x)?([0-9a-fA-F]{64})\s*\Z")
_PASSPHRASE: Final = "put it into the environment variable NIX_SEED_KEY_PASSPHRASE"


class EvmKey:
    """A private key in memory, and the account it signs for."""

    __slots__ = ("_account",)

    def __init__(self, account: LocalAccount) -> None:
        self._account = account

    def __repr__(self) -> str:
        return f"EvmKey({self.address})"

    @property
    def address(self) -> str:
        """The account, checksummed."""
        return str(self._account.address)

    @classmethod
    def generate(cls) -> Self:
        """Make a new key."""
        return cls(Account.create())

    @classmethod
    def open(cls, path: Path, passphrase: str | None = None) -> Self:
        """Read a keystore, or a file of 64 hex digits; ``InputError`` for anything else."""
        text = read_key_file(path)
        found = _HEX.match(text)
        if found is None:
            return cls(_decrypt(text, str(path), passphrase))
        try:
            return cls(Account.from_key(bytes.fromhex(found[1].decode())))
        except Exception as error:  # whatever is wrong with a secret, it is not to be quoted
            raise InputError(f"{path} is not a key of secp256k1") from error.__cause__

    def keystore(self, passphrase: str, iterations: int | None = None) -> bytes:
        """Return the encrypted file's bytes; *iterations* is the work of scrypt, a power of 2."""
        value = self._account.encrypt(passphrase, kdf="scrypt", iterations=iterations)
        return json.dumps(value, indent=1).encode() + b"\n"

    def write(self, path: Path, passphrase: str | None) -> None:
        """Write a keystore, mode 0600, where there is no file yet."""
        if not passphrase:
            raise InputError(
                "a key that can enter releases is not written without a passphrase",
                hint=_PASSPHRASE,
            )
        hint = "choose another name, or move the old key away"
        write_new(path, self.keystore(passphrase), 0o600, hint=hint)

    def sign(self, message: SignableMessage) -> bytes:
        """Return the 65 bytes r, s, v over typed data; the same each time (RFC 6979), s low."""
        return bytes(self._account.sign_message(message).signature)

    def sign_transaction(self, transaction: dict[str, Any]) -> tuple[bytes, bytes]:
        """Return the signed transaction's bytes, and its hash."""
        signed = self._account.sign_transaction(transaction)
        return bytes(signed.raw_transaction), bytes(signed.hash)


def _decrypt(text: bytes, label: str, passphrase: str | None) -> LocalAccount:
    try:
        value = canonical_json.loads(text, label=label)
    except InputError:
        value = None
    if not isinstance(value, dict) or value.get("version") != 3:
        raise InputError(
            f"{label} is neither a keystore of version 3 nor 64 hex digits",
            hint="make a key with 'nix-seed ledger evm key generate FILE'",
        )
    if passphrase is None:
        raise InputError(f"{label} has a passphrase", hint=_PASSPHRASE)
    try:
        account: LocalAccount = Account.from_key(Account.decrypt(value, passphrase))
        return account
    except ValueError as error:
        if "MAC mismatch" in str(error):
            raise InputError(f"the passphrase of {label} is wrong") from error
        raise InputError(f"{label} cannot be decrypted: it is damaged") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{label} cannot be decrypted: it is damaged") from error


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


_TYPES: Final = {
    "EIP712Domain": "string name,string version,uint256 chainId,address verifyingContract",
    "Publish": "bytes32 commitKey,bytes32 root,bytes32 record,uint256 epoch",
    "SetBuilders": "Builder[] builders,uint256 threshold,uint256 epoch",
    "Builder": "address account,bytes32 id",
}


@dataclass(frozen=True, slots=True)
class Domain:
    """The one contract a signature is for: its chain, and its checksummed address."""

    chain_id: int
    address: str

    @classmethod
    def of(cls, spec: LedgerSpec) -> Self:
        """Return the domain of the policy's ledger *spec*, whose address is checked."""
        return cls(spec.chain_id, read_address(spec.address, f"the ledger {spec.id}"))


@dataclass(frozen=True, slots=True)
class ReleaseMessage:
    """An entry to be made by the builders of *epoch*."""

    entry: LedgerEntry
    epoch: int


Signed = ReleaseMessage | BuilderSet
"""What can be signed."""


def typed_data(domain: Domain, content: Signed) -> dict[str, Any]:
    """Return the JSON of EIP-712: types, primaryType, domain, message."""
    primary = "Publish" if isinstance(content, ReleaseMessage) else "SetBuilders"
    names = ["EIP712Domain", primary] + ([] if primary == "Publish" else ["Builder"])
    return {
        "types": {
            name: [
                dict(zip(("type", "name"), m.split(), strict=True)) for m in _TYPES[name].split(",")
            ]
            for name in names
        },
        "primaryType": primary,
        "domain": {
            "name": "nix-seed ledger",
            "version": "1",
            "chainId": domain.chain_id,
            "verifyingContract": domain.address,
        },
        "message": _message(content),
    }


def signable(domain: Domain, content: Signed) -> SignableMessage:
    """Return what is hashed and signed."""
    return encode_typed_data(full_message=typed_data(domain, content))


def _message(content: Signed) -> dict[str, Any]:
    if isinstance(content, ReleaseMessage):
        entry = content.entry
        return {
            "commitKey": f"0x{entry.commit_key.hex}",
            "root": f"0x{entry.root.hex}",
            "record": f"0x{entry.record.hex}",
            "epoch": content.epoch,
        }
    return {
        "builders": [
            {"account": each.account, "id": f"0x{each.raw_id.hex()}"} for each in content.builders
        ],
        "threshold": content.threshold,
        "epoch": content.epoch,
    }


TYPE: Final = "urn:nix-seed:evm-signature:v1"
_MOST: Final = 64
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


def collect(
    signatures: Sequence[EvmSignature], domain: Domain, content: Signed, builders: BuilderSet
) -> tuple[EvmSignature, ...]:
    """Return those of *signatures* that are for *domain* and *content*, in the contract's order.

    Each builder's counts once. ``CheckedFalse``, naming who is missing, for too few.
    """
    found = {
        each.signer: each for each in signatures if (each.domain, each.content) == (domain, content)
    }
    missing = [each for each in builders.builders if each.account not in found]
    counted = tuple(found[each.account] for each in builders.builders if each.account in found)
    if len(counted) >= builders.threshold:
        return counted
    names = ", ".join(each.id for each in missing)
    hint = "each builder signs with 'nix-seed ledger evm sign'"
    epochs = {each.content.epoch for each in signatures} - {builders.epoch, builders.epoch + 1}
    if strangers := sorted(found.keys() - {each.account for each in builders.builders}):
        hint = f"no builders of this epoch: {', '.join(strangers)}"
    elif epochs:
        hint = (
            f"signatures of epoch {min(epochs)} count no more: the builders have changed; sign anew"
        )
    elif len(signatures) > len(counted):
        hint = "the other signatures are for another contract, chain, epoch or content"
    raise CheckedFalse(
        f"{len(counted)} of the {builders.threshold} builders of epoch {builders.epoch} "
        f"that must sign did; missing: {names}",
        hint=hint,
    )


def _read_typed(value: Mapping[str, Any]) -> tuple[Domain, Signed]:
    """Read typed data; whether they are spelled as ours is for whoever makes them anew."""
    chain, address = value["domain"]["chainId"], value["domain"]["verifyingContract"]
    domain = Domain(_whole(chain), read_address(address, "verifyingContract"))
    message = value["message"]
    epoch = _whole(message["epoch"])
    if value["primaryType"] == "Publish":
        key, root, record = (
            Digest(message[name].removeprefix("0x")) for name in ("commitKey", "root", "record")
        )
        return domain, ReleaseMessage(LedgerEntry(key, root, record), epoch)
    builders = [_builder(each) for each in message["builders"][:_MOST]]
    return domain, BuilderSet.propose(builders, _whole(message["threshold"]), epoch)


def _builder(value: Mapping[str, Any]) -> EvmBuilder:
    raw = bytes.fromhex(value["id"].removeprefix("0x"))
    return EvmBuilder.read(raw.rstrip(b"\0").decode("utf-8"), value["account"])


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 53:
        raise ValueError("not a whole number")
    return value
