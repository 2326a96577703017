"""One commit, one release: what contradicts that, in a ledger, between logs, between copies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from nix_seed.formats.intoto.commit import Commit
from nix_seed.ground.digests import Digest
from nix_seed.rules.audit import AuditFinding, Kind, Severity
from nix_seed.rules.audit_record import LedgerRecord, by_commit
from nix_seed.rules.ledger_entry import LedgerEntry

__all__ = ["find_changed_roots", "find_conflicts", "find_ledger_conflicts"]

_What = tuple[Digest, Digest]


def find_conflicts(records: Iterable[LedgerRecord]) -> Iterator[AuditFinding]:
    """Yield every commit that promoters said two things of, and records that are none yet.

    Two that stand are a conflict, or an equivocation where no log, or no copy of the ledger, holds
    both: whoever reads one of them sees nothing. One that does not stand contradicts another one
    all the same: the promoter who signed it has signed what is not so.
    """
    for commit, ours in by_commit(records).items():
        standing, rest = _split(ours)
        if len(standing) > 1:
            yield _conflict(commit, standing)
        for what, others in rest.items():
            if set(standing) - {what} or len(rest) > 1:
                yield _contradiction(commit, others, standing)
            elif not standing:
                yield from (_pending(each) for each in others)
        for same in standing.values():
            if len(same) > 1:
                yield _twice(commit, same)


def find_changed_roots(
    records: Iterable[LedgerRecord], seen: Mapping[Commit, Digest]
) -> Iterator[AuditFinding]:
    """Yield each commit whose root is another than the one that was *seen* before."""
    for record in records:
        before = seen.get(record.commit, record.root)
        if record.stands and before != record.root:
            yield AuditFinding(
                Kind.CONFLICT,
                Severity.ALARM,
                str(record.commit),
                f"{record.commit} was seen promoted under the root {before}, and now {record.root}",
                (f"root {before}, kept here", *record.shown),
            )


def find_ledger_conflicts(
    name: str, entries: Sequence[LedgerEntry], records: Sequence[LedgerRecord]
) -> Iterator[AuditFinding]:
    """Compare what the ledger *name* holds with the *records*: roots, and what only one has."""
    keys = {commit.key: ours for commit, ours in by_commit(records).items()}
    entered: set[Digest] = set()
    for entry in entries:
        ours = [each for each in keys.get(entry.commit_key, ()) if each.stands]
        entered.add(entry.commit_key)
        where = f"{name}, {entry.position}"
        shown = (f"commit key {entry.commit_key}", f"root {entry.root}", f"record {entry.record}")
        if not ours:
            words = f"the ledger {where} holds a release that no record here is of"
            yield AuditFinding(Kind.WITHHELD, Severity.ALARM, name, words, (*shown, where))
        elif entry.root not in {each.root for each in ours}:
            commit = ours[0].commit
            words = (
                f"the ledger {where} holds the root {entry.root} for {commit}, and the record says "
                f"{ours[0].root}"
            )
            evidence = (*shown, where, *ours[0].shown)
            yield AuditFinding(Kind.EQUIVOCATION, Severity.ALARM, str(commit), words, evidence)
        elif entry.record not in {each.digest for each in ours}:
            words = f"the ledger {where} names another record of {ours[0].commit}, of the same root"
            yield AuditFinding(Kind.LEDGER, Severity.WARNING, str(ours[0].commit), words, shown)
    for record in records:
        if record.stands and record.commit.key not in entered:
            words = f"the ledger {name} does not hold the release of {record.commit}"
            subject = str(record.commit)
            yield AuditFinding(Kind.LEDGER, Severity.WARNING, subject, words, record.shown)


def _split(
    records: Sequence[LedgerRecord],
) -> tuple[dict[_What, list[LedgerRecord]], dict[_What, list[LedgerRecord]]]:
    """Return those that stand and, by other things said, those that do not."""
    standing: dict[_What, list[LedgerRecord]] = {}
    for each in records:
        if each.stands:
            standing.setdefault(each.what, []).append(each)
    rest: dict[_What, list[LedgerRecord]] = {}
    for each in records:
        if not each.stands and each.what not in standing:
            rest.setdefault(each.what, []).append(each)
    return standing, rest


def _conflict(commit: Commit, standing: Mapping[_What, Sequence[LedgerRecord]]) -> AuditFinding:
    evidence = tuple(line for each in standing.values() for line in each[0].shown)
    roots = " and ".join(sorted({f"{root} with the index {index}" for root, index in standing}))
    words = f"{commit} was promoted as {len(standing)} different things: {roots}"
    kind = Kind.CONFLICT
    for what, places in (
        ("log", [_union(each, "logs") for each in standing.values()]),
        ("copy of the ledger", [_union(each, "copies") for each in standing.values()]),
    ):
        if all(places) and not set.intersection(*places):
            kind = Kind.EQUIVOCATION
            held = "; ".join(", ".join(sorted(each)) for each in places)
            words += f"; no {what} holds both ({held})"
    return AuditFinding(kind, Severity.ALARM, str(commit), words, evidence)


def _union(records: Sequence[LedgerRecord], name: str) -> set[str]:
    return {place for each in records for place in getattr(each, name)}


def _contradiction(
    commit: Commit,
    records: Sequence[LedgerRecord],
    standing: Mapping[_What, Sequence[LedgerRecord]],
) -> AuditFinding:
    names = ", ".join(sorted({name for each in records for name in each.signers}))
    stood = next(iter(standing), None)
    against = f", which was promoted under {stood[0]}" if stood else ", and others signed another"
    words = (
        f"{names} signed the root {records[0].root} with the index {records[0].index} for "
        f"{commit}{against}; it does not stand: {records[0].why}"
    )
    evidence = tuple(line for each in records for line in each.shown)
    return AuditFinding(Kind.CONTRADICTION, Severity.ALARM, str(commit), words, evidence)


def _pending(record: LedgerRecord) -> AuditFinding:
    """Tell of a record that lacks signatures: a notice. Enough of them under what is false: no."""
    words = f"a record of {record.commit} does not stand: {record.why}"
    subject = str(record.commit)
    if record.enough:
        words = f"enough promoters signed what is no release of {record.commit}: {record.why}"
        return AuditFinding(Kind.PROMOTER, Severity.ALARM, subject, words, record.shown)
    return AuditFinding(Kind.PENDING, Severity.NOTICE, subject, words, record.shown)


def _twice(commit: Commit, records: Sequence[LedgerRecord]) -> AuditFinding:
    words = f"{commit} has {len(records)} records, all of one root: promoters wrote them at once"
    evidence = tuple(f"record {each.digest}" for each in records)
    return AuditFinding(Kind.PENDING, Severity.NOTICE, str(commit), words, evidence)
