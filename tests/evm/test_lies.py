"""Nodes that lie, are down, or answer nonsense: what each is told apart as. On a real node."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from nix_seed.core.errors import CheckedFalse, CouldNotCheck, NixSeedError
from nix_seed.evm.contract import EvmLedger
from nix_seed.evm.node import EvmNode, HttpProvider
from nix_seed.evm.nodes import Nodes
from nix_seed.release.rules.record import LedgerEntry
from support.chains import PATIENCE, anvil
from support.evm import Evm, release
from support.lying_node import (
    ANOTHER,
    Alter,
    Answer,
    answering,
    called,
    events,
    ledger_of,
    told,
)


def honest(method: str, parameters: list[Any], result: Any) -> Any:
    return result


def test_an_honest_proxy_changes_nothing(world: Evm) -> None:
    with told(world, honest, honest) as ledger:
        assert [found.says(release(n)) for n, found in zip("abc", ledger.entries(), strict=True)]


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
    return EvmLedger(world.spec, Nodes([EvmNode(provider, "liar")], 31337, 0))


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
