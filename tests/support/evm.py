"""A ledger on a chain of its own, and builders who sign for it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from web3 import Web3

from nix_seed.core.digests import Digest
from nix_seed.evm.contract import EvmLedger, deploy
from nix_seed.evm.node import EvmNode, shipped
from nix_seed.evm.nodes import Nodes, Sender, Sent
from nix_seed.evm.signatures import (
    BuilderSet,
    Domain,
    EvmBuilder,
    EvmKey,
    EvmSignature,
    ReleaseMessage,
    Signed,
)
from nix_seed.registry.errors import Patience
from nix_seed.release.rules.record import LedgerEntry
from nix_seed.trust.rules.policy import LedgerSpec
from support.chains import Chain

NAMES = ("alice", "bob", "carol")


def digest(text: str) -> Digest:
    return Digest(hashlib.sha256(text.encode()).hexdigest())


def release(name: str, variant: str = "") -> LedgerEntry:
    """The entry of the commit *name*; each *variant* has another root."""
    return LedgerEntry(
        digest(f"commit {name}"), digest(f"root {name}{variant}"), digest(f"record {name}{variant}")
    )


def with_digest(entry: LedgerEntry, name: str, value: Digest) -> LedgerEntry:
    """Return *entry* with another commit_key, root or record."""
    changed: dict[str, Any] = {name: value}
    return replace(entry, **changed)


@dataclass
class Evm:
    """A deployed contract of alice, bob and carol, of whom *threshold* must sign."""

    chain: Chain
    threshold: int = 2
    confirmations: int | None = 0
    names: Sequence[str] = NAMES
    keys: dict[str, EvmKey] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.keys = {name: EvmKey.generate() for name in (*self.names, "payer", "mallory")}
        self.sender = Sender(self.keys["payer"], wait=120.0, patience=Patience(sleep=self._sleep))
        self.naps = 0
        self.chain.fund(self.sender.key.address)
        self.address, self.deployed = deploy(
            self.nodes(0), self.builders(*self.names, threshold=self.threshold), self.sender
        )

    def _sleep(self, seconds: float) -> None:
        """Time on a chain is blocks: whoever waits sees one more."""
        self.naps += 1
        self.chain.mine()

    def nodes(self, confirmations: int | None) -> Nodes:
        return Nodes(
            [EvmNode(self.chain.provider, self.chain.name)], self.chain.chain_id, confirmations
        )

    def builders(self, *names: str, threshold: int, epoch: int = 1) -> BuilderSet:
        members = [EvmBuilder.read(name, self.keys[name].address) for name in names]
        return BuilderSet.propose(members, threshold, epoch)

    @property
    def spec(self) -> LedgerSpec:
        begin = self.deployed.receipt.block.number
        chain = self.chain.chain_id
        return LedgerSpec("chain", "evm", chain, self.address, (), self.confirmations, begin)

    @property
    def domain(self) -> Domain:
        return Domain(self.chain.chain_id, self.address)

    def sign(
        self, content: Signed, *names: str, domain: Domain | None = None
    ) -> list[EvmSignature]:
        return [EvmSignature.make(self.keys[n], domain or self.domain, content) for n in names]

    def signed(self, entry: LedgerEntry, *names: str, epoch: int = 1) -> list[EvmSignature]:
        return self.sign(ReleaseMessage(entry, epoch), *names)

    def ledger(
        self, signatures: Sequence[EvmSignature] = (), sender: Sender | None = None
    ) -> EvmLedger:
        nodes = self.nodes(self.confirmations)
        return EvmLedger(self.spec, nodes, sender or self.sender, signatures)

    def publish(self, entry: LedgerEntry, *names: str, epoch: int = 1) -> LedgerEntry:
        return self.ledger(self.signed(entry, *names, epoch=epoch)).publish(entry)

    def call(self, function: str, *arguments: Any) -> Sent:
        """Speak to the contract itself, past everything that the client checks."""
        contract = Web3().eth.contract(self.address, abi=shipped().abi)  # type: ignore[call-overload]
        data = bytes.fromhex(contract.encode_abi(function, list(arguments))[2:])
        return self.sender.send(self.nodes(0), self.address, data, f"calling {function}")

    def call_publish(self, entry: LedgerEntry, signatures: Sequence[EvmSignature]) -> Sent:
        """Publish with *signatures* in just this order, whatever they are."""
        words = [each.words for each in signatures]
        return self.call("publish", entry.commit_key.raw, entry.root.raw, entry.record.raw, words)

    def call_set_builders(self, new: BuilderSet, signatures: Sequence[EvmSignature]) -> Sent:
        """Change the builders with *signatures* in just this order."""
        members = [(each.account, each.raw_id) for each in new.builders]
        words = [each.words for each in signatures]
        return self.call("setBuilders", members, new.threshold, new.epoch, words)


def ascending(signatures: Sequence[EvmSignature]) -> list[EvmSignature]:
    """In the order in which the contract takes them."""
    return sorted(signatures, key=lambda each: int(each.signer, 16))
