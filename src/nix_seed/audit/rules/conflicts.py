"""One commit, one release: what contradicts that, in a ledger, between logs, between copies.

Copies are held against each other, and so is what each one's tags name. Every record comes after
all that there was: gaps, records passed over and several heads are found. Records form a graph by
what each comes after. Sets of them are kept as the bits of integers, so that thousands cost little.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from nix_seed.audit.rules.record import LedgerRecord, by_commit
from nix_seed.core.digests import Digest
from nix_seed.core.reach import reach
from nix_seed.core.values import dataclass
from nix_seed.core.verdict import Severity
from nix_seed.core.words import shortened
from nix_seed.formats.intoto.statement import Commit, is_commit
from nix_seed.formats.oci.manifest import lists_referrers
from nix_seed.outputs.rules.kept import lists_outputs
from nix_seed.release.rules.answer import AuditFinding, Kind
from nix_seed.release.rules.record import LedgerEntry

_Promoted = tuple[Digest, Digest]


def find_conflicts(records: Iterable[LedgerRecord]) -> Iterator[AuditFinding]:
    """Yield every commit that promoters said two things of, and records that are none yet.

    Two that stand are a conflict, or an equivocation where no log, or no copy of the ledger, holds
    both: whoever reads one of them sees nothing. One that does not stand contradicts another one
    all the same: the promoter who signed it has signed what is not so.
    """
    for commit, ours in by_commit(records).items():
        standing: dict[_Promoted, list[LedgerRecord]] = {}
        rest: dict[_Promoted, list[LedgerRecord]] = {}
        for each in sorted(ours, key=lambda each: not each.stands):
            if each.stands or each.promoted not in standing:
                (standing if each.stands else rest).setdefault(each.promoted, []).append(each)
        if len(standing) > 1:
            yield _conflict(commit, standing)
        yield from _other_outputs(commit, [each for same in standing.values() for each in same])
        for promoted, others in rest.items():
            if set(standing) - {promoted} or len(rest) > 1:
                yield _contradiction(commit, others, standing)
            elif not standing:
                yield from (_pending(each) for each in others)
        for same in standing.values():
            if len(same) > 1:
                reason = (
                    f"{commit} has {len(same)} records, all of one root: promoters wrote them at "
                    "once"
                )
                evidence = tuple(f"record {each.digest}" for each in same)
                yield AuditFinding(Kind.PENDING, Severity.NOTICE, str(commit), reason, evidence)


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
            reason = f"the ledger {where} holds a release that no record here is of"
            yield AuditFinding(Kind.WITHHELD, Severity.ALARM, name, reason, (*shown, where))
        elif entry.root not in {each.root for each in ours}:
            commit = ours[0].commit
            reason = (
                f"the ledger {where} holds the root {entry.root} for {commit}, and the record says "
                f"{ours[0].root}"
            )
            evidence = (*shown, where, *ours[0].shown)
            yield AuditFinding(Kind.EQUIVOCATION, Severity.ALARM, str(commit), reason, evidence)
        elif entry.record not in {each.digest for each in ours}:
            reason = (
                f"the ledger {where} names another record of {ours[0].commit}, of the same root"
            )
            yield AuditFinding(Kind.LEDGER, Severity.WARNING, str(ours[0].commit), reason, shown)
    for record in records:
        if record.stands and record.commit.key not in entered:
            reason = f"the ledger {name} does not hold the release of {record.commit}"
            yield record.finding(Kind.LEDGER, Severity.WARNING, reason)


def _other_outputs(commit: Commit, standing: Iterable[LedgerRecord]) -> Iterator[AuditFinding]:
    """Yield the alarm of a commit that was promoted with several lists of outputs."""
    lists = {each.outputs: each for each in standing if each.outputs is not None}
    if len(lists) > 1:
        shown = " and ".join(sorted(map(str, lists)))
        reason = f"{commit} was promoted with several lists of outputs: {shown}"
        evidence = tuple(line for each in lists.values() for line in each.shown)
        yield AuditFinding(Kind.CONFLICT, Severity.ALARM, str(commit), reason, evidence)


def _conflict(commit: Commit, standing: Mapping[_Promoted, Sequence[LedgerRecord]]) -> AuditFinding:
    evidence = tuple(line for each in standing.values() for line in each[0].shown)
    roots = " and ".join(sorted({f"{root} with the index {index}" for root, index in standing}))
    reason = f"{commit} was promoted as {len(standing)} different things: {roots}"
    kind = Kind.CONFLICT
    for what, places in (
        ("log", [_union(each, "logs") for each in standing.values()]),
        ("copy of the ledger", [_union(each, "copies") for each in standing.values()]),
    ):
        if all(places) and not set.intersection(*places):
            kind = Kind.EQUIVOCATION
            held = "; ".join(", ".join(sorted(each)) for each in places)
            reason += f"; no {what} holds both ({held})"
    return AuditFinding(kind, Severity.ALARM, str(commit), reason, evidence)


def _union(records: Sequence[LedgerRecord], name: str) -> set[str]:
    return {place for each in records for place in getattr(each, name)}


def _contradiction(
    commit: Commit,
    records: Sequence[LedgerRecord],
    standing: Mapping[_Promoted, Sequence[LedgerRecord]],
) -> AuditFinding:
    names = ", ".join(sorted({name for each in records for name in each.signers}))
    stood = next(iter(standing), None)
    against = f", which was promoted under {stood[0]}" if stood else ", and others signed another"
    reason = (
        f"{names} signed the root {records[0].root} with the index {records[0].index} for "
        f"{commit}{against}; it does not stand: {records[0].why}"
    )
    evidence = tuple(line for each in records for line in each.shown)
    return AuditFinding(Kind.CONTRADICTION, Severity.ALARM, str(commit), reason, evidence)


def _pending(record: LedgerRecord) -> AuditFinding:
    """Tell of a record that lacks signatures: a notice. Enough of them under what is false: no."""
    reason = f"a record of {record.commit} does not stand: {record.why}"
    if record.enough:
        reason = f"enough promoters signed what is no release of {record.commit}: {record.why}"
        return record.finding(Kind.PROMOTER, Severity.ALARM, reason)
    return record.finding(Kind.PENDING, Severity.NOTICE, reason)


_LATEST = "latest"
_ALWAYS = frozenset({_LATEST})


@dataclass(frozen=True, slots=True)
class TagNames:
    """What *tag* names in one copy; *is_index* where that is an index of images."""

    copy: str
    tag: str
    digest: Digest
    is_index: bool


def is_release_tag(tag: str) -> bool:
    """Whether *tag* may be one that people pull by: no list of referrers or of kept outputs."""
    return not lists_referrers(tag) and not lists_outputs(tag)


def find_moved_tags(
    records: Sequence[LedgerRecord],
    tags: Sequence[TagNames],
    unread: Collection[tuple[str, str]] = (),
) -> Iterator[AuditFinding]:
    """Yield the tags that name what no record promotes; those *unread*, by copy, are there.

    A commit's tag, and ``latest``, may name nothing but a promoted index; any other tag may name
    one system's image, and if an index, a promoted one.
    """
    promoted: dict[Digest, LedgerRecord] = {each.index: each for each in records if each.stands}
    commits: dict[str, set[Digest]] = {}
    for record in records:
        if record.stands:
            commits.setdefault(str(record.commit), set()).add(record.index)
    for each in tags:
        if is_commit(each.tag):
            wanted = commits.get(each.tag, set())
            why = f"and no record promotes {Commit(each.tag)}"
            if wanted:
                why = f"and promoted was {', '.join(sorted(map(str, wanted)))}"
            if each.digest not in wanted:
                yield _moved(each, why)
        elif (each.is_index or each.tag in _ALWAYS) and each.digest not in promoted:
            yield _moved(each, "which no record promotes")
    named = {(each.copy, each.tag) for each in tags} | set(unread)
    for copy in sorted({each.copy for each in tags}):
        for record in records:
            if record.stands and copy in record.copies and (copy, str(record.commit)) not in named:
                reason = (
                    f"{record.commit} is promoted, and {copy} has no tag for it: promote it once "
                    "more, which goes on from there"
                )
                where = f"{copy}:{record.commit}"
                yield AuditFinding(Kind.TAG, Severity.WARNING, where, reason, record.shown)


def find_moved_images(
    records: Sequence[LedgerRecord], tags: Sequence[TagNames]
) -> Iterator[AuditFinding]:
    """Yield the tags ``<commit>-<system>`` of a release that name another image than it promotes.

    A warning: whoever builds the commit later may move them, and `verify` believes no tag.
    """
    promoted: dict[str, set[Digest]] = {}
    for record in records:
        for system, image in record.images if record.stands else ():
            promoted.setdefault(f"{record.commit}-{system}", set()).add(image)
    for each in tags:
        wanted = promoted.get(each.tag)
        if wanted and each.digest not in wanted:
            said = ", ".join(sorted(str(digest) for digest in wanted))
            why = f"and promoted for that system was {said}: who pulls by it gets another image"
            yield _moved(each, why, Severity.WARNING)


def newest_latest(
    records: Sequence[LedgerRecord], tags: Sequence[TagNames], seen: Mapping[str, Digest]
) -> Mapping[str, Digest]:
    """Return, of each copy, the newest promoted index that ``latest`` named: now, or in *seen*."""
    order = _order(records)
    newest = {copy: digest for copy, digest in seen.items() if digest in order}
    for each in tags:
        if each.tag == _LATEST and each.digest in order:
            known = newest.get(each.copy)
            if known is None or order[known] < order[each.digest]:
                newest[each.copy] = each.digest
    return newest


def find_rolled_back(
    records: Sequence[LedgerRecord], tags: Sequence[TagNames], seen: Mapping[str, Digest]
) -> Iterator[AuditFinding]:
    """Yield where ``latest`` names an older release than an audit saw it name before.

    A warning: to go back is what someone may have meant to do, and nobody signs what it names.
    """
    order = _order(records)
    for each in tags:
        known = seen.get(each.copy)
        if each.tag != _LATEST or known not in order or each.digest not in order:
            continue
        if order[each.digest] < order[known]:
            why = (
                f"a release before {known}, which an audit saw it name: if nobody meant to go "
                "back, whoever may push kept users from what came since"
            )
            yield _moved(each, why, Severity.WARNING)


def _order(records: Sequence[LedgerRecord]) -> dict[Digest, int]:
    """Return where each promoted index comes last in the ledger: commits may share one."""
    return {each.index: position for position, each in enumerate(records) if each.stands}


def find_differing_copies(
    names: Sequence[str], records: Sequence[LedgerRecord], tags: Sequence[TagNames]
) -> Iterator[AuditFinding]:
    """Yield in what copies of the ledger differ: records, and what their tags name.

    A copy that lacks only the newest may be behind; one that lacks what others come after, or has
    what another lacks, shows another ledger.
    """
    for name in names:
        lacking = [each for each in records if each.copies and name not in each.copies]
        if not lacking:
            continue
        has = [each for each in records if name in each.copies]
        digests = {each.digest for each in lacking}
        behind = not any(digests & set(each.previous) for each in has)
        shown = shortened([str(each.commit) for each in lacking], 5)
        evidence = tuple(line for each in lacking[:5] for line in each.shown)
        if behind and all(each.copies == frozenset(names) for each in has):
            reason = f"{name} is behind: it lacks the records of {shown}"
            yield AuditFinding(Kind.COPIES, Severity.WARNING, name, reason, evidence)
        else:
            reason = f"{name} shows another ledger than the other copies: it lacks {shown}"
            yield AuditFinding(Kind.EQUIVOCATION, Severity.ALARM, name, reason, evidence)
    by_tag: dict[str, dict[str, Digest]] = {}
    for each in tags:
        by_tag.setdefault(each.tag, {})[each.copy] = each.digest
    for tag, found in by_tag.items():
        if len(set(found.values())) > 1:
            said = sorted(found.items())
            reason = "; ".join(f"{copy} says {digest}" for copy, digest in said)
            evidence = tuple(f"{copy}:{tag} is {digest}" for copy, digest in said)
            severity = Severity.ALARM if is_commit(tag) else Severity.WARNING
            reason = f"the tag {tag} names different things: {reason}"
            yield AuditFinding(Kind.COPIES, severity, tag, reason, evidence)


def _moved(found: TagNames, why: str, severity: Severity = Severity.ALARM) -> AuditFinding:
    reason = f"the tag {found.tag} of {found.copy} names {found.digest}, {why}"
    evidence = (f"{found.copy}:{found.tag} is {found.digest}",)
    return AuditFinding(Kind.TAG, severity, f"{found.copy}:{found.tag}", reason, evidence)


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
    return frozenset(reach(last, lambda at: known[at].previous if at in known else None))


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
        entries: dict[int, int] = {}
        for position, record in enumerate(self._records):
            indices = [at.index for at in record.positions if at.log == log]
            if indices:
                entries[position] = min(indices)
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


def _bits(number: int) -> Iterator[int]:
    while number:
        low = number & -number
        yield low.bit_length() - 1
        number ^= low
