"""Accounts: secp256k1 keys in files, encrypted as keystores of version 3; never shown."""

import json
import os
import re
from pathlib import Path
from typing import Any, Final, Self

from eth_account import Account
from eth_account.messages import SignableMessage
from eth_account.signers.local import LocalAccount

from nix_seed.core import canonical_json
from nix_seed.core.errors import InputError
from nix_seed.core.files import explained
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
        if os.path.lexists(path):
            raise InputError(
                f"{path} exists already, and a key is never overwritten",
                hint="choose another name, or move the old key away",
            )
        text = self.keystore(passphrase)
        with explained(f"writing {path}"):
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(handle, "wb") as file:
                file.write(text)

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
