"""The ledger that needs no chain: records in registries, keyed by commit, which logs prove.

It is walked from its first record on, by what each record comes after. What it shows is true. What
keeps it from leaving out a record is an audit, which replays the logs.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck
from nix_seed.core.events import Stage, tell
from nix_seed.core.values import dataclass
from nix_seed.formats.intoto import statement as intoto
from nix_seed.formats.intoto.bundle import Unverified
from nix_seed.registry.store import ImageStore
from nix_seed.release.records import judge_ledger
from nix_seed.release.rules.record import LedgerEntry, Record, stands
from nix_seed.release.verifiers import Verifiers
from nix_seed.trust.attestations import Discovered, gather
from nix_seed.trust.rules.policy import Policy


@dataclass(frozen=True, slots=True)
class Walked:
    """Every *record* that could be reached, each once, in order; and what was wrong on the way.

    *heads* are those that nothing comes after. *unread* are what may be records and could not be
    read; *unchecked* are these, and the logs that could not be asked. *standing* are the records
    that enough promoters signed. *strange* are what say of themselves that they are records, by
    which accepted policy, and that no promoter of a policy at hand signed.
    """

    records: tuple[Record, ...]
    heads: tuple[Digest, ...]
    lies: tuple[str, ...]
    unchecked: tuple[str, ...]
    unread: tuple[str, ...]
    standing: frozenset[Digest]
    strange: Mapping[Digest, Digest]

    def admits(self, said: intoto.PromotionPredicate) -> bool:
        """Whether a record of *said* fits in: it comes after what is there, and late enough.

        Of two that are written at about one time neither knows the other. But a release that had a
        successor by then was there to be seen. Only those that stand are taken for it, so that
        one promoter cannot make another's record too early by adding to the ledger.
        """
        known = {record.digest: record.predicate.previous for record in self.records}
        if not all(digest in known for digest in said.previous):
            return False
        before = self._up_to(said.previous)
        after = {Digest.of(intoto.promotion_statement(said).dump())}
        for digest, previous in known.items():
            if not after.isdisjoint(previous):
                after.add(digest)
        aside = {
            each
            for each in self.standing & known.keys()
            if each not in before and each not in after
        }
        beyond: set[Digest] = set()
        for digest, previous in known.items():
            if not (aside.isdisjoint(previous) and beyond.isdisjoint(previous)):
                beyond.add(digest)
        return aside.isdisjoint(beyond)

    def to_come_after(self) -> tuple[Digest, ...]:
        """Return the records that the next one is to name: the heads, or as many as it can.

        One promoter can add heads without end. So what leads to all that stand comes first.
        """
        if len(self.heads) <= intoto.MOST_PREVIOUS:
            return self.heads
        behind = {head: self._up_to((head,)) & self.standing for head in self.heads}
        named: dict[Digest, None] = {}
        reached: set[Digest] = set()
        for head in sorted(self.heads, key=lambda each: -len(behind[each])):
            if not behind[head] <= reached:
                named[head] = None
                reached |= behind[head]
        named |= dict.fromkeys(self.heads)
        return tuple(sorted([*named][: intoto.MOST_PREVIOUS]))

    def _up_to(self, last: Iterable[Digest]) -> set[Digest]:
        """Return the records *last*, and all that these come after."""
        found = set(last)
        for record in reversed(self.records):
            if record.digest in found:
                found.update(record.predicate.previous)
        return found


def _reached(listed: Mapping[Digest, Record], first: Digest) -> tuple[Record, ...]:
    """Return the records that *first* leads to, each after all that it comes after."""
    reached = {first}
    found: list[Record] = []
    waiting: dict[Digest, list[Record]] = {}
    ready = [each for each in listed.values() if each.digest not in reached]
    while ready:
        record = ready.pop(0)
        before = record.predicate.previous or (first,)
        lacking = next((each for each in before if each not in reached), None)
        if lacking is not None:
            waiting.setdefault(lacking, []).append(record)
        elif record.digest not in reached:
            reached.add(record.digest)
            found.append(record)
            ready += waiting.pop(record.digest, [])
    return tuple(found)


def _claimed(listed: Discovered, repository: str) -> dict[Digest, Digest]:
    """Return what says of itself that it is a record of *repository*, and by which policy."""
    found = {}
    for each in listed.attestations:
        said = Unverified.read(each.text)
        if said and (record := said.promotion) and record.repository == repository:
            found[said.payload] = record.policy
    return found


def _tagged(places: Sequence[ImageStore]) -> Iterator[Digest]:
    """Yield the key of each commit that a tag is named after."""
    for place in places:
        for tag in place.list_tags():
            if intoto.is_commit(tag):
                yield intoto.Commit(tag).key


@dataclass(frozen=True, slots=True)
class LoggedLedger:
    """The ledger of *repository* in *places*, as a ``Ledger``; ``promote`` writes it.

    *by* has the policy in force, and after it earlier ones, by which records count as well. Only
    what stands is an entry.
    """

    by: Sequence[Verifiers]
    places: Sequence[ImageStore]
    repository: str

    @property
    def name(self) -> str:
        """The repository whose releases these are."""
        return self.repository

    def walk(self) -> Walked:
        """Walk the ledger from its beginning.

        Records of earlier policies need not be promoted any more: what comes after them still has
        to name them.

        A record is reached only through all it says it comes after being there: one that names
        what is not reachable is not part of the walk. So that a long chain takes a few steps, and
        not one for each record, the commits that have tags are looked up at once, and so is all
        they lead to.
        """
        listed: dict[Digest, Record] = {}
        standing: set[Digest] = set()
        claimed: dict[Digest, Digest] = {}
        lies: dict[str, None] = {}
        unchecked: dict[str, None] = {}
        unread: dict[str, None] = {}
        first = intoto.first_key(self.repository)
        ahead = [first, *_tagged(self.places)]
        asked = set(ahead)
        while ahead:
            beside = gather(self.places, ahead)
            claimed |= _claimed(beside, self.repository)
            for each in self.by:
                step = judge_ledger(beside, each)
                lies |= dict.fromkeys(step.lies)
                unchecked |= dict.fromkeys(step.unchecked)
                unread |= dict.fromkeys(step.unread)
                ours = [r for r in step.records if r.predicate.repository == self.repository]
                listed = {r.digest: r for r in ours} | listed
                standing |= {r.digest for r in ours if stands(r, each.policy)}
            ahead = [digest for digest in listed if digest not in asked]
            asked.update(ahead)
        records = _reached(listed, first)
        after = {digest for record in records for digest in record.predicate.previous}
        heads = sorted(r.digest for r in records if r.digest not in after)
        missing = self.by[0].policy.accepts.keys() - {each.policy.digest for each in self.by[1:]}
        return Walked(
            records,
            tuple(heads),
            tuple(lies),
            tuple(unchecked),
            tuple(unread),
            frozenset(standing),
            {each: at for each, at in claimed.items() if each not in listed and at in missing},
        )

    def by_commit(self, commit_key: Digest) -> tuple[LedgerEntry, ...]:
        """Return what is listed by the commit; more than one root is an alarm."""
        listed = gather(self.places, [commit_key])
        found: dict[Digest, LedgerEntry] = {}
        for by in self.by:
            step = judge_ledger(listed, by)
            self._check(step.lies, step.unchecked)
            for record in step.records:
                if record.predicate.commit.key == commit_key and self._counts(record, by.policy):
                    found.setdefault(record.digest, _entry(record))
        return tuple(found[each] for each in sorted(found))

    def by_root(self, root: Digest) -> tuple[LedgerEntry, ...]:
        """Return the entries with this root; the whole ledger is read for it."""
        return tuple(entry for entry in self.entries() if entry.root == root)

    def entries(self, since: int | None = None) -> Iterator[LedgerEntry]:
        """Yield every entry that the first one leads to, in order, or those from *since* on."""
        yield from map(_entry, self.records()[since or 0 :])

    def records(self) -> list[Record]:
        """Return every record that stands and that the first one leads to, in order."""
        walked = self.walk()
        self._check(walked.lies, walked.unchecked)
        return [each for each in walked.records if each.digest in walked.standing]

    def _counts(self, record: Record, policy: Policy) -> bool:
        return record.predicate.repository == self.repository and stands(record, policy)

    def _check(self, lies: Iterable[str], unchecked: Iterable[str]) -> None:
        for reason in lies:
            raise CheckedFalse(reason, hint="`nix-seed audit` shows the evidence")
        for reason in unchecked:
            raise CouldNotCheck(f"what the ledger of {self.repository} holds: {reason}")


@dataclass(slots=True)
class LedgerWalk:
    """The *ledger* that a promotion of *commit* is to be added to; read once, where needed."""

    ledger: LoggedLedger
    commit: intoto.Commit
    _walked: Walked | None = None

    def walked(self) -> Walked:
        """Return all of it; raises where it is not whole, for a record must name what is before."""
        if self._walked is not None:
            return self._walked
        tell(Stage("ledger", "reading the ledger"))
        walked = self.ledger.walk()
        if walked.lies:
            raise CheckedFalse(walked.lies[0], hint="`nix-seed audit` shows the evidence")
        before = f"what the ledger holds before {self.commit}"
        if walked.unread:
            raise CouldNotCheck(
                f"{before}: {walked.unread[0]}",
                hint="nothing was published; run the same command again",
            )
        for record, policy in walked.strange.items():
            raise CouldNotCheck(
                f"{before}: {record} may be a record by the policy {policy}, which is accepted, "
                "and whose promoters are not known",
                hint="nothing was published; name the file of that policy: --policy-history",
            )
        self._walked = walked
        return walked


def _entry(record: Record) -> LedgerEntry:
    said = record.predicate
    signers = ", ".join(each.id for each in record.promoters)
    return LedgerEntry(said.commit.key, said.root, record.digest, f"signed by {signers}")
