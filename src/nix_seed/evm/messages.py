"""What builders sign: typed data of EIP-712, for one contract on one chain.

``Publish(bytes32 commitKey,bytes32 root,bytes32 record,uint256 epoch)`` and
``SetBuilders(Builder[] builders,uint256 threshold,uint256 epoch)`` with
``Builder(address account,bytes32 id)``; a wallet that knows EIP-712 can show and sign either.
"""

from dataclasses import dataclass
from typing import Any, Final, Self

from eth_account.messages import SignableMessage, encode_typed_data

from nix_seed.evm.builders import BuilderSet, read_address
from nix_seed.release.rules.ledger_entry import LedgerEntry
from nix_seed.trust.rules.policy import LedgerSpec

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
