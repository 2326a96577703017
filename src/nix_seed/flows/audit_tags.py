"""What the tags of a ledger's copies name: of one that cannot be read that is told, too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from nix_seed.flows.audit_read import AT_ONCE, Copy, judged
from nix_seed.formats.intoto.commit import is_commit
from nix_seed.formats.oci import media_types
from nix_seed.formats.oci.descriptor import Descriptor
from nix_seed.ground.errors import CheckedFalse, NixSeedError
from nix_seed.rules.audit import AuditFinding, Kind, Severity
from nix_seed.rules.audit_copies import TagNames, is_release_tag
from nix_seed.rules.audit_record import LedgerRecord
from nix_seed.rules.policy import Policy

__all__ = ["Tags", "UnreadTag", "read_tags"]


@dataclass(frozen=True, slots=True)
class UnreadTag:
    """A tag that is there, and why it is not known what it names."""

    copy: str
    tag: str
    error: NixSeedError


@dataclass(frozen=True, slots=True)
class Tags:
    """What tags were found to name, and those *unread*."""

    named: tuple[TagNames, ...]
    unread: tuple[UnreadTag, ...]

    @property
    def unknown(self) -> frozenset[tuple[str, str]]:
        """The unread ones: copy and tag."""
        return frozenset((each.copy, each.tag) for each in self.unread)

    def without(self, records: Iterable[LedgerRecord]) -> Iterator[LedgerRecord]:
        """Yield those of *records* whose index no tag names, and whose commit none is of."""
        named = {each.digest for each in self.named} | {each.tag for each in self.named}
        named |= {each.tag for each in self.unread}
        return (each for each in records if named.isdisjoint({each.index, str(each.commit)}))

    def findings(self) -> Iterator[AuditFinding]:
        """Yield the unread ones; one whose manifest has other bytes than it is listed with lies."""
        for each in self.unread:
            subject, words = f"{each.copy}:{each.tag}", f"the tag {each.tag} of {each.copy}"
            kind, severity = Kind.UNREAD, Severity.UNCHECKED
            if isinstance(each.error, CheckedFalse):
                kind, severity = Kind.TAG, Severity.ALARM
            yield AuditFinding(kind, severity, subject, f"{words}: {each.error.message}")


def read_tags(copies: Sequence[Copy], policies: Iterable[Policy]) -> Tags:
    """Read what each tag names that people pull by: a release, or ``<commit>-<system>``.

    Other tags of one system's image are left out: no record says what they should name.
    """
    systems = tuple({f"-{system}" for policy in policies for system in policy.systems})
    work = [
        (copy, tag)
        for copy in copies
        for tag in copy.tags
        if is_release_tag(tag) and (not tag.endswith(systems) or _is_of_commit(tag, systems))
    ]
    named, unread = [], []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for (copy, tag), found in zip(work, pool.map(lambda w: _head(*w), work), strict=True):
            if isinstance(found, NixSeedError):
                unread.append(UnreadTag(copy.name, tag, found))
            elif found is not None:
                is_index = found.media_type == media_types.INDEX
                named.append(TagNames(copy.name, tag, found.digest, is_index))
    return Tags(tuple(named), tuple(unread))


def _is_of_commit(tag: str, ends: Iterable[str]) -> bool:
    return any(tag.endswith(end) and is_commit(tag.removesuffix(end)) for end in ends)


def _head(copy: Copy, tag: str) -> Descriptor | NixSeedError | None:
    try:
        return copy.store.head_manifest(tag)
    except NixSeedError as error:
        return judged(error)
