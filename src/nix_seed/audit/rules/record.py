"""A promotion record as an audit sees it: judged by the policy it names, and placed in logs."""

from collections.abc import Iterable, Mapping
from dataclasses import field
from datetime import datetime
from typing import Annotated

from nix_seed.core.declared import Codec, Declared, at, codec_of
from nix_seed.core.digests import Digest
from nix_seed.core.values import dataclass
from nix_seed.core.verdict import Severity
from nix_seed.formats.intoto.statement import Commit
from nix_seed.release.rules.answer import AuditFinding, Kind
from nix_seed.trust.rules.policy import LoggedAt

_BY_SYSTEM = codec_of(Mapping[str, Digest])
_IMAGES = Codec(
    lambda *found: tuple(sorted(_BY_SYSTEM.read(*found).items())),
    lambda images: _BY_SYSTEM.write(dict(images)),
)


@dataclass(frozen=True, slots=True)
class LedgerRecord(Declared):
    """A record whose statement a promoter signed.

    *signers* are all promoters who did, *promoters* those whose signature counts, and they are
    *enough* or not. *stands*: it is a release by the policy it names; else *why* says what it
    lacks. *positions* are its entries in logs, *time* a moment by which one proves that it was
    there, *copies* where it lies, *builders* those whose votes were found good for it, and *images*
    the system and image of each of its leaves, where its evidence was read. *outputs* is the root
    over the outputs that are promoted with it, if any are.
    """

    digest: Digest = field(metadata=at("record"))
    commit: Commit
    root: Digest
    size: int
    index: Digest
    policy: Digest
    epoch: int
    evidence: Digest
    previous: tuple[Digest, ...]
    signers: tuple[str, ...]
    promoters: tuple[str, ...]
    enough: bool
    stands: bool
    why: str
    positions: tuple[LoggedAt, ...]
    copies: frozenset[str] = field(default=frozenset(), metadata=at(omit=True))
    builders: tuple[str, ...] = ()
    images: Annotated[tuple[tuple[str, Digest], ...], _IMAGES] = ()
    time: datetime | None = None
    outputs: Digest | None = field(default=None, metadata=at(omit=True))

    @property
    def promoted(self) -> tuple[Digest, Digest]:
        """What the commit is said to be: root and index."""
        return self.root, self.index

    @property
    def logs(self) -> frozenset[str]:
        """The logs that hold it."""
        return frozenset(each.log for each in self.positions)

    @property
    def shown(self) -> tuple[str, ...]:
        """The record for people, as evidence."""
        at = (f"entry {each.index} of {each.log}" for each in self.positions)
        return (
            f"record {self.digest}",
            f"root {self.root}",
            f"index {self.index}",
            f"signed by {', '.join(self.signers) or 'nobody known'}",
            *at,
        )

    def finding(
        self,
        kind: Kind,
        severity: Severity,
        reason: str,
        system: str = "",
        more: tuple[str, ...] | None = None,
    ) -> AuditFinding:
        """Return a finding about this record, or about what it says for *system*.

        The evidence is all of the record, or its digest and *more*.
        """
        evidence = self.shown if more is None else (*self.shown[:1], *more)
        return AuditFinding(kind, severity, f"{self.commit} {system}".rstrip(), reason, evidence)


def by_commit(records: Iterable[LedgerRecord]) -> Mapping[Commit, tuple[LedgerRecord, ...]]:
    """Return the records of each commit, in their order."""
    found: dict[Commit, list[LedgerRecord]] = {}
    for record in records:
        found.setdefault(record.commit, []).append(record)
    return {commit: tuple(each) for commit, each in found.items()}
