"""Sends transactions: bounded in what they may cost, and waited for until they are final."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError
from nix_seed.evm.keys import EvmKey
from nix_seed.evm.node import Receipt
from nix_seed.evm.nodes import Nodes
from nix_seed.registry.errors import Patience

_Found = TypeVar("_Found")
_AGAIN: Final = "run the same command again: what is entered is not entered twice"
GWEI: Final = 10**9
MOST_FEE: Final = 100 * GWEI
_MOST_GAS: Final = 8_000_000  # a deployment with 32 builders takes some 5 million


@dataclass(frozen=True, slots=True)
class Sent:
    """A transaction that is final, by its hash."""

    hash: bytes
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Sender:
    """Whose account pays, at most *most* wei per gas, and for how long (s) a block is waited for.

    A node names the price, and must not empty the account by it.
    """

    key: EvmKey
    most: int = MOST_FEE
    wait: float = 1800.0
    patience: Patience = field(default_factory=Patience)

    def send(self, nodes: Nodes, to: str | None, data: bytes, doing: str) -> Sent:
        """Send *data* to the contract *to* (None: deploy it), and wait until that is final."""
        node = nodes.first
        transaction: dict[str, Any] = {"from": self.key.address, "data": data, "value": 0}
        if to is not None:
            transaction["to"] = to
        gas = node.estimate(transaction)
        gas += gas // 5
        if gas > _MOST_GAS:
            raise CheckedFalse(f"{doing} would take {gas} gas, the node {node.name} says: too much")
        del transaction["from"]
        transaction |= {
            "gas": gas,
            "nonce": node.nonce(self.key.address),
            "chainId": nodes.chain_id,
            **self._fees(node.fees()),
        }
        raw, hashed = self.key.sign_transaction(transaction)
        try:
            node.send(raw)
        except CouldNotCheck:
            # The answer may have been lost, and the transaction mined before it was sent again.
            if node.receipt(hashed) is None:
                raise
        return self._settled(nodes, hashed, doing, again=to is not None)

    def _fees(self, fees: dict[str, int]) -> dict[str, int]:
        most = max(fees.values())
        if most > self.most:
            raise InputError(
                f"gas is said to cost {most / GWEI:.1f} gwei, and at most "
                f"{self.most / GWEI:.1f} are to be paid",
                hint="wait until it is cheaper, or raise --max-fee",
            )
        return fees

    def await_final(
        self, look: Callable[[], _Found | None], doing: str, hint: str = _AGAIN
    ) -> _Found:
        """Ask *look* again and again until it returns something, or the time is over."""
        end = self.patience.monotonic() + self.wait
        pause = 0.2
        while True:
            found = look()
            if found is not None:
                return found
            if self.patience.monotonic() >= end:
                raise CouldNotCheck(
                    f"{doing}: it is sent, and not final within {self.wait:.0f} s",
                    hint=hint,
                )
            self.patience.sleep(pause)
            pause = min(pause * 1.5, 12.0)

    def _settled(self, nodes: Nodes, hashed: bytes, doing: str, *, again: bool) -> Sent:
        doing = f"{doing} by transaction 0x{hashed.hex()}"
        hint = (
            _AGAIN if again else f"look for what becomes of 0x{hashed.hex()} before doing it again"
        )
        receipt = self.await_final(lambda: self._final_receipt(nodes, hashed), doing, hint)
        if not receipt.succeeded:
            raise CheckedFalse(
                f"{doing}: it failed on chain",
                hint="somebody else may have been first: look at 'nix-seed ledger evm show'",
            )
        return Sent(hashed, receipt)

    def _final_receipt(self, nodes: Nodes, hashed: bytes) -> Receipt | None:
        try:
            receipt = nodes.first.receipt(hashed)
            if receipt is None or nodes.final().number < receipt.block.number:
                return None
            # After a reorganisation the receipt is of a block that is none any more.
            again = nodes.first.block(receipt.block.number)
        except CouldNotCheck:
            return None  # it is sent, and may well come; only the time limit ends the wait
        return receipt if again == receipt.block else None
