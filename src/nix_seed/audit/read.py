"""Reads copies of a ledger: what is listed beside a commit or a digest, records, what tags name.

Nothing is believed, and nothing read is dropped in silence. Lists are read several at once.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace

from nix_seed.audit.rules.conflicts import TagNames, is_release_tag
from nix_seed.audit.rules.record import LedgerRecord
from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, NixSeedError, caught
from nix_seed.core.parallel import in_parallel
from nix_seed.core.values import dataclass
from nix_seed.core.verdict import Severity
from nix_seed.formats.intoto.bundle import attestation_tag
from nix_seed.formats.intoto.statement import Commit, is_commit
from nix_seed.formats.oci.manifest import Descriptor, MediaType
from nix_seed.registry.open import AnyReference, Stores
from nix_seed.registry.store import ImageStore
from nix_seed.release.records import EVIDENCE_TYPE, MEMBER_TYPE
from nix_seed.release.rules.answer import AuditFinding, Kind
from nix_seed.trust.attestations import Discovered, Lookup, discover_all
from nix_seed.trust.rules.policy import Policy

_LISTED = re.compile(r"sha256-([0-9a-f]{64})(\.att)?")
_DOCUMENTS = frozenset({EVIDENCE_TYPE, MEMBER_TYPE})
AT_ONCE = 8


@dataclass(slots=True)
class LedgerCopy:
    """A copy of the ledger at *reference*, the *tags* it has, and whose lists were *read*."""

    name: str
    reference: AnyReference
    store: ImageStore
    tags: tuple[str, ...]
    read: set[Digest] = field(default_factory=set)

    @property
    def commits(self) -> Iterator[Commit]:
        """The commits that have a tag."""
        return (Commit(tag) for tag in self.tags if is_commit(tag))

    @property
    def subjects(self) -> Iterator[Digest]:
        """All that has a list of referrers: whatever writes one gives it its fallback tag."""
        return (Digest(found[1]) for tag in self.tags if (found := _LISTED.fullmatch(tag)))


def read_copies(
    copies: Sequence[LedgerCopy], subjects: Iterable[Digest]
) -> Iterator[tuple[LedgerCopy, Digest, Discovered]]:
    """Yield what each copy lists beside those of *subjects* that were not read in it before."""
    wanted = list(dict.fromkeys(subjects))
    work = [(copy, each) for copy in copies for each in wanted if each not in copy.read]
    for copy, each in work:
        copy.read.add(each)
    lookups = [
        # Whether cosign 2 attached something is told by the tags.
        Lookup(copy.store, each, _DOCUMENTS, cosign=attestation_tag(each) in copy.tags)
        for copy, each in work
    ]
    for (copy, each), found in zip(work, discover_all(lookups), strict=True):
        yield copy, each, found


def open_copy(stores: Stores, reference: AnyReference) -> LedgerCopy:
    """Open the copy of a ledger in the repository *reference*, and list its tags."""
    where = replace(reference, tag=None, digest=None)
    store = stores.open(where)
    return LedgerCopy(str(where), where, store, store.list_tags())


@dataclass(frozen=True, slots=True)
class Tags:
    """What tags were found to name; and, by copy and tag, why some are *unread*."""

    named: tuple[TagNames, ...]
    unread: Mapping[tuple[str, str], NixSeedError]

    def without(self, records: Iterable[LedgerRecord]) -> Iterator[LedgerRecord]:
        """Yield those of *records* whose index no tag names, and whose commit none is of."""
        named = {each.digest for each in self.named} | {each.tag for each in self.named}
        named |= {tag for _, tag in self.unread}
        return (each for each in records if named.isdisjoint({each.index, str(each.commit)}))

    def findings(self) -> Iterator[AuditFinding]:
        """Yield the unread ones; one whose manifest has other bytes than it is listed with lies."""
        for (copy, tag), error in self.unread.items():
            reason = f"the tag {tag} of {copy}: {error.message}"
            kind, severity = Kind.UNREAD, Severity.UNCHECKED
            if isinstance(error, CheckedFalse):
                kind, severity = Kind.TAG, Severity.ALARM
            yield AuditFinding(kind, severity, f"{copy}:{tag}", reason)


def read_tags(copies: Sequence[LedgerCopy], policies: Iterable[Policy]) -> Tags:
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
    named, unread = [], {}
    heads = in_parallel(lambda each: _head(*each), work, AT_ONCE)
    for (copy, tag), found in zip(work, heads, strict=True):
        if isinstance(found, NixSeedError):
            unread[copy.name, tag] = found
        elif found is not None:
            is_index = found.media_type == MediaType.INDEX
            named.append(TagNames(copy.name, tag, found.digest, is_index))
    return Tags(tuple(named), unread)


def _is_of_commit(tag: str, ends: Iterable[str]) -> bool:
    return any(tag.endswith(end) and is_commit(tag.removesuffix(end)) for end in ends)


def _head(copy: LedgerCopy, tag: str) -> Descriptor | NixSeedError | None:
    try:
        return copy.store.head_manifest(tag)
    except Exception as error:
        return caught(error, f"{copy.name}:{tag}")
