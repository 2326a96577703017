"""Copies of one ledger side by side, and the tags that each gives: do they say the same?"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from nix_seed.formats.intoto.commit import Commit, is_commit
from nix_seed.formats.oci.referrers import lists_referrers
from nix_seed.ground.digests import Digest
from nix_seed.rules.audit import AuditFinding, Kind, Severity
from nix_seed.rules.audit_record import LedgerRecord

__all__ = [
    "TagNames",
    "find_differing_copies",
    "find_moved_images",
    "find_moved_tags",
    "find_rolled_back",
    "is_release_tag",
    "newest_latest",
]

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
    """Whether *tag* may be one that people pull by: not a list of referrers."""
    return not lists_referrers(tag)


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
            if each.digest not in wanted:
                yield _moved(each, _wanted(each.tag, wanted))
        elif (each.is_index or each.tag in _ALWAYS) and each.digest not in promoted:
            yield _moved(each, "which no record promotes")
    named = {(each.copy, each.tag) for each in tags} | set(unread)
    for copy in sorted({each.copy for each in tags}):
        for record in records:
            if record.stands and copy in record.copies and (copy, str(record.commit)) not in named:
                yield _untagged(copy, record)


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
        own = [each for each in has if each.copies != frozenset(names)]
        yield _lacking(name, lacking, behind=behind and not own)
    by_tag: dict[str, dict[str, Digest]] = {}
    for each in tags:
        by_tag.setdefault(each.tag, {})[each.copy] = each.digest
    for tag, found in by_tag.items():
        if len(set(found.values())) > 1:
            yield _differing(tag, found)


def _wanted(tag: str, wanted: set[Digest]) -> str:
    if not wanted:
        return f"and no record promotes {Commit(tag)}"
    return f"and promoted was {', '.join(sorted(str(each) for each in wanted))}"


def _moved(found: TagNames, why: str, severity: Severity = Severity.ALARM) -> AuditFinding:
    words = f"the tag {found.tag} of {found.copy} names {found.digest}, {why}"
    evidence = (f"{found.copy}:{found.tag} is {found.digest}",)
    return AuditFinding(Kind.TAG, severity, f"{found.copy}:{found.tag}", words, evidence)


def _untagged(copy: str, record: LedgerRecord) -> AuditFinding:
    words = (
        f"{record.commit} is promoted, and {copy} has no tag for it: promote it once more, which "
        "goes on from there"
    )
    return AuditFinding(Kind.TAG, Severity.WARNING, f"{copy}:{record.commit}", words, record.shown)


def _lacking(name: str, lacking: Sequence[LedgerRecord], *, behind: bool) -> AuditFinding:
    shown = ", ".join(str(each.commit) for each in lacking[:5])
    more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
    evidence = tuple(line for each in lacking[:5] for line in each.shown)
    if behind:
        words = f"{name} is behind: it lacks the records of {shown}{more}"
        return AuditFinding(Kind.COPIES, Severity.WARNING, name, words, evidence)
    words = f"{name} shows another ledger than the other copies: it lacks {shown}{more}"
    return AuditFinding(Kind.EQUIVOCATION, Severity.ALARM, name, words, evidence)


def _differing(tag: str, found: Mapping[str, Digest]) -> AuditFinding:
    said = "; ".join(f"{copy} says {digest}" for copy, digest in sorted(found.items()))
    severity = Severity.ALARM if is_commit(tag) else Severity.WARNING
    evidence = tuple(f"{copy}:{tag} is {digest}" for copy, digest in sorted(found.items()))
    words = f"the tag {tag} names different things: {said}"
    return AuditFinding(Kind.COPIES, severity, tag, words, evidence)
