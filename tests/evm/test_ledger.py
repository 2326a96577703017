"""The ledger as promotion uses it, on both back ends: publish, look up, replay, wait."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError
from nix_seed.evm.contract import EvmLedger
from nix_seed.evm.node import ContractRefused, EvmNode
from nix_seed.evm.nodes import GWEI, Nodes, Sender
from nix_seed.evm.signatures import Domain, ReleaseMessage
from nix_seed.registry.errors import Patience
from nix_seed.release.verifiers import Ledger
from support.chains import Chain
from support.evm import Evm, digest, release, with_digest


def test_it_is_a_ledger(evm: Evm) -> None:
    ledger: Ledger = evm.ledger()
    assert ledger.name == f"chain ({evm.address} on chain {evm.chain.chain_id})"


def test_what_is_published_is_found_by_commit_by_root_and_in_the_replay(evm: Evm) -> None:
    entries = [release(name) for name in "abc"]
    for entry in entries:
        found = evm.publish(entry, "bob", "alice")
        assert found.says(entry)
        assert "transaction 0x" in found.position
    ledger = evm.ledger()
    for entry in entries:
        for [found] in (ledger.by_commit(entry.commit_key), ledger.by_root(entry.root)):
            assert found.says(entry)
            assert "transaction 0x" in found.position
    replayed = list(ledger.entries())
    assert [found.says(entry) for found, entry in zip(replayed, entries, strict=True)] == [True] * 3
    assert [found.position.split(",")[0] for found in replayed] == ["entry 0", "entry 1", "entry 2"]
    assert list(ledger.entries(2)) == replayed[2:]
    assert list(ledger.entries(3)) == []


def test_what_was_never_published_is_not_there(evm: Evm) -> None:
    assert evm.ledger().by_commit(digest("nothing")) == ()
    assert evm.ledger().by_root(digest("nothing")) == ()
    assert list(evm.ledger().entries()) == []


def test_the_same_again_is_a_look_up(evm: Evm) -> None:
    """It takes neither signatures nor an account."""
    entry = release("a")
    evm.publish(entry, "alice", "bob")
    found = EvmLedger(evm.spec, evm.nodes(0)).publish(replace(entry, position="elsewhere"))
    assert found.says(entry)
    assert evm.ledger().status().count == 1


@pytest.mark.parametrize("what", ["root", "record"])
def test_another_root_or_record_for_a_commit_is_refused(evm: Evm, what: str) -> None:
    entry = release("a")
    evm.publish(entry, "alice", "bob")
    other = with_digest(entry, what, digest("other"))
    with pytest.raises(CheckedFalse) as raised:
        evm.publish(other, "alice", "bob", "carol")
    assert raised.value.message == (
        f"{evm.ledger().name} holds another {what} for this commit: {getattr(entry, what)}, "
        f"not {digest('other')}"
    )


def test_a_root_of_another_commit_is_refused(evm: Evm) -> None:
    entry = release("a")
    evm.publish(entry, "alice", "bob")
    other = replace(release("b"), root=entry.root)
    with pytest.raises(CheckedFalse, match="holds this root for another commit, whose key is"):
        evm.publish(other, "alice", "bob")


def test_too_few_signatures_name_who_is_missing(evm: Evm) -> None:
    entry = release("a")
    with pytest.raises(CheckedFalse) as raised:
        evm.publish(entry, "carol")
    missing = [each.id for each in evm.ledger().status().builders.builders if each.id != "carol"]
    assert raised.value.message == (
        f"1 of the 2 builders of epoch 1 that must sign did; missing: {', '.join(missing)}"
    )
    assert raised.value.hint == "each builder signs with 'nix-seed ledger evm sign'"


def test_signatures_that_do_not_count_are_told_why(evm: Evm) -> None:
    entry = release("a")
    own = evm.signed(entry, "alice")
    cases = [
        (evm.signed(entry, "mallory"), f"no builders of this epoch: {evm.keys['mallory'].address}"),
        (own, "each builder signs with 'nix-seed ledger evm sign'"),
        (
            evm.sign(ReleaseMessage(entry, 1), "bob", domain=Domain(1, evm.address)),
            "the other signatures are for another contract, chain, epoch or content",
        ),
        (
            evm.signed(entry, "bob", epoch=7),
            "signatures of epoch 7 count no more: the builders have changed; sign anew",
        ),
    ]
    for others, hint in cases:
        with pytest.raises(CheckedFalse) as raised:
            evm.ledger([*own, *others] if others is not own else own).publish(entry)
        assert raised.value.message.startswith("1 of the 2 builders"), hint
        assert raised.value.hint == hint


def test_a_signature_given_twice_counts_once(evm: Evm) -> None:
    entry = release("a")
    [one] = evm.signed(entry, "alice")
    with pytest.raises(CheckedFalse, match="1 of the 2 builders"):
        evm.ledger([one, one, replace(one)]).publish(entry)


def test_publishing_takes_an_account(evm: Evm) -> None:
    entry = release("a")
    ledger = EvmLedger(evm.spec, evm.nodes(0), signatures=evm.signed(entry, "alice", "bob"))
    with pytest.raises(InputError, match="takes an account that pays") as raised:
        ledger.publish(entry)
    assert raised.value.hint == "name its key with --key"


def test_an_account_without_money_enters_nothing(evm: Evm) -> None:
    entry = release("a")
    poor = Sender(evm.keys["mallory"], wait=0.0)
    with pytest.raises(CouldNotCheck):
        evm.ledger(evm.signed(entry, "alice", "bob"), poor).publish(entry)
    assert evm.ledger().by_commit(entry.commit_key) == ()


def test_two_promoters_race_to_one_entry(evm: Evm, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one is first, between this one's look and its transaction."""
    entry, rival = release("a"), release("b", "'")
    send = Sender.send

    def beaten(sender: Sender, *arguments: object) -> object:
        monkeypatch.setattr(Sender, "send", send)
        evm.publish(entry, "bob", "carol")
        return send(sender, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Sender, "send", beaten)
    assert evm.publish(entry, "alice", "bob").says(entry)
    assert evm.ledger().status().count == 1

    def beaten_by_another(sender: Sender, *arguments: object) -> object:
        monkeypatch.setattr(Sender, "send", send)
        evm.publish(rival, "bob", "carol")
        return send(sender, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Sender, "send", beaten_by_another)
    with pytest.raises(CheckedFalse, match="holds another root for this commit"):
        evm.publish(release("b"), "alice", "bob")


def test_gas_may_not_cost_more_than_allowed(evm: Evm) -> None:
    entry = release("a")
    careful = replace(evm.sender, most=1)
    ledger = evm.ledger(evm.signed(entry, "alice", "bob"), careful)
    with pytest.raises(InputError, match=r"at most 0\.0 are to be paid") as raised:
        ledger.publish(entry)
    assert raised.value.hint == "wait until it is cheaper, or raise --max-fee"
    assert careful.most < GWEI


def test_an_entry_counts_only_once_it_is_final(chain: Chain) -> None:
    evm = Evm(chain, confirmations=0)
    chain.mine(3)
    evm.confirmations = 3
    entry = release("a")
    naps = evm.naps
    assert evm.publish(entry, "alice", "bob").says(entry)
    assert evm.naps - naps >= 3, "it waited for three blocks on top"
    impatient = replace(evm.sender, wait=0.0, patience=Patience(sleep=lambda _: None))
    other = release("b")
    ledger = evm.ledger(evm.signed(other, "alice", "bob"), impatient)
    with pytest.raises(CouldNotCheck, match="it is sent, and not final within 0 s") as raised:
        ledger.publish(other)
    assert raised.value.hint is not None
    assert "what is entered is not entered twice" in raised.value.hint
    assert evm.ledger().by_commit(other.commit_key) == ()
    assert evm.publish(other).says(other), "the same again waits, and sends nothing"
    assert evm.ledger().status().count == 2


def test_no_block_is_final_yet(chain: Chain) -> None:
    evm = Evm(chain, confirmations=0)
    evm.confirmations = 1_000_000
    with pytest.raises(CouldNotCheck, match="knows no final block yet"):
        evm.ledger().by_commit(digest("a"))
    contract = EvmLedger(replace(evm.spec, confirmations=0, from_block=1_000_000), evm.nodes(0))
    with pytest.raises(CouldNotCheck, match="block 1000000, where the ledger begins, is not final"):
        contract.status()


def test_a_reorganised_entry_is_gone_and_is_entered_again(chain: Chain) -> None:
    evm = Evm(chain)
    entry, rival = release("a"), release("a", "'")
    mark = chain.keep()
    evm.publish(entry, "alice", "bob")
    chain.rewind(mark)
    assert evm.ledger().by_commit(entry.commit_key) == ()
    assert evm.publish(rival, "alice", "bob").says(rival), "nothing was final: confirmations are 0"
    with pytest.raises(CheckedFalse, match="holds another root"):
        evm.publish(entry, "alice", "bob")


def test_a_chain_reorganised_while_it_is_read_is_read_again(chain: Chain) -> None:
    evm = Evm(chain)
    mark = chain.keep()
    evm.publish(release("a"), "alice", "bob")
    message = r"the chain was reorganised at block \d+ while it was read"

    def read_late() -> None:
        with evm.ledger().view() as view:
            assert view.read("count") == 1
            chain.rewind(mark)
            evm.publish(release("b"), "alice", "bob")

    with pytest.raises(CouldNotCheck, match=message):
        read_late()


def test_a_chain_that_got_shorter_while_it_is_read(chain: Chain) -> None:
    evm = Evm(chain)
    mark = chain.keep()
    chain.mine(3)

    def read_late() -> None:
        with evm.ledger().view() as view:
            assert view.read("count") == 0
            chain.rewind(mark)

    with pytest.raises(CouldNotCheck, match="was reorganised at block"):
        read_late()


def test_waiting_for_a_transaction_survives_a_reorganisation(chain: Chain) -> None:
    """Its block is undone while confirmations are awaited: it is not called final."""
    evm = Evm(chain)
    chain.mine(2)
    evm.confirmations = 2
    entry = release("a")
    mark, height = chain.keep(), evm.ledger().nodes.first.height(0)
    undone = False

    def sleep(seconds: float) -> None:
        nonlocal undone
        if not undone:
            # A real node mines by itself, and what it has not mined yet is not undone.
            while evm.ledger().nodes.first.height(0) == height:
                time.sleep(0.01)
            undone = True
            chain.rewind(mark)
        chain.mine()

    ticks = iter(range(1000))
    patience = Patience(sleep=sleep, monotonic=lambda: float(next(ticks)))
    hasty = replace(evm.sender, wait=8.0, patience=patience)
    ledger = evm.ledger(evm.signed(entry, "alice", "bob"), hasty)
    with pytest.raises(CouldNotCheck, match="not final within 8 s"):
        ledger.publish(entry)
    assert undone
    assert evm.ledger().by_commit(entry.commit_key) == ()


def test_the_wrong_chain_and_the_wrong_contract(evm: Evm) -> None:
    spec = evm.spec
    elsewhere = Nodes([EvmNode(evm.chain.provider, "here")], 1, 0)
    with pytest.raises(
        CheckedFalse, match=f"the node here follows chain {evm.chain.chain_id}, not 1"
    ):
        EvmLedger(replace(spec, chain_id=1), elsewhere).status()
    evm.chain.mine()
    early = EvmLedger(replace(spec, confirmations=3, from_block=0), evm.nodes(3))
    with pytest.raises(CouldNotCheck, match=r"is in a block that is not final yet"):
        early.status()
    nobody = replace(spec, address="0x" + "12" * 20)
    with pytest.raises(
        CheckedFalse, match=f"there is no contract at 0x12.* on chain {spec.chain_id}"
    ):
        EvmLedger(nobody, evm.nodes(0)).status()


def test_nodes_are_needed(evm: Evm) -> None:
    with pytest.raises(InputError, match="no node to ask"):
        Nodes([], evm.chain.chain_id, 0)


def test_builders_change_and_their_history_is_replayed(evm: Evm) -> None:
    first = evm.ledger().status().builders
    second = evm.builders("alice", "mallory", threshold=1, epoch=2)
    evm.ledger(evm.sign(second, "alice", "carol")).set_builders(second)
    third = evm.builders("mallory", threshold=1, epoch=3)
    evm.ledger(evm.sign(third, "alice")).set_builders(third)
    assert evm.ledger().history() == (first, second, third)
    assert evm.ledger().status().builders == third
    with pytest.raises(CheckedFalse, match="are for epoch 2, and the contract's next is 4"):
        evm.ledger(evm.sign(second, "alice", "carol")).set_builders(second)
    fourth = evm.builders("alice", threshold=1, epoch=4)
    with pytest.raises(CheckedFalse, match=r"0 of the 1 builders of epoch 3 .* missing: mallory"):
        evm.ledger(evm.sign(fourth, "alice")).set_builders(fourth)


def test_refusals_are_quoted_in_the_contracts_own_words(evm: Evm) -> None:
    with pytest.raises(ContractRefused) as raised:
        evm.call_publish(release("a"), [])
    assert raised.value.message == (
        f"the contract refuses, says the node {evm.chain.name}: too few signatures"
    )
    assert raised.value.exit_code == 1
