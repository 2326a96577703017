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
