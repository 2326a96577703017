"""Several nodes, which must agree: on the chain, on its blocks, on every answer about them.

One node can lie about everything; of two, one that lies is found out, though not which. Whatever is
read is read at one block, final by the policy, that all of them know by the same hash.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar

from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError
from nix_seed.evm.node import Block, ContractEvent, Declined, EvmNode, shipped

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
        view = View(self, address, block)
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
    """The contract at *address* as of *block*, as all nodes see it."""

    nodes: Nodes
    address: str
    block: Block

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

    def logs(self, event: str, first: int) -> list[ContractEvent]:
        """Return all events of a kind since block *first*."""
        return self.nodes.agreed(event, lambda node: self._pieces(node, event, first))

    def log_about(self, event: str, first: int, topic: bytes) -> ContractEvent | None:
        """Return the one event about *topic*; None where a node will not search that far."""
        last = self.block.number
        try:
            found = self.nodes.agreed(
                event, lambda node: node.logs(self.address, event, first, last, topic)
            )
        except Declined:
            return None
        return found[0] if len(found) == 1 else None

    def _pieces(self, node: EvmNode, event: str, first: int) -> list[ContractEvent]:
        """Ask for as many blocks at a time as the node gives: many allow only some thousands."""
        found: list[ContractEvent] = []
        width = _WIDEST
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
