"""One node, asked about one contract: JSON-RPC over the project's own HTTP.

HTTPS or loopback only, bounded and patient. A node's address often holds a key to it, so no more of
it than the host is ever shown. What it answers is of the right shape, and no more than that. No
usable answer is ``CouldNotCheck``; ``ContractRefused`` is the contract's own no. The compiled
contract is shipped: ``tools/compile-ledger`` makes it, and a test compares it.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import resources
from typing import Any, Final, Literal, Self

from eth_utils.address import to_checksum_address
from web3 import Web3
from web3.exceptions import BlockNotFound, TransactionNotFound, Web3RPCError
from web3.providers.base import BaseProvider, JSONBaseProvider
from web3.types import BlockIdentifier, RPCEndpoint, RPCResponse

from nix_seed.core import canonical_json
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError, NixSeedError
from nix_seed.core.safe_text import split_address
from nix_seed.core.values import dataclass
from nix_seed.registry.errors import Patience, Unreachable, asked_to_wait, retryable
from nix_seed.registry.http import Transport
from nix_seed.trust.rules.policy_file import check_rpc


@dataclass(frozen=True, slots=True)
class Artifact:
    """*bytecode* deploys the contract, *runtime* is then at its address, whoever deployed it."""

    abi: tuple[Mapping[str, Any], ...]
    bytecode: bytes
    runtime: bytes
    compiler: str


@cache
def shipped() -> Artifact:
    """Return the one contract that this release deploys and speaks to."""
    text = resources.files(__package__).joinpath("NixSeedLedger.json").read_bytes()
    value = canonical_json.loads(text, label="the compiled contract")
    return Artifact(
        tuple(value["abi"]), _unhex(value["bytecode"]), _unhex(value["runtime"]), value["compiler"]
    )


def _unhex(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


_LARGEST_ANSWER: Final = 1 << 26
_HEADERS: Final = {"Content-Type": "application/json", "Accept": "application/json"}


class HttpProvider(JSONBaseProvider):
    """A node at *url*. Every request may be repeated: a transaction sent again is the same one."""

    def __init__(self, url: str, patience: Patience | None = None) -> None:
        super().__init__()
        check_rpc(url)
        self._url = url
        self.host = split_address(url).netloc.rpartition("@")[2]
        self._patience = patience or Patience(attempts=4)
        self._transport = Transport(self._patience, os.environ)

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        """Ask, again if the node is busy; ``CouldNotCheck`` if there is no usable answer."""
        body = self.encode_rpc_request(method, params)
        return self._patience.retry(lambda: self._once(body, method))

    def _once(self, body: bytes, method: str) -> RPCResponse:
        try:
            answer = self._transport.send("POST", self._url, _HEADERS, body)
            if retryable(answer.status):
                answer.close()
                raise Unreachable(
                    f"the node {self.host} answered {answer.status} to {method}",
                    hint="try again later, or ask another node",
                    retry_after=asked_to_wait(answer.headers),
                )
            found = answer.read(_LARGEST_ANSWER)
        except Unreachable as error:
            raise self._discreet(error) from None
        if found is None:
            raise CouldNotCheck(f"the node {self.host} answered {method} with far too much")
        return self._parsed(answer.status, found, method)

    def _parsed(self, status: int, body: bytes, method: str) -> RPCResponse:
        try:
            value = canonical_json.loads(body, label="the answer")
        except InputError:
            value = None
        if not isinstance(value, dict) or not ({"result", "error"} & value.keys()):
            raise CouldNotCheck(
                f"the node {self.host} answered {status} to {method}, and not as JSON-RPC does",
                hint="is the address that of an Ethereum node, and the key in it valid?",
            )
        return value  # type: ignore[return-value]

    def _discreet(self, error: Unreachable) -> Unreachable:
        """Return *error* without the path, which may be a secret."""
        path = split_address(self._url).path
        message = error.message
        if len(path) > 1:
            message = message.replace(f"{self.host}{path}", self.host)
        return Unreachable(
            message, hint=error.hint, retry_after=error.retry_after, not_done=error.not_done
        )


class Declined(CouldNotCheck):
    """The node answers that it will not or cannot answer."""


class ContractRefused(CheckedFalse):
    """The contract would not do it, a node says; ``reason`` is the contract's own word."""

    def __init__(self, reason: str, name: str) -> None:
        super().__init__(f"the contract refuses, says the node {name}: {reason}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Block:
    """A block by its height and hash."""

    number: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class ContractEvent:
    """An event: *values* by the contract's own names."""

    event: str
    values: Mapping[str, Any]
    block: int
    index: int
    transaction: bytes


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a transaction."""

    block: Block
    succeeded: bool
    gas: int
    contract: str | None


class EvmNode:
    """Asks through *provider*, whatever it is; *name* is what people see of it."""

    def __init__(self, provider: BaseProvider, name: str) -> None:
        # A contract, or a node in its name, could else send us to fetch any address (EIP-3668).
        provider.global_ccip_read_enabled = False
        self._w3 = Web3(provider, middleware=[])
        self.name = name

    @classmethod
    def connect(cls, url: str, patience: Patience | None = None) -> Self:
        """Return the node at *url*; nothing is asked yet."""
        provider = HttpProvider(url, patience)
        return cls(provider, provider.host)

    def chain_id(self) -> int:
        """Return which chain it says it follows."""
        with self._asked("which chain it is"):
            return _whole(self._w3.eth.chain_id)

    def height(self, confirmations: int | None) -> int | None:
        """Return the highest block with so many on top (None: that it calls finalized), if any."""
        with self._asked("for its newest blocks"):
            try:
                tag: BlockIdentifier = "finalized" if confirmations is None else "latest"
                height = _whole(self._w3.eth.get_block(tag)["number"])
            except BlockNotFound:
                return None
        height -= confirmations or 0
        return height if height >= 0 else None

    def block(self, number: int) -> Block | None:
        """Return the block at a height, None if the node knows none there."""
        with self._asked(f"for block {number}"):
            try:
                found = self._w3.eth.get_block(number)
            except BlockNotFound:
                return None
            if _whole(found["number"]) != number:
                raise ValueError("another block")
            return Block(number, _word(found["hash"]))

    def code(self, address: str, at: int | Literal["latest"]) -> bytes:
        """Return the code at *address*."""
        with self._asked(f"for the code at {address}"):
            return bytes(self._w3.eth.get_code(to_checksum_address(address), at))

    def read(
        self, address: str, function: str, *arguments: Any, at: int | Literal["latest"]
    ) -> Any:
        """Call a view of the contract."""
        contract = self._w3.eth.contract(to_checksum_address(address), abi=shipped().abi)
        with self._asked(f"for {function} of {address}"):
            return contract.functions[function](*arguments).call(
                {"gas": 10_000_000}, block_identifier=at
            )

    def logs(
        self, address: str, event: str, first: int, last: int, about: bytes | None = None
    ) -> list[ContractEvent]:
        """Return the events of one kind in the blocks from *first* to *last*, in their order.

        *about* is what their first topic must be, else any.
        """
        contract = self._w3.eth.contract(to_checksum_address(address), abi=shipped().abi)
        kind = contract.events[event]
        with self._asked(f"for events from block {first} to {last}"):
            query = {
                "address": contract.address,
                "fromBlock": first,
                "toBlock": last,
                "topics": [kind().topic, *([] if about is None else ["0x" + about.hex()])],
            }
            raw = self._w3.eth.get_logs(query)  # type: ignore[arg-type]
            found = [_log(event, kind().process_log(each), each) for each in raw]
            if any(each["address"] != contract.address for each in raw):
                raise ValueError("events of another contract")
            if any(not first <= each.block <= last for each in found):
                raise ValueError("events of other blocks")
        return sorted(found, key=lambda each: (each.block, each.index))

    def nonce(self, account: str) -> int:
        """Return the number of the account's next transaction."""
        with self._asked(f"for the transactions of {account}"):
            return _whole(
                self._w3.eth.get_transaction_count(to_checksum_address(account), "pending")
            )

    def fees(self) -> dict[str, int]:
        """Return what a transaction is to offer, in wei per gas."""
        with self._asked("for the price of gas"):
            base = self._w3.eth.get_block("latest").get("baseFeePerGas")
            if base is None:
                return {"gasPrice": _whole(self._w3.eth.gas_price)}
            tip = _whole(self._w3.eth.max_priority_fee)
            # Twice the base fee lasts for six full blocks, in each of which it can rise by 1/8.
            return {"maxFeePerGas": 2 * _whole(base) + tip, "maxPriorityFeePerGas": tip}

    def estimate(self, transaction: dict[str, Any]) -> int:
        """Return the gas that *transaction* would use; ``ContractRefused`` if it would fail."""
        with self._asked("what a transaction would use"):
            return _whole(self._w3.eth.estimate_gas(transaction))  # type: ignore[arg-type]

    def send(self, raw: bytes) -> None:
        """Hand over a signed transaction; one that the node has already is no error."""
        try:
            with self._asked("to pass a transaction on"):
                self._w3.eth.send_raw_transaction(raw)
        except CouldNotCheck as error:
            if not any(words in str(error.detail).lower() for words in _KNOWN):
                raise

    def receipt(self, transaction: bytes) -> Receipt | None:
        """Return what became of a transaction, None while nothing has."""
        with self._asked("what became of a transaction"):
            try:
                found = self._w3.eth.get_transaction_receipt(transaction)  # type: ignore[arg-type]
            except TransactionNotFound:
                return None
            address = found.get("contractAddress")
            return Receipt(
                Block(_whole(found["blockNumber"]), _word(found["blockHash"])),
                _whole(found["status"]) == 1,
                _whole(found["gasUsed"]),
                to_checksum_address(address) if address else None,
            )

    @contextmanager
    def _asked(self, label: str) -> Iterator[None]:
        try:
            yield
        except NixSeedError:
            raise
        except Exception as error:  # a hostile answer can make any parser fail in any way
            words = _words(error)
            if "revert" in words.lower():
                raise ContractRefused(_reason(words), self.name) from error
            declined = isinstance(error, Web3RPCError)
            said = "refused" if declined else "gave no usable answer"
            raise (Declined if declined else CouldNotCheck)(
                f"asked {label}, the node {self.name} {said}",
                hint="ask another node with --rpc",
                detail=words or type(error).__name__,
            ) from error


_KNOWN: Sequence[str] = ("already known", "known transaction", "already imported")


def _log(event: str, decoded: Any, raw: Any) -> ContractEvent:
    return ContractEvent(
        event,
        dict(decoded["args"]),
        _whole(raw["blockNumber"]),
        _whole(raw["logIndex"]),
        _word(raw["transactionHash"]),
    )


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("not a number")
    return value


def _word(value: Any) -> bytes:
    raw = bytes(value)
    if len(raw) != 32:
        raise ValueError("not 32 bytes")
    return raw


def _words(error: Exception) -> str:
    response = getattr(error, "rpc_response", None)
    if isinstance(response, dict) and isinstance(response.get("error"), dict):
        return str(response["error"].get("message"))[:300]
    return str(error)[:300]


def _reason(words: str) -> str:
    """Return the contract's own words where they are known: what a node quotes may say anything."""
    return next((each for each in _REASONS if each in words), "it reverts, without a reason")


_REASONS: Sequence[str] = (
    "commit has an entry",
    "root has a commit",
    "no commit key",
    "no root",
    "no record",
    "not the next epoch",
    "threshold is 0",
    "threshold exceeds the builders",
    "builders not ascending",
    "builder without id",
    "two builders of one id",
    "too few signatures",
    "high s",
    "bad v",
    "signers not ascending",
    "not a builder's signature",
)
