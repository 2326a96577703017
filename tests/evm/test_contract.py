"""The contract itself, past the client: what it takes, and everything that it must refuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random

import pytest

from nix_seed.core.digests import Digest
from nix_seed.evm.node import ContractRefused, shipped
from nix_seed.evm.signatures import (
    BuilderSet,
    Domain,
    EvmBuilder,
    EvmKey,
    EvmSignature,
    ReleaseMessage,
)
from nix_seed.release.rules.record import LedgerEntry
from support.chains import Chain, anvil
from support.evm import Evm, ascending, digest, release, with_digest

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


def refused(evm: Evm, entry: LedgerEntry, signatures: list[EvmSignature]) -> str:
    with pytest.raises(ContractRefused) as raised:
        evm.call_publish(entry, signatures)
    assert evm.ledger().by_commit(entry.commit_key) == ()
    return raised.value.reason


def test_what_a_threshold_signed_is_entered(evm: Evm) -> None:
    entry = release("a")
    evm.call_publish(entry, ascending(evm.signed(entry, "alice", "carol")))
    [found] = evm.ledger().by_commit(entry.commit_key)
    assert found is not None
    assert found.says(entry)
    assert evm.ledger().by_root(entry.root) == (found,)


def test_more_than_the_threshold_may_sign(evm: Evm) -> None:
    entry = release("a")
    evm.call_publish(entry, ascending(evm.signed(entry, "alice", "bob", "carol")))
    assert evm.ledger().status().count == 1


def test_too_few(evm: Evm) -> None:
    entry = release("a")
    assert refused(evm, entry, evm.signed(entry, "alice")) == "too few signatures"
    assert refused(evm, entry, []) == "too few signatures"


def test_one_signer_twice_is_one(evm: Evm) -> None:
    entry = release("a")
    [one] = evm.signed(entry, "alice")
    assert refused(evm, entry, [one, one]) == "signers not ascending"


def test_one_signer_twice_by_malleability(evm: Evm) -> None:
    """(r, s, v) and (r, -s, v') are both valid to ecrecover, and of one signer."""
    entry = release("a")
    [one] = evm.signed(entry, "alice")
    s = ORDER - int.from_bytes(one.raw[32:64])
    other = replace(one, raw=one.raw[:32] + s.to_bytes(32) + bytes([55 - one.raw[64]]))
    for pair in ([one, other], [other, one]):
        assert refused(evm, entry, pair) == "high s"
    both = ascending([*evm.signed(entry, "bob"), other])
    assert refused(evm, entry, both) == "high s"


def test_descending_signers(evm: Evm) -> None:
    entry = release("a")
    both = ascending(evm.signed(entry, "alice", "bob"))
    assert refused(evm, entry, both[::-1]) == "signers not ascending"


def test_a_stranger(evm: Evm) -> None:
    entry = release("a")
    both = ascending(evm.signed(entry, "alice", "mallory"))
    assert refused(evm, entry, both) == "not a builder's signature"


@pytest.mark.parametrize(
    "raw",
    [
        bytes(64) + b"\x1b",
        bytes(31) + b"\x01" + bytes(32) + b"\x1b",
        bytes(32) + bytes(31) + b"\x01" + b"\x1c",
        ORDER.to_bytes(32) + bytes(31) + b"\x01" + b"\x1b",
    ],
    ids=["zeros", "s is 0", "r is 0", "r is the order"],
)
def test_what_recovers_to_nobody(evm: Evm, raw: bytes) -> None:
    """ecrecover answers the zero address: never a builder, and never above another."""
    entry = release("a")
    [one] = evm.signed(entry, "alice")
    nobody = replace(one, raw=raw)
    assert refused(evm, entry, [nobody, one]) == "signers not ascending"
    assert refused(evm, entry, [nobody, nobody]) == "signers not ascending"


@pytest.mark.parametrize("v", [0, 1, 26, 29, 35])
def test_another_v(evm: Evm, v: int) -> None:
    entry = release("a")
    both = ascending(evm.signed(entry, "alice", "bob"))
    both[0] = replace(both[0], raw=both[0].raw[:64] + bytes([v]))
    assert refused(evm, entry, both) == "bad v"


def test_signatures_for_something_else(evm: Evm) -> None:
    """Another contract, chain, commit, root, record or epoch: they recover to strangers."""
    entry = release("a")
    other = Evm(evm.chain)
    for domain in (
        Domain(evm.chain.chain_id, other.address),
        Domain(evm.chain.chain_id + 1, evm.address),
    ):
        signatures = ascending(evm.sign(ReleaseMessage(entry, 1), "alice", "bob", domain=domain))
        assert_strange(evm, entry, signatures)
    for name in ("commit_key", "root", "record"):
        signed = with_digest(entry, name, digest("something else"))
        assert_strange(evm, entry, evm.signed(signed, "alice", "bob"))
    assert_strange(evm, entry, evm.signed(entry, "alice", "bob", epoch=2))


def assert_strange(evm: Evm, entry: LedgerEntry, signatures: list[EvmSignature]) -> None:
    # To whom they recover is anybody's guess, so either order may be the descending one.
    both = {refused(evm, entry, signatures), refused(evm, entry, signatures[::-1])}
    assert both <= {"not a builder's signature", "signers not ascending"}
    assert "not a builder's signature" in both


def test_a_commit_has_one_root_for_good(evm: Evm) -> None:
    first, second = release("a"), release("a", "'")
    evm.publish(first, "alice", "bob")
    for again in (first, second, replace(first, record=digest("other"))):
        signatures = ascending(evm.signed(again, "alice", "bob", "carol"))
        with pytest.raises(ContractRefused) as raised:
            evm.call_publish(again, signatures)
        assert raised.value.reason == "commit has an entry"
    [found] = evm.ledger().by_commit(first.commit_key)
    assert found is not None
    assert found.says(first)


def test_a_root_has_one_commit(evm: Evm) -> None:
    first = release("a")
    evm.publish(first, "alice", "bob")
    other = replace(release("b"), root=first.root)
    signatures = ascending(evm.signed(other, "alice", "bob"))
    assert refused(evm, other, signatures) == "root has a commit"


@pytest.mark.parametrize(
    ("name", "reason"),
    [("commit_key", "no commit key"), ("root", "no root"), ("record", "no record")],
)
def test_zero_is_nothing(evm: Evm, name: str, reason: str) -> None:
    entry = with_digest(release("a"), name, Digest("0" * 64))
    with pytest.raises(ContractRefused) as raised:
        evm.call_publish(entry, ascending(evm.signed(entry, "alice", "bob")))
    assert raised.value.reason == reason


def test_builders_replace_themselves(evm: Evm) -> None:
    new = evm.builders("bob", "mallory", threshold=1, epoch=2)
    evm.call_set_builders(new, ascending(evm.sign(new, "alice", "bob")))
    assert evm.ledger().status().builders == new
    entry = release("a")
    with pytest.raises(ContractRefused) as raised:
        evm.call_publish(entry, evm.signed(entry, "alice", epoch=2))
    assert raised.value.reason == "not a builder's signature"
    evm.call_publish(entry, evm.signed(entry, "mallory", epoch=2))


def test_what_was_signed_before_builders_changed_counts_no_more(evm: Evm) -> None:
    """Even of those who stayed: a signature is for the set that was to decide."""
    entry = release("a")
    before = ascending(evm.signed(entry, "bob", "carol"))
    new = evm.builders("bob", "carol", threshold=2, epoch=2)
    evm.call_set_builders(new, ascending(evm.sign(new, "alice", "bob")))
    assert_strange(evm, entry, before)


def test_builders_are_not_changed_again_by_the_same_signatures(evm: Evm) -> None:
    away = evm.builders("bob", "carol", threshold=2, epoch=2)
    signed = ascending(evm.sign(away, "alice", "bob"))
    evm.call_set_builders(away, signed)
    back = evm.builders("alice", "bob", "carol", threshold=2, epoch=3)
    evm.call_set_builders(back, ascending(evm.sign(back, "bob", "carol")))
    assert governance_refused(evm, away, signed) == "not the next epoch"
    later = replace(away, epoch=4)
    assert governance_refused(evm, later, signed) in {
        "not a builder's signature",
        "signers not ascending",
    }


def test_builders_are_not_changed_by_too_few_or_by_the_new_ones(evm: Evm) -> None:
    new = evm.builders("mallory", threshold=1, epoch=2)
    assert governance_refused(evm, new, evm.sign(new, "mallory")) == "too few signatures"
    assert governance_refused(evm, new, evm.sign(new, "alice")) == "too few signatures"
    both = ascending(evm.sign(new, "alice", "mallory"))
    assert governance_refused(evm, new, both) == "not a builder's signature"


def test_a_release_signed_is_no_change_of_builders(evm: Evm) -> None:
    new = evm.builders("mallory", threshold=1, epoch=2)
    signatures = ascending(evm.signed(release("a"), "alice", "bob"))
    assert governance_refused(evm, new, signatures) in {
        "not a builder's signature",
        "signers not ascending",
    }


@pytest.mark.parametrize(
    ("threshold", "epoch", "reason"),
    [
        (0, 2, "threshold is 0"),
        (4, 2, "threshold exceeds the builders"),
        (2**256 - 1, 2, "threshold exceeds the builders"),
        (2, 1, "not the next epoch"),
        (2, 3, "not the next epoch"),
        (2, 0, "not the next epoch"),
    ],
)
def test_thresholds_and_epochs(evm: Evm, threshold: int, epoch: int, reason: str) -> None:
    members = evm.ledger().status().builders.builders
    new = BuilderSet(members, threshold, epoch)
    assert governance_refused(evm, new, ascending(evm.sign(new, "alice", "bob"))) == reason


def test_sets_that_are_none(evm: Evm) -> None:
    one, two, three = evm.ledger().status().builders.builders
    nobody = EvmBuilder("zero", "0x" + "0" * 40)
    cases = [
        ((), "threshold exceeds the builders"),
        ((two, one), "builders not ascending"),
        ((one, one), "builders not ascending"),
        ((one, replace(one, id="other")), "builders not ascending"),
        ((nobody, one), "builders not ascending"),
        ((one, replace(two, id=one.id)), "two builders of one id"),
        ((one, two, replace(three, id=one.id)), "two builders of one id"),
        ((replace(one, id=""), two), "builder without id"),
    ]
    for members, reason in cases:
        new = BuilderSet(members, 1, 2)
        signatures = ascending(evm.sign(new, "alice", "bob"))
        assert governance_refused(evm, new, signatures) == reason, members
    assert evm.ledger().status().builders.epoch == 1


def governance_refused(evm: Evm, new: BuilderSet, signatures: list[EvmSignature]) -> str:
    before = evm.ledger().status().builders
    with pytest.raises(ContractRefused) as raised:
        evm.call_set_builders(new, signatures)
    assert evm.ledger().status().builders == before
    return raised.value.reason


@pytest.mark.parametrize("number", [1, 32])
def test_from_one_builder_to_as_many_as_there_may_be(chain: Chain, number: int) -> None:
    names = [f"builder {i}" for i in range(number)]
    evm = Evm(chain, threshold=number, names=names)
    entry = release("a")
    signatures = ascending(evm.signed(entry, *names))
    assert refused(evm, entry, signatures[:-1]) == "too few signatures"
    evm.call_publish(entry, signatures)
    assert evm.ledger().status().count == 1


def test_more_builders_than_there_may_be(evm: Evm) -> None:
    members = sorted(
        (EvmBuilder(f"b{i}", EvmKey.generate().address) for i in range(33)), key=lambda b: b.number
    )
    new = BuilderSet(tuple(members), 1, 2)
    assert governance_refused(evm, new, ascending(evm.sign(new, "alice", "bob"))) == (
        "it reverts, without a reason"
    )


def test_a_chain_that_forks_takes_its_signatures_along_no_more() -> None:
    """The chain's id is asked for at each call, not remembered from the deployment."""
    with anvil() as chain:
        evm = Evm(chain)
        entry = release("a")
        before = ascending(evm.signed(entry, "alice", "bob"))
        chain.do("anvil_setChainId", 4242)
        chain.chain_id = 4242
        assert_strange(evm, entry, before)
        evm.call_publish(entry, ascending(evm.signed(entry, "alice", "bob")))
        assert evm.ledger().status().count == 1


@dataclass
class Model:
    """What the contract is to be."""

    members: frozenset[str]
    threshold: int
    epoch: int = 1
    entries: dict[Digest, Digest] = field(default_factory=dict)

    def enough(self, signers: list[str]) -> bool:
        return set(signers) <= self.members and len(signers) >= self.threshold

    def publish(self, entry: LedgerEntry, signers: list[str], epoch: int) -> bool:
        new = entry.commit_key not in self.entries and entry.root not in self.entries.values()
        if not (new and epoch == self.epoch and self.enough(signers)):
            return False
        self.entries[entry.commit_key] = entry.root
        return True

    def set_builders(self, new: BuilderSet, signers: list[str]) -> bool:
        if new.epoch != self.epoch + 1 or not self.enough(signers):
            return False
        self.members = frozenset(each.id for each in new.builders)
        self.threshold, self.epoch = new.threshold, new.epoch
        return True


def step(random: Random, evm: Evm, model: Model) -> tuple[bool, Callable[[], object]]:
    """Return something to try, and whether the model, which does it, says that it works."""
    insiders, number = sorted(model.members), model.threshold - random.choice([0, 0, 0, 1])
    signers = random.sample(insiders, number)
    if random.random() < 0.3:
        signers = random.sample([*evm.names, "mallory"], random.randint(0, 4))
    epoch = model.epoch + random.choice([0, 0, 0, 1, -1])
    if random.random() < 0.6:
        entry = replace(release(random.choice("abcdefgh")), root=digest(random.choice("rstuvw")))
        signatures = ascending(evm.signed(entry, *signers, epoch=max(epoch, 0)))
        return model.publish(entry, signers, epoch), partial(evm.call_publish, entry, signatures)
    members = random.sample(list(evm.names), random.randint(1, 5))
    threshold = random.randint(1, len(members))
    new = evm.builders(*members, threshold=threshold, epoch=epoch + 1)
    signatures = ascending(evm.sign(new, *signers))
    return model.set_builders(new, signers), partial(evm.call_set_builders, new, signatures)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_random_walk_agrees_with_a_model_of_the_contract(chain: Chain, seed: int) -> None:
    """Whatever is tried, in any order, is taken and refused as some lines of Python would."""
    random = Random(seed)
    names = [f"b{i}" for i in range(5)]
    evm = Evm(chain, threshold=2, names=names)
    model = Model(frozenset(names), 2)
    for _ in range(40):
        works, call = step(random, evm, model)
        if works:
            call()
        else:
            with pytest.raises(ContractRefused):
                call()
    found = list(evm.ledger().entries())
    assert [(each.commit_key, each.root) for each in found] == list(model.entries.items())
    assert len(evm.ledger().history()) == model.epoch
    assert {each.id for each in evm.ledger().status().builders.builders} == model.members
    assert len(found) >= 2
    assert model.epoch >= 3


def test_nobody_can_do_anything_else() -> None:
    """No owner, no upgrade, no removal, no money: this is all that can be called."""
    changing = {
        each["name"] for each in shipped().abi
        if each["type"] == "function" and each["stateMutability"] not in ("view", "pure")
    }  # fmt: skip
    assert changing == {"publish", "setBuilders"}
    assert all(each.get("stateMutability") != "payable" for each in shipped().abi)
    assert not {"fallback", "receive"} & {each["type"] for each in shipped().abi}
    # DELEGATECALL, CALLCODE, SELFDESTRUCT, CREATE and CREATE2 are not among its instructions.
    assert not {0xF4, 0xF2, 0xFF, 0xF0, 0xF5} & set(instructions(shipped().runtime))


def instructions(code: bytes) -> list[int]:
    """Return the opcodes of *code*, without what PUSH takes."""
    found, at = [], 0
    while at < len(code):
        found.append(code[at])
        at += 1 + (code[at] - 0x5F if 0x60 <= code[at] <= 0x7F else 0)
    return found
