"""Several nodes, which must agree: on the chain, on its blocks, on every answer about them.

One node can lie about everything; of two, one that lies is found out, though not which. Whatever is
read is read at one block, final by the policy, that all of them know by the same hash.

Sends transactions: bounded in what they may cost, and waited for until they are final.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import field
from typing import Any, Final, Self, TypeVar

from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError
from nix_seed.core.values import dataclass
from nix_seed.evm.node import Block, ContractEvent, Declined, EvmNode, Receipt, shipped
from nix_seed.evm.signatures import EvmKey
from nix_seed.registry.errors import Patience

_Answer = TypeVar("_Answer")
_WIDEST: Final = 1 << 40


class Nodes:
    """The nodes asked about the chain *chain_id*, on which *confirmations* make a block final."""

    def __init__(self, nodes: Sequence[EvmNode], chain_id: int, confirmations: int | None) -> None:
        if not nodes:
            raise InputError(
                "no node to ask", hint="name one with --rpc URL, or in the ledger's rpc"
            )
        self.chain_id = chain_id
        self.confirmations = confirmations
        self._nodes = tuple(nodes)
        self._known = False

    @classmethod
    def connect(cls, chain_id: int, rpc: Sequence[str], confirmations: int | None) -> Self:
        """Return the nodes at *rpc*; none is asked yet."""
        return cls([EvmNode.connect(url) for url in rpc], chain_id, confirmations)

    @property
    def first(self) -> EvmNode:
        """The node through which transactions are sent; its chain is known to be the right one."""
        self._check_chain()
        return self._nodes[0]

    def agreed(self, label: str, ask: Callable[[EvmNode], _Answer]) -> _Answer:
        """Return the one answer of all nodes; ``CheckedFalse`` if they differ."""
        return self._one(label, [(node, ask(node)) for node in self._nodes])

    def _one(self, label: str, answers: Sequence[tuple[EvmNode, _Answer]]) -> _Answer:
        first, answer = answers[0]
        for node, other in answers[1:]:
            if other != answer:
                raise CheckedFalse(
                    f"the nodes {first.name} and {node.name} contradict each other on {label}",
                    hint="one of them lies, or follows another fork: ask a third",
                )
        return answer

    def final(self) -> Block:
        """Return the newest block that is final to all of them."""
        self._check_chain()
        heights = []
        for node in self._nodes:
            height = node.height(self.confirmations)
            if height is None:
                raise CouldNotCheck(
                    f"the node {node.name} knows no final block yet",
                    hint="wait for more blocks, or set fewer confirmations",
                )
            heights.append(height)
        number = min(heights)
        block = self._block(number)
        if block is None:
            raise CouldNotCheck(
                f"a node names block {number} as final, and does not know it",
                hint="try again: some addresses are of several machines, and one lags behind",
            )
        return block

    def _block(self, number: int) -> Block | None:
        """Return the block at a height that all know, None if any does not know it."""
        found = [(node, node.block(number)) for node in self._nodes]
        if any(block is None for _, block in found):
            return None
        return self._one(f"block {number}", found)

    @contextmanager
    def view(self, address: str, since: int = 0) -> Iterator[View]:
        """Give a view of the contract at the newest final block, and see that it stayed.

        *since* is the block that it was deployed in.
        """
        block = self.final()
        if block.number < since:
            raise CouldNotCheck(
                f"block {since}, where the ledger begins, is not final: {block.number} is",
                hint="wait for more blocks; is fromBlock right?",
            )
        view = View(self, address, block, since)
        view.check_code()
        yield view
        if self._block(block.number) != block:
            raise CouldNotCheck(
                f"the chain was reorganised at block {block.number} while it was read",
                hint="try again; if it recurs, demand more confirmations",
            )

    def _check_chain(self) -> None:
        if self._known:
            return
        for node in self._nodes:
            found = node.chain_id()
            if found != self.chain_id:
                raise CheckedFalse(
                    f"the node {node.name} follows chain {found}, not {self.chain_id}",
                    hint="correct rpc or chainId",
                )
        self._known = True


@dataclass(frozen=True, slots=True)
class View:
    """The contract at *address*, deployed in block *since*, as of *block*, as all nodes see it."""

    nodes: Nodes
    address: str
    block: Block
    since: int

    def check_code(self) -> None:
        """Raise unless the code there is the very one that is shipped."""
        at = self.block.number
        code = self.nodes.agreed("the code", lambda node: node.code(self.address, at))
        if not code and self.nodes.first.code(self.address, "latest"):
            raise CouldNotCheck(
                f"the contract at {self.address} is in a block that is not final yet",
                hint="wait for more blocks",
            )
        if not code:
            raise CheckedFalse(
                f"there is no contract at {self.address} on chain {self.nodes.chain_id}",
                hint="correct address or chainId",
            )
        if code != shipped().runtime:
            raise CheckedFalse(
                f"the contract at {self.address} is not this release's: its code differs",
                hint="what another contract does is not known; use the release it was deployed by",
            )

    def read(self, function: str, *arguments: Any) -> Any:
        """Call a view of the contract."""
        at = self.block.number
        return self.nodes.agreed(
            function, lambda node: node.read(self.address, function, *arguments, at=at)
        )

    def logs(self, event: str) -> list[ContractEvent]:
        """Return all events of a kind that there were."""
        return self.nodes.agreed(event, lambda node: self._pieces(node, event))

    def log_about(self, event: str, topic: bytes) -> ContractEvent | None:
        """Return the one event about *topic*; None where a node will not search that far."""
        first, last = self.since, self.block.number
        try:
            found = self.nodes.agreed(
                event, lambda node: node.logs(self.address, event, first, last, topic)
            )
        except Declined:
            return None
        return found[0] if len(found) == 1 else None

    def _pieces(self, node: EvmNode, event: str) -> list[ContractEvent]:
        """Ask for as many blocks at a time as the node gives: many allow only some thousands."""
        found: list[ContractEvent] = []
        first, width = self.since, _WIDEST
        while first <= self.block.number:
            last = min(self.block.number, first + width - 1)
            try:
                found += node.logs(self.address, event, first, last)
            except Declined:
                if last == first:
                    raise
                width = max(1, (last - first + 1) // 4)
                continue
            first = last + 1
        return found


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
