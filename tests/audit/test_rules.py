"""The rules alone: the order of records, ledgers on chains, what a log holds in whose name."""

from __future__ import annotations

import random

import pytest

from nix_seed.audit.rules.conflicts import (
    before,
    find_disorder,
    find_ledger_conflicts,
    heads_of,
    in_order,
)
from nix_seed.audit.rules.record import LedgerRecord
from nix_seed.audit.rules.report import sort_findings
from nix_seed.core.digests import Digest
from nix_seed.core.verdict import Severity
from nix_seed.release.rules.answer import Kind
from nix_seed.release.rules.record import LedgerEntry
from nix_seed.trust.rules.policy import LoggedAt
from support.audits import commit


def digest(number: int) -> Digest:
    return Digest.of(b"%d" % number)


def record(number: int, *previous: int, at: int | None = None) -> LedgerRecord:
    """Record *number*, logged at entry *at* (its number)."""
    index = number if at is None else at
    return LedgerRecord(
        digest=digest(number),
        commit=commit(number),
        root=Digest.of(b"root %d" % number),
        size=2,
        index=Digest.of(b"index %d" % number),
        policy=digest(0),
        epoch=1,
        evidence=digest(0),
        previous=tuple(sorted(digest(each) for each in previous)),
        signers=("rita",),
        promoters=("rita",),
        enough=True,
        stands=True,
        why="",
        positions=(LoggedAt("log", index, digest(index)),),
    )


def found(*records: LedgerRecord) -> list[tuple[str, str]]:
    return [(each.kind.value, each.severity.value) for each in find_disorder(records)]


@pytest.mark.parametrize(
    ("records", "findings"),
    [
        ([record(1), record(2, 1), record(3, 2)], []),
        # Two at once, and then one that comes after both.
        ([record(1), record(2, 1), record(3, 1)], [("heads", "notice")]),
        ([record(1), record(2, 1), record(3, 1), record(4, 2, 3)], []),
        # One comes after 1, when 3 had followed 2 already.
        (
            [record(1), record(2, 1), record(3, 2), record(4, 1)],
            [("skipped", "alarm"), ("heads", "notice")],
        ),
        (
            [record(1), record(2, 1), record(3, 2), record(4, 1), record(5, 3, 4)],
            [("skipped", "notice")],
        ),
        # 4 knew 3, which was logged after 2, and so should have known 2.
        (
            [record(1), record(2, 1), record(3, 1), record(4, 3)],
            [("skipped", "alarm"), ("heads", "notice")],
        ),
        ([record(1), record(3, 2)], [("gap", "alarm"), ("heads", "notice")]),
        ([], []),
    ],
)
def test_the_order_of_records(records: list[LedgerRecord], findings: list[tuple[str, str]]) -> None:
    for seed in range(5):
        mixed = list(records)
        random.Random(seed).shuffle(mixed)
        assert found(*mixed) == findings


def test_random_honest_ledgers_have_no_disorder() -> None:
    """Whoever comes after all heads passes nothing over, however records branch and merge."""
    for seed in range(30):
        chance, records = random.Random(seed), [record(1)]
        for number in range(2, 40):
            if chance.random() < 0.3:  # raced: it saw the ledger without the last one
                seen = heads_of(records[:-1]) or (records[0].digest,)
            else:
                seen = heads_of(records)
            heads = [n for n in range(1, number) if digest(n) in seen]
            records.append(record(number, *heads))
        records.append(record(40, *[n for n in range(1, 40) if digest(n) in heads_of(records)]))
        kinds = {kind for kind, severity in found(*records) if severity == "alarm"}
        assert kinds == set()
        assert heads_of(records) == (digest(40),)
        order = [each.digest for each in in_order(records[::-1])]
        assert sorted(order) == sorted(each.digest for each in records)
        for each in records:
            assert all(order.index(p) < order.index(each.digest) for p in each.previous)
        assert before(records, [digest(40)]) == set(order)


def entry(of: LedgerRecord, **changes: Digest) -> LedgerEntry:
    values = {"commit_key": of.commit.key, "root": of.root, "record": of.digest} | changes
    return LedgerEntry(**values, position="block 7")


@pytest.mark.parametrize(
    ("entries", "kind", "severity", "words"),
    [
        ([entry(record(1))], None, None, ""),
        ([], Kind.LEDGER, Severity.WARNING, "the ledger main does not hold the release of"),
        ([entry(record(1), root=digest(9))], Kind.EQUIVOCATION, Severity.ALARM, "main, block 7"),
        ([entry(record(1), record=digest(9))], Kind.LEDGER, Severity.WARNING, "another record"),
        ([entry(record(1)), entry(record(2))], Kind.WITHHELD, Severity.ALARM, "no record here"),
    ],
)
def test_a_ledger_on_a_chain(
    entries: list[LedgerEntry], kind: Kind | None, severity: Severity | None, words: str
) -> None:
    findings = list(find_ledger_conflicts("main", entries, [record(1)]))
    if kind is None:
        assert findings == []
        return
    assert [(each.kind, each.severity) for each in findings] == [(kind, severity)]
    assert words in findings[0].reason


def test_a_record_is_kept_as_it_is() -> None:
    kept = record(3, 1, 2)
    assert LedgerRecord.from_json(kept.to_json(), "it") == kept


def test_findings_are_sorted_by_how_bad_they_are() -> None:
    from nix_seed.release.rules.answer import AuditFinding

    kinds = [
        (Kind.TAG, Severity.WARNING),
        (Kind.TAG, Severity.ALARM),
        (Kind.LOG, Severity.UNCHECKED),
        (Kind.CONFLICT, Severity.ALARM),
    ]
    made = [AuditFinding(kind, severity, "x", "y") for kind, severity in kinds]
    done = sort_findings([*made, *made])
    assert [(each.kind, each.severity) for each in done] == [kinds[3], kinds[1], kinds[2], kinds[0]]
