"""Nodes that are down, busy or odd, and what they say of transactions. On a real node."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError, NixSeedError
from nix_seed.evm.contract import EvmLedger
from nix_seed.evm.node import EvmNode, HttpProvider
from nix_seed.evm.nodes import Nodes
from nix_seed.registry.errors import Patience, Unreachable
from support.chains import PATIENCE, anvil
from support.evm import Evm, release
from support.lying_node import (
    ANOTHER,
    Answer,
    answering,
    called,
    events,
    ledger_of,
    lying,
    told,
)
from support.registries import free_port


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
        nodes = Nodes([EvmNode.connect(url, PATIENCE)], world.chain.chain_id, 0)
        signed = world.signed(entry, "alice", "bob")
        ledger = EvmLedger(world.spec, nodes, world.sender, signed)
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
            nodes = Nodes([EvmNode.connect(url, PATIENCE)], world.chain.chain_id, 0)
            signed = world.signed(entry, "alice", "bob")
            ledger = EvmLedger(world.spec, nodes, world.sender, signed)
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
    ledger = EvmLedger(world.spec, nodes, hasty, world.signed(entry, "alice", "bob"))
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
        deep = EvmLedger(replace(evm.spec, confirmations=3), evm.nodes(3))
        assert deep.by_commit(release("a").commit_key) == ()
        chain.do("anvil_reorg", 2, [])
        evm.publish(release("a", "'"), "alice", "bob")
        chain.mine(4)
        [found] = deep.by_commit(release("a").commit_key)
        assert found.says(release("a", "'"))
