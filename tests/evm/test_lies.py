"""Nodes that lie, are down, or answer nonsense: what each is told apart as. On a real node."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import pytest

from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError, NixSeedError
from nix_seed.evm.contract import Contract, EvmLedger
from nix_seed.evm.node import EvmNode, HttpProvider
from nix_seed.evm.nodes import Nodes
from nix_seed.registry.errors import Patience, Unreachable
from nix_seed.release.rules.record import LedgerEntry
from support.chains import PATIENCE, Anvil, anvil
from support.evm import Evm, release
from support.lying_node import Alter, Answer, lying
from support.registries import free_port


@pytest.fixture(scope="module")
def world(node: Anvil) -> Evm:
    """A contract with three entries."""
    evm = Evm(node)
    for name in "abc":
        evm.publish(release(name), "alice", "bob")
    return evm


def ledger_of(world: Evm, urls: Sequence[str], confirmations: int | None = 0) -> EvmLedger:
    nodes = [EvmNode.connect(url, PATIENCE) for url in urls]
    return EvmLedger(Contract(world.spec, Nodes(nodes, world.chain.chain_id, confirmations)))


@contextmanager
def told(world: Evm, *alters: Alter) -> Iterator[EvmLedger]:
    """The ledger as seen through one liar each for *alters*, and nobody else."""
    with ExitStack() as stack:
        assert world.chain.url is not None
        urls = [stack.enter_context(lying(world.chain.url, alter)) for alter in alters]
        yield ledger_of(world, urls)


def honest(method: str, parameters: list[Any], result: Any) -> Any:
    return result


def test_an_honest_proxy_changes_nothing(world: Evm) -> None:
    with told(world, honest, honest) as ledger:
        assert [found.says(release(n)) for n, found in zip("abc", ledger.entries(), strict=True)]


def answering(name: str, value: Any) -> Alter:
    def alter(method: str, parameters: list[Any], result: Any) -> Any:
        return value if method == name else result

    return alter


def events(change: Any) -> Alter:
    """Alter the list of releases that the node shows."""

    def alter(method: str, parameters: list[Any], result: Any) -> Any:
        return change(result) if method == "eth_getLogs" else result

    return alter


def first_with(key: str, value: Any) -> Any:
    return lambda logs: [logs[0] | {key: value}, *logs[1:]]


def other_record(logs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [logs[0] | {"data": "0x" + "99" * 32 + logs[0]["data"][66:]}, *logs[1:]]


def other_root(logs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    topics = logs[1]["topics"]
    return [logs[0], logs[1] | {"topics": [*topics[:2], "0x" + "77" * 32]}, logs[2]]


FALSE, UNKNOWN = CheckedFalse, CouldNotCheck

REPLAYS: dict[str, tuple[Any, type[NixSeedError], str]] = {
    "the last is withheld": (lambda logs: logs[:-1], UNKNOWN, "1 of the 3 entries .* number 2"),
    "the first is withheld": (lambda logs: logs[1:], UNKNOWN, "1 of the 3 entries .* number 0"),
    "all are withheld": (lambda logs: [], UNKNOWN, "3 of the 3 entries .* number 0"),
    "one is shown twice": (lambda logs: [logs[0], *logs], FALSE, "not numbered 0 to 2"),
    "a record is altered": (other_record, FALSE, "are not those it was made by"),
    "a root is altered": (other_root, FALSE, "are not those it was made by"),
    "another contract's": (first_with("address", "0x" + "12" * 20), UNKNOWN, "no usable answer"),
    "of a block that is none": (first_with("blockNumber", "0xffffff"), UNKNOWN, "no usable answer"),
    "without its topics": (first_with("topics", []), UNKNOWN, "no usable answer"),
    "another count": (lambda logs: [*logs, logs[2]], FALSE, "not numbered 0 to 2"),
    "not a list": (lambda logs: {"a": 1}, UNKNOWN, "no usable answer"),
}


@pytest.mark.parametrize("name", REPLAYS)
def test_a_replay_that_is_not_what_happened(world: Evm, name: str) -> None:
    """One node alone, and yet its own state betrays the events that it shows."""
    change, kind, words = REPLAYS[name]
    with told(world, events(change)) as ledger:
        with pytest.raises(kind, match=words) as raised:
            list(ledger.entries())
        assert type(raised.value) is kind


def test_swapped_entries_are_put_in_order_by_their_blocks(world: Evm) -> None:
    with told(world, events(lambda logs: logs[::-1])) as ledger:
        assert len(list(ledger.entries())) == 3


def called(function: str, value: str) -> Alter:
    """Answer calls of a view with *value*."""
    from eth_utils.crypto import keccak

    selector = "0x" + keccak(text=function)[:4].hex()

    def alter(method: str, parameters: list[Any], result: Any) -> Any:
        if method != "eth_call":
            return result
        data = parameters[0].get("data") or parameters[0].get("input")
        return value if data.startswith(selector) else result

    return alter


ANOTHER = "0x" + "55" * 64


def test_a_head_that_does_not_fit_its_events(world: Evm) -> None:
    with (
        told(world, called("head()", "0x" + "55" * 32)) as ledger,
        pytest.raises(CheckedFalse, match="are not those it was made by"),
    ):
        list(ledger.entries())


def test_a_count_that_no_computer_could_list(world: Evm) -> None:
    with (
        told(world, called("count()", "0x" + "ff" * 32)) as ledger,
        pytest.raises(CouldNotCheck, match=r"entries .* the first that lacks is number 3"),
    ):
        list(ledger.entries())


LIES_FOUND_BY_TWO: dict[str, Alter] = {
    "another root": called("entries(bytes32)", ANOTHER),
    "no entry": called("entries(bytes32)", "0x" + "00" * 64),
}


@pytest.mark.parametrize("name", LIES_FOUND_BY_TWO)
def test_of_two_nodes_one_that_lies_is_found_out(world: Evm, name: str) -> None:
    alter = LIES_FOUND_BY_TWO[name]
    key = release("a").commit_key
    for pair in ((honest, alter), (alter, honest)):
        message = "contradict each other on entries"
        with told(world, *pair) as ledger, pytest.raises(CheckedFalse, match=message) as raised:
            ledger.by_commit(key)
        assert raised.value.hint == "one of them lies, or follows another fork: ask a third"


def test_nodes_on_two_forks(world: Evm) -> None:
    """Both honest: two chains of one number."""
    with anvil() as other:
        assert world.chain.url is not None
        other.mine(100)
        assert other.url is not None
        ledger = ledger_of(world, [world.chain.url, other.url])
        with pytest.raises(CheckedFalse, match=r"contradict each other on block \d+"):
            ledger.by_commit(release("a").commit_key)


def test_alone_a_node_is_believed_that_lies_consistently(world: Evm) -> None:
    """The limit that docs/ledger-evm.md states: it takes a second node."""
    alter = LIES_FOUND_BY_TWO["no entry"]
    with told(world, alter) as ledger:
        assert ledger.by_commit(release("a").commit_key) == ()


def test_an_index_of_roots_that_does_not_fit(world: Evm) -> None:
    key = "0x" + release("b").commit_key.hex
    with (
        told(world, called("commitOf(bytes32)", key)) as ledger,
        pytest.raises(CheckedFalse, match="shows another root for the commit of the root"),
    ):
        ledger.by_root(release("a").root)


def unknown_by_number(method: str, parameters: list[Any], result: Any) -> Any:
    """As behind an address of several machines, of which one lags behind."""
    return None if method == "eth_getBlockByNumber" and parameters[0] != "latest" else result


@pytest.mark.parametrize(
    ("alter", "kind", "words"),
    [
        (answering("eth_chainId", "0x1"), FALSE, "follows chain 1, not 31337"),
        (answering("eth_getCode", "0x"), FALSE, "there is no contract at"),
        (answering("eth_getCode", "0x6001"), FALSE, "is not this release's: its code differs"),
        (answering("eth_getCode", None), UNKNOWN, "gave no usable answer"),
        (answering("eth_chainId", "many"), UNKNOWN, "gave no usable answer"),
        (answering("eth_chainId", None), UNKNOWN, "gave no usable answer"),
        (answering("eth_getBlockByNumber", None), UNKNOWN, "knows no final block yet"),
        (unknown_by_number, UNKNOWN, "names block [0-9]+ as final, and does not know it"),
        (answering("eth_getBlockByNumber", {}), UNKNOWN, "gave no usable answer"),
        (answering("eth_getBlockByNumber", {"number": "0x1", "hash": "0x12"}), UNKNOWN, "usable"),
        (called("entries(bytes32)", "0x"), UNKNOWN, "gave no usable answer"),
        (called("entries(bytes32)", "0x" + "11" * 63), UNKNOWN, "gave no usable answer"),
        (called("entries(bytes32)", "zz"), UNKNOWN, "gave no usable answer"),
    ],
)  # fmt: skip
def test_lies_about_the_chain_and_nonsense(
    world: Evm, alter: Alter, kind: type[NixSeedError], words: str
) -> None:
    with told(world, alter) as ledger, pytest.raises(kind, match=words) as raised:
        ledger.by_commit(release("a").commit_key)
    assert type(raised.value) is kind


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (200, b"<html>", "answered 200 to eth_chainId, and not as JSON-RPC does"),
        (200, b"[]", "not as JSON-RPC does"),
        (200, b'{"jsonrpc": "2.0", "id": 1}', "not as JSON-RPC does"),
        (200, b'{"jsonrpc": "2.0", "id": 1, "result": "0x1", "result": "0x7a69"}', "not as JSON"),
        (401, b"no such key", "answered 401 to eth_chainId"),
        (500, b"", "answered 500 to eth_chainId"),
        (
            200,
            b'{"jsonrpc": "2.0", "id": 1, "error": {"code": -32000, "message": "over the limit"}}',
            "asked which chain it is, the node 127.0.0.1:[0-9]+ refused",
        ),
    ],
)
def test_answers_that_are_none(world: Evm, status: int, body: bytes, words: str) -> None:
    def alter(method: str, parameters: list[Any], result: Any) -> Any:
        raise Answer(status, body)

    with told(world, alter) as ledger, pytest.raises(CouldNotCheck, match=words):
        ledger.by_commit(release("a").commit_key)


GARBAGE: list[Any] = [None, True, -1, 10**30, "", "0x", "0xzz", "0x1", "0x" + "f" * 80, [], {}]
PLACES: list[tuple[str, tuple[Any, ...]]] = [
    ("eth_chainId", ()),
    ("eth_getBlockByNumber", ()),
    ("eth_getBlockByNumber", ("number",)),
    ("eth_getBlockByNumber", ("hash",)),
    ("eth_getCode", ()),
    ("eth_call", ()),
    ("eth_getLogs", ()),
    ("eth_getLogs", (0,)),
    *(("eth_getLogs", (0, name)) for name in (
        "address", "data", "topics", "blockNumber", "logIndex", "transactionHash", "blockHash",
        "transactionIndex", "removed",
    )),
    *(("eth_getLogs", (0, "topics", number)) for number in range(3)),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), PLACES)
def test_garbage_anywhere_is_never_taken_for_an_answer(
    world: Evm, method: str, path: tuple[Any, ...]
) -> None:
    """Whatever comes back, what is told is the truth, or that it is not known, or a lie."""
    told = 0
    for garbage in GARBAGE:
        ledger = altered(world, method, path, garbage)
        for find in (by_commit_a, EvmLedger.entries):
            found = answer_of(ledger, find)
            told += found is None
            # An older state, or none, is all that it can make believe; see docs/ledger-evm.md.
            for entry, name in zip(found or (), "abc", strict=False):
                assert entry.says(release(name)), garbage
    # Members of an event that say only where it lies are not needed, and not believed.
    assert told or path[-1:] in [("blockHash",), ("transactionIndex",), ("removed",)]


def by_commit_a(ledger: EvmLedger) -> tuple[LedgerEntry, ...]:
    return ledger.by_commit(release("a").commit_key)


def answer_of(
    ledger: EvmLedger, find: Callable[[EvmLedger], Iterable[LedgerEntry]]
) -> list[LedgerEntry] | None:
    """Return what is found; None where that is refused, as what cannot be an answer must be."""
    try:
        return list(find(ledger))
    except (CheckedFalse, CouldNotCheck):
        return None


def altered(world: Evm, method: str, path: tuple[Any, ...], garbage: Any) -> EvmLedger:
    assert world.chain.url is not None
    provider = Altered(world.chain.url, method, path, garbage)
    return EvmLedger(Contract(world.spec, Nodes([EvmNode(provider, "liar")], 31337, 0)))


class Altered(HttpProvider):
    """Puts *garbage* at one place of one method's answers."""

    def __init__(self, url: str, method: str, path: tuple[Any, ...], garbage: Any) -> None:
        super().__init__(url, PATIENCE)
        self.change = method, path, garbage

    def make_request(self, method: Any, params: Any) -> Any:
        answer: Any = super().make_request(method, params)
        where, path, garbage = self.change
        if method == where and (answer.get("result") or not path):
            answer["result"] = put(answer["result"], path, garbage)
        return answer


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    value[path[0]] = put(value[path[0]], path[1:], new)
    return value


def test_a_node_that_is_down_is_not_one_that_lies(world: Evm) -> None:
    url = f"http://127.0.0.1:{free_port()}/v3/a-secret-key"
    assert world.chain.url is not None
    for urls in ([url], [world.chain.url, url]):
        with pytest.raises(Unreachable, match="no connection could be made") as raised:
            ledger_of(world, urls).by_commit(release("a").commit_key)
        assert "secret" not in str(raised.value)
        assert raised.value.exit_code == 3


def test_a_node_that_is_busy_is_asked_again(world: Evm) -> None:
    naps: list[float] = []
    refusals = iter([429, 503])

    def alter(method: str, parameters: list[Any], result: Any) -> Any:
        for status in refusals:
            raise Answer(status, b"")
        return result

    assert world.chain.url is not None
    with lying(world.chain.url, alter, "/v3/a-secret-key") as url:
        patient = Patience(attempts=4, base=0.01, sleep=naps.append)
        assert EvmNode(HttpProvider(url, patient), "patient").chain_id() == 31337
    assert len(naps) == 2


def test_plain_http_is_for_this_machine_only() -> None:
    for url in ("http://node.example/", "ftp://127.0.0.1", "https://", "node", "http://[::1"):
        with pytest.raises(InputError, match="is no address of a node"):
            HttpProvider(url)


def test_state_and_events_that_contradict_each_other(world: Evm) -> None:
    with (
        told(world, called("entries(bytes32)", ANOTHER)) as ledger,
        pytest.raises(CheckedFalse, match="one entry for a commit in its state, another in its"),
    ):
        ledger.by_commit(release("a").commit_key)


def test_an_entry_is_found_without_its_event(world: Evm) -> None:
    """Where it lies is for people; that it is there is the state's to say."""
    with told(world, events(lambda logs: [])) as ledger:
        [found] = ledger.by_commit(release("a").commit_key)
    assert found.says(release("a"))
    assert found.position.startswith("by block ")


def test_nodes_that_give_few_blocks_at_a_time(world: Evm) -> None:
    """Many allow some thousands; the replay goes on in pieces."""
    asked: list[int] = []

    def alter(method: str, parameters: list[Any], result: Any) -> Any:
        if method == "eth_getLogs":
            width = int(parameters[0]["toBlock"], 16) - int(parameters[0]["fromBlock"], 16) + 1
            asked.append(width)
            if width > 2:
                error = {"code": -32005, "message": "query returned more than 10000 results"}
                reply = {"jsonrpc": "2.0", "id": 0, "error": error}
                raise Answer(200, json.dumps(reply).encode())
        return result

    with told(world, alter) as ledger:
        assert len(list(ledger.entries())) == 3
    assert asked[-1] <= 2
    assert asked[0] > 2


def test_an_error_that_is_forever_ends_the_replay(world: Evm) -> None:
    def alter(method: str, parameters: list[Any], result: Any) -> Any:
        if method == "eth_getLogs":
            error = {"code": -32601, "message": "eth_getLogs is not served here"}
            raise Answer(200, json.dumps({"jsonrpc": "2.0", "id": 0, "error": error}).encode())
        return result

    message = r"asked for events from block (\d+) to \1"
    with told(world, alter) as ledger, pytest.raises(CouldNotCheck, match=message) as raised:
        list(ledger.entries())
    assert raised.value.detail == "eth_getLogs is not served here"


def test_a_claimed_revert_is_quoted_in_known_words_only(world: Evm) -> None:
    def alter(method: str, parameters: list[Any], result: Any) -> Any:
        if method == "eth_estimateGas":
            error = {"code": 3, "message": "execution reverted: send money to 0x12"}
            raise Answer(200, json.dumps({"jsonrpc": "2.0", "id": 0, "error": error}).encode())
        return result

    entry = release("d")
    assert world.chain.url is not None
    with lying(world.chain.url, alter) as url:
        reading = ledger_of(world, [url])
        ledger = EvmLedger(reading.contract, world.sender, world.signed(entry, "alice", "bob"))
        with pytest.raises(CheckedFalse, match="it reverts, without a reason") as raised:
            ledger.publish(entry)
    assert "money" not in str(raised.value)


def test_a_price_or_an_amount_of_gas_that_is_made_up(world: Evm) -> None:
    entry = release("e")
    cases = [
        (answering("eth_maxPriorityFeePerGas", hex(10**15)), InputError, "gas is said to cost"),
        (answering("eth_estimateGas", hex(10**9)), CheckedFalse, "would take 1200000000 gas"),
    ]
    assert world.chain.url is not None
    for alter, kind, words in cases:
        with lying(world.chain.url, alter) as url:
            reading = ledger_of(world, [url])
            ledger = EvmLedger(reading.contract, world.sender, world.signed(entry, "alice", "bob"))
            with pytest.raises(kind, match=words):
                ledger.publish(entry)
    assert world.ledger().by_commit(entry.commit_key) == ()


def test_a_transaction_said_to_be_made_that_was_not(world: Evm) -> None:
    """The node swallows it: nothing is called entered that is not there."""
    entry = release("f")
    hasty = replace(world.sender, wait=0.0)

    def alter(method: str, parameters: list[Any], result: Any) -> Any:
        return result

    swallowed: list[str] = []

    class Swallowing(HttpProvider):
        def make_request(self, method: Any, params: Any) -> Any:
            if method == "eth_sendRawTransaction":
                swallowed.append(method)
                return {"jsonrpc": "2.0", "id": 0, "result": "0x" + "11" * 32}
            return super().make_request(method, params)

    assert world.chain.url is not None
    nodes = Nodes([EvmNode(Swallowing(world.chain.url, PATIENCE), "thief")], 31337, 0)
    ledger = EvmLedger(Contract(world.spec, nodes), hasty, world.signed(entry, "alice", "bob"))
    with pytest.raises(CouldNotCheck, match="it is sent, and not final within 0 s"):
        ledger.publish(entry)
    assert swallowed
    assert world.ledger().by_commit(entry.commit_key) == ()


def test_a_contract_may_not_send_us_elsewhere(world: Evm) -> None:
    """EIP-3668: a revert that names addresses to fetch from, which a client would obey."""
    fetched: list[str] = []

    def spy(method: str, parameters: list[Any], result: Any) -> Any:
        fetched.append(method)
        return result

    assert world.chain.url is not None
    with lying(world.chain.url, spy) as trap:
        from eth_abi.abi import encode

        body = encode(
            ["address", "string[]", "bytes", "bytes4", "bytes"],
            [world.address, [trap + "/{sender}/{data}"], b"", b"\0" * 4, b""],
        )
        data = "0x556f1830" + body.hex()

        def alter(method: str, parameters: list[Any], result: Any) -> Any:
            if method != "eth_call":
                return result
            error = {"code": 3, "message": "execution reverted", "data": data}
            raise Answer(200, json.dumps({"jsonrpc": "2.0", "id": 0, "error": error}).encode())

        with told(world, alter) as ledger, pytest.raises(NixSeedError):
            ledger.by_commit(release("a").commit_key)
    assert fetched == []


def test_what_is_final_may_be_left_to_the_node() -> None:
    """Without confirmations it is the block that the node calls finalized."""
    with anvil("--slots-in-an-epoch", "2") as chain:
        evm = Evm(chain)
        chain.mine(10)
        evm.confirmations = None
        entry = release("a")
        before = evm.naps
        assert evm.publish(entry, "alice", "bob").says(entry)
        assert evm.naps - before >= 3, "it waited for two epochs"


def test_a_reorganisation_by_the_node_itself() -> None:
    with anvil() as chain:
        evm = Evm(chain)
        chain.mine(5)
        evm.publish(release("a"), "alice", "bob")
        deep = EvmLedger(Contract(replace(evm.spec, confirmations=3), evm.nodes(3)))
        assert deep.by_commit(release("a").commit_key) == ()
        chain.do("anvil_reorg", 2, [])
        evm.publish(release("a", "'"), "alice", "bob")
        chain.mine(4)
        [found] = deep.by_commit(release("a").commit_key)
        assert found.says(release("a", "'"))
