"""Walking a ledger: a long chain in a few steps, and what nothing leads to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from nix_seed.clients.blobs import ImageStore
from nix_seed.flows import ledger as ledger_flow
from nix_seed.flows.attach import Discovered
from nix_seed.flows.evidence import gather
from nix_seed.flows.ledger import Walked, walk_ledger
from nix_seed.flows.trust import judges_of, load_policy
from nix_seed.ground.digests import Digest
from nix_seed.ground.errors import CouldNotCheck, InputError
from support.audits import Ledger, commit
from support.bulk import bulk
from support.trust import SOURCE


def walk(ledger: Ledger, **changes: object) -> Walked:
    loaded = load_policy(ledger.write_policy(), datetime.now(UTC))
    return walk_ledger([ledger.store], SOURCE, loaded.policy, judges_of(loaded))


def test_a_chain_of_many_is_walked_in_few_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(tmp_path, releases=0)
    bulk(ledger, 40)
    steps = []

    def counted(stores: Sequence[ImageStore], subjects: Iterable[Digest]) -> Discovered:
        steps.append(subjects)
        return gather(stores, subjects)

    monkeypatch.setattr(ledger_flow, "gather", counted)
    walked = walk(ledger)
    assert len(walked.records) == 40
    assert walked.heads == (ledger.digest(40),)
    assert len(steps) == 2


def test_what_has_no_tag_is_reached_by_what_it_comes_after(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, releases=1)
    digest = ledger.forge(2, previous=(ledger.digest(1),))
    assert walk(ledger).heads == (digest,)
    following = ledger.forge(3, previous=(digest,))
    assert walk(ledger).heads == (following,)


def test_what_is_not_linked_is_no_part_of_it(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, releases=1)
    alone = ledger.forge(2, previous=(Digest.of(b"nowhere"),), tags=[str(commit(2))])
    ledger.forge(3, previous=(alone,))
    assert walk(ledger).heads == (ledger.digest(1),)


def test_records_are_walked_after_all_that_they_come_after(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, releases=1)
    one, other = (ledger.forge(n, previous=(ledger.digest(1),)) for n in (2, 3))
    both = ledger.forge(4, previous=tuple(sorted((one, other))))
    walked = walk(ledger)
    order = [record.digest for record in walked.records]
    assert (order[0], set(order[1:3]), order[3]) == (ledger.digest(1), {one, other}, both)
    assert walked.heads == (both,)


def replace_promoter(ledger: Ledger) -> Path:
    """Take rita out of the policy, by the next epoch; return the policy before."""
    old = ledger.root / "trust.1.toml"
    old.write_text(ledger.policy())
    del ledger.promoters["rita"]
    ledger.head |= {"epoch": "2", "accepts": f'["{Digest.of(old.read_bytes())}"]'}
    return old


def test_the_ledger_goes_on_when_a_promoter_is_replaced(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    old = replace_promoter(ledger)
    with pytest.raises(
        CouldNotCheck, match=f"may be a record by the policy {Digest.of(old.read_bytes())}"
    ) as error:
        ledger.release("sam")
    assert error.value.hint == (
        "nothing was published; name the file of that policy: --policy-history"
    )
    ledger.history = (old,)
    ledger.release("sam")
    assert ledger.said(4).previous == (ledger.digest(3),)
    found = ledger.audit("--policy-history", str(old))
    assert (found.code, found.found()) == (0, [("revoked", "warning")])


def test_what_a_removed_promoter_released_is_released_again_after_it(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    old = replace_promoter(ledger)
    ledger.history = (old,)
    before = ledger.digest(3)
    for number in (1, 2, 3):
        done = ledger.promote("sam", commit=commit(number))
        assert done.record.predicate.previous == (before,)
        before = done.record.digest
    found = ledger.audit("--policy-history", str(old))
    assert found.code == 0, found.words("skipped")


def test_who_was_never_a_promoter_holds_nothing_up_for_whom_the_history_is_known(
    tmp_path: Path,
) -> None:
    ledger = Ledger(tmp_path, releases=1)
    old = replace_promoter(ledger)
    ledger.history = (old,)
    accepted = Digest.of(old.read_bytes())
    ledger.forge(2, "mallory", policy=accepted, epoch=1, previous=(ledger.digest(1),))
    ledger.release("sam")
    assert ledger.said(2).previous == (ledger.digest(1),)


def test_a_later_policy_is_no_earlier_one(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, releases=0)
    later = tmp_path / "later.toml"
    later.write_text(ledger.policy().replace("epoch = 1", "epoch = 2"))
    ledger.history = (later,)
    with pytest.raises(InputError, match="it is no earlier one"):
        ledger.release()
