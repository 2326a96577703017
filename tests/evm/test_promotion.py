"""A release that a contract must hold as well: not published before, not verified without."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from web3.exceptions import Web3Exception

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck
from nix_seed.evm.contract import EvmLedger
from nix_seed.formats.oci.reference import parse_reference
from nix_seed.registry.credentials import Keyring
from nix_seed.registry.open import Stores
from nix_seed.release.load import load_policy, verifiers_of
from nix_seed.release.promote import Promoted, Signing, promote
from nix_seed.release.rules.answer import Verification
from nix_seed.release.rules.record import LedgerEntry
from nix_seed.release.verifiers import Verifiers
from nix_seed.release.verify import Query, ReleasePlace, verify_commit
from nix_seed.trust.sign import open_logs
from support.evm import Evm
from support.releases import ReleaseWorld
from support.trust import COMMIT


@pytest.fixture
def world(tmp_path: Path) -> ReleaseWorld:
    world = ReleaseWorld.fresh(tmp_path)
    world.attest_all()
    return world


def with_ledger(world: ReleaseWorld, evm: Evm, state: str) -> Verifiers:
    loaded = load_policy(world.write_policy(), datetime.now(UTC))
    by = verifiers_of(loaded, Stores(Keyring()), world.root / state)
    return replace(by, ledgers=(evm.ledger(),))


def release(world: ReleaseWorld, evm: Evm) -> Promoted:
    by = with_ledger(world, evm, "rita")
    place = ReleasePlace(parse_reference(world.repository), (), ("latest",))
    signing = Signing(world.keys["rita"], open_logs(by.policy, world.root))
    return promote(by, COMMIT, place, signing)


def verify(world: ReleaseWorld, evm: Evm) -> Verification:
    by = with_ledger(world, evm, "consumer")
    return verify_commit(by, parse_reference(world.repository), Query(COMMIT, promotion=True))


def entry_of(done: Promoted) -> LedgerEntry:
    said = done.record.predicate
    return LedgerEntry(said.commit.key, said.root, done.record.digest)


def test_a_release_waits_for_its_ledger(world: ReleaseWorld, evm: Evm) -> None:
    first = release(world, evm)
    assert first.state == "signed, not yet promoted"
    assert "does not hold" in first.notices[0]
    assert world.store.head_manifest("latest") is None
    found = verify(world, evm)
    assert found.exit_code == 1
    assert f"{COMMIT} is not in the ledger" in found.reason

    evm.publish(entry_of(first), "alice", "bob")
    second = release(world, evm)
    assert second.state == "promoted"
    assert second.record.digest == first.record.digest
    found = verify(world, evm)
    assert found.exit_code == 0, found.reason
    assert found.promotion is not None
    assert any(check.name.startswith("ledger chain") for check in found.promotion.checks)


def test_another_root_on_chain_blocks_before_anything_is_signed(
    world: ReleaseWorld, evm: Evm
) -> None:
    other = Digest.of(b"another")
    evm.publish(LedgerEntry(COMMIT.key, other, Digest.of(b"record")), "alice", "bob")
    size = world.log.checkpoint().head.size
    with pytest.raises(CheckedFalse, match=f"under another root, {other}") as error:
        release(world, evm)
    assert error.value.hint == (
        "one commit is promoted once: nothing was signed, and nothing published"
    )
    assert world.log.checkpoint().head.size == size
    assert verify(world, evm).reason == f"no promotion record of {COMMIT} was found"


def test_another_root_that_came_on_chain_meanwhile_is_named(world: ReleaseWorld, evm: Evm) -> None:
    assert release(world, evm).state == "signed, not yet promoted"
    other = Digest.of(b"another")
    evm.publish(LedgerEntry(COMMIT.key, other, Digest.of(b"record")), "alice", "bob")
    with pytest.raises(CheckedFalse, match=f"under another root, {other}"):
        release(world, evm)
    assert world.store.head_manifest("latest") is None
    found = verify(world, evm)
    assert found.exit_code == 1
    assert f"has the root {other}" in found.reason


def test_what_the_library_of_a_ledger_raises_is_could_not_check(
    world: ReleaseWorld, evm: Evm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chain's client is somebody else's code, with errors of its own."""

    def breaks(*_: object, **__: object) -> None:
        raise Web3Exception("the node speaks in tongues")

    size = world.log.checkpoint().head.size
    monkeypatch.setattr(EvmLedger, "by_commit", breaks)
    with pytest.raises(CouldNotCheck, match="Web3Exception: the node speaks in tongues"):
        release(world, evm)
    assert world.log.checkpoint().head.size == size
