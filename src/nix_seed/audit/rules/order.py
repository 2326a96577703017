"""Does every record come after all that there was? Gaps, records passed over, several heads.

Records form a graph by what each comes after. Sets of them are kept as the bits of integers, so
that thousands cost little.
"""

from collections.abc import Iterator, Mapping, Sequence

from nix_seed.audit.rules.record import LedgerRecord
from nix_seed.core.digests import Digest
from nix_seed.core.verdict import Severity
from nix_seed.release.rules.finding import AuditFinding, Kind


def heads_of(records: Sequence[LedgerRecord]) -> tuple[Digest, ...]:
    """Return the records that none comes after, sorted."""
    after = {digest for record in records for digest in record.previous}
    return tuple(sorted(record.digest for record in records if record.digest not in after))


def in_order(records: Sequence[LedgerRecord]) -> tuple[LedgerRecord, ...]:
    """Return *records*, each once, after all that it comes after; else by their first entry.

    No record can name itself, directly or not: it would take a collision of SHA-256.
    """
    known = {record.digest: record for record in sorted(records, key=_first_entry)}
    done: dict[Digest, LedgerRecord] = {}
    for first in known:
        stack = [first]
        while stack:
            at = stack[-1]
            ahead = [each for each in known[at].previous if each in known and each not in done]
            if ahead:
                stack += ahead
            else:
                done[at] = known[stack.pop()]
    return tuple(done.values())


def before(records: Sequence[LedgerRecord], last: Sequence[Digest]) -> frozenset[Digest]:
    """Return *last* and all that these come after, directly or not."""
    known = {record.digest: record for record in records}
    found: set[Digest] = set()
    ahead = list(last)
    while ahead:
        digest = ahead.pop()
        if digest in known and digest not in found:
            found.add(digest)
            ahead += known[digest].previous
    return frozenset(found)


def find_disorder(records: Sequence[LedgerRecord]) -> Iterator[AuditFinding]:
    """Yield gaps, records that others passed over, and that there are several heads."""
    ordered = in_order(records)
    yield from _gaps(ordered)
    yield from _Order(ordered).skipped()
    heads = set(heads_of(ordered))
    if len(heads) > 1:
        evidence = tuple(line for each in ordered if each.digest in heads for line in each.shown)
        reason = f"the ledger has {len(heads)} heads; the next record is to come after all of them"
        yield AuditFinding(Kind.HEADS, Severity.NOTICE, "the ledger", reason, evidence)


def _gaps(records: Sequence[LedgerRecord]) -> Iterator[AuditFinding]:
    known = {record.digest for record in records}
    lacking: dict[Digest, list[LedgerRecord]] = {}
    for record in records:
        for digest in record.previous:
            if digest not in known:
                lacking.setdefault(digest, []).append(record)
    for digest, named in lacking.items():
        reason = f"the record {digest}, which that of {named[0].commit} comes after, is nowhere"
        yield AuditFinding(Kind.GAP, Severity.ALARM, str(digest), reason, named[0].shown)


def _first_entry(record: LedgerRecord) -> tuple[tuple[str, int], Digest]:
    first = min(((at.log, at.index) for at in record.positions), default=("", -1))
    return first, record.digest


class _Order:
    """*records* with, for each, the set of those it comes after and of those that follow it."""

    def __init__(self, records: Sequence[LedgerRecord]) -> None:
        self._records = records
        self._bit = {record.digest: position for position, record in enumerate(records)}
        self._before: list[int] = []
        for record in records:
            mine = 0
            for digest in record.previous:
                at = self._bit.get(digest)
                if at is not None:
                    mine |= self._before[at] | 1 << at
            self._before.append(mine)
        self._after = [0] * len(records)
        for position in reversed(range(len(records))):
            mine = self._after[position] | 1 << position
            for digest in records[position].previous:
                if digest in self._bit:
                    self._after[self._bit[digest]] |= mine

    def skipped(self) -> Iterator[AuditFinding]:
        """Yield each record that one passed over which was logged when it was there to be seen.

        Two that were logged at about one time may not know of each other. But where, between them,
        the ledger had moved on, by one that follows the first or one that the second follows, the
        second was written by someone who should have seen the first.
        """
        told: set[int] = set()
        for log in sorted({at.log for record in self._records for at in record.positions}):
            for passed, later in self._in_log(log):
                if passed not in told:
                    told.add(passed)
                    yield self._skipped(passed, later)

    def _in_log(self, log: str) -> Iterator[tuple[int, int]]:
        """Yield pairs: the position of a record passed over, and of the first that did."""
        entries = _entries(self._records, log)
        earlier = 0
        for later in sorted(entries, key=entries.__getitem__):
            for passed in _bits(earlier & ~self._before[later]):
                if self._moved_on(entries, passed, later):
                    yield passed, later
            earlier |= 1 << later

    def _moved_on(self, entries: Mapping[int, int], passed: int, later: int) -> bool:
        """Whether a third one, logged between the two, follows the first or leads to the second."""
        between = self._after[passed] | self._before[later]
        return any(
            entries[passed] < entries.get(each, -1) < entries[later] for each in _bits(between)
        )

    def _skipped(self, passed: int, later: int) -> AuditFinding:
        mine, theirs = self._records[passed], self._records[later]
        reason = (
            f"the record of {theirs.commit} does not come after that of {mine.commit}, which was "
            "in the log before it"
        )
        both = self._after[passed] & self._after[later]
        merged = "; a later record comes after both" if both else ""
        severity = Severity.NOTICE if merged else Severity.ALARM
        evidence = (*mine.shown, *theirs.shown)
        return AuditFinding(Kind.SKIPPED, severity, str(mine.commit), reason + merged, evidence)


def _entries(records: Sequence[LedgerRecord], log: str) -> dict[int, int]:
    """Return the first entry that each record has in *log*, by the record's position."""
    found: dict[int, int] = {}
    for position, record in enumerate(records):
        indices = [at.index for at in record.positions if at.log == log]
        if indices:
            found[position] = min(indices)
    return found


def _bits(number: int) -> Iterator[int]:
    while number:
        low = number & -number
        yield low.bit_length() - 1
        number ^= low
