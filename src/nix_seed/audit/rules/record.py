"""A promotion record as an audit sees it: judged by the policy it names, and placed in logs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from nix_seed.core import declared
from nix_seed.core.declared import (
    count,
    digest,
    member,
    object_of,
    optional_member,
    strings,
)
from nix_seed.core.digests import Digest
from nix_seed.core.errors import InputError
from nix_seed.formats.intoto.statement import Commit
from nix_seed.release.rules.evidence import LoggedAt


@dataclass(frozen=True, slots=True)
class LedgerRecord:
    """A record whose statement a promoter signed.

    *signers* are all promoters who did, *promoters* those whose signature counts, and they are
    *enough* or not. *stands*: it is a release by the policy it names; else *why* says what it
    lacks. *positions* are its entries in logs, *time* a moment by which one proves that it was
    there, *copies* where it lies, *builders* those whose votes were found good for it, and *images*
    the system and image of each of its leaves, where its evidence was read.
    """

    digest: Digest
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
    copies: frozenset[str] = frozenset()
    builders: tuple[str, ...] = ()
    images: tuple[tuple[str, Digest], ...] = ()
    time: datetime | None = None

    @property
    def what(self) -> tuple[Digest, Digest]:
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

    def to_json(self) -> dict[str, Any]:
        """Return the object that is kept between audits: all but where copies lie."""
        return {
            "record": str(self.digest),
            "commit": self.commit.to_json(),
            "root": str(self.root),
            "size": self.size,
            "index": str(self.index),
            "policy": str(self.policy),
            "epoch": self.epoch,
            "evidence": str(self.evidence),
            "previous": [str(each) for each in self.previous],
            "signers": list(self.signers),
            "promoters": list(self.promoters),
            "enough": self.enough,
            "stands": self.stands,
            "why": self.why,
            "positions": [declared.write(at) for at in self.positions],
            "builders": list(self.builders),
            "images": {system: str(image) for system, image in self.images},
            "time": self.time and self.time.isoformat(),
        }

    @classmethod
    def from_json(cls, value: Any, where: str) -> Self:
        """Read what ``to_json`` wrote."""
        found = object_of(value, where)
        return cls(
            digest=digest(found, "record", where),
            commit=Commit.read_member(found.get("commit"), "commit", where),
            root=digest(found, "root", where),
            size=count(found, "size", where),
            index=digest(found, "index", where),
            policy=digest(found, "policy", where),
            epoch=count(found, "epoch", where),
            evidence=digest(found, "evidence", where),
            previous=tuple(Digest.parse(text) for text in strings(found, "previous", where)),
            signers=strings(found, "signers", where),
            promoters=strings(found, "promoters", where),
            enough=member(found, "enough", bool, where),
            stands=member(found, "stands", bool, where),
            why=member(found, "why", str, where),
            positions=tuple(
                declared.read(LoggedAt, each, f"{where}, positions")
                for each in member(found, "positions", list, where)
            ),
            builders=strings(found, "builders", where),
            images=_images(member(found, "images", dict, where), where),
            time=_time(found, where),
        )


def by_commit(records: Iterable[LedgerRecord]) -> Mapping[Commit, tuple[LedgerRecord, ...]]:
    """Return the records of each commit, in their order."""
    found: dict[Commit, list[LedgerRecord]] = {}
    for record in records:
        found.setdefault(record.commit, []).append(record)
    return {commit: tuple(each) for commit, each in found.items()}


def _images(value: Mapping[str, Any], where: str) -> tuple[tuple[str, Digest], ...]:
    return tuple((system, digest(value, system, where)) for system in sorted(value))


def _time(value: Mapping[str, Any], where: str) -> datetime | None:
    text = optional_member(value, "time", str, where)
    try:
        return None if text is None else datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(f"{where}: time is none") from error
