"""What an audit keeps for the next one: all that it verified, and how far it had come."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from nix_seed.audit.rules.order import heads_of
from nix_seed.audit.rules.record import LedgerRecord
from nix_seed.core import canonical_json
from nix_seed.core.declared import count, digest, member, object_of, strings
from nix_seed.core.digests import Digest
from nix_seed.core.errors import InputError
from nix_seed.formats.tlog.merkle import TreeHead

FORMAT: Final = 2


@dataclass(frozen=True, slots=True)
class LogMark:
    """The log with this *key* (the SHA-256 of its DER) was replayed up to the tree *head*."""

    key: Digest
    head: TreeHead


@dataclass(frozen=True, slots=True)
class AuditState:
    """A verified checkpoint of a ledger.

    *basis* is the hash of what it was judged by: policies, copies, this format. *records* are in
    their order; *subjects* are those whose lists were read and hold nothing else. *latest* is, of
    each copy, the newest promoted index that ``latest`` was seen to name there.
    """

    basis: Digest
    repository: str
    records: tuple[LedgerRecord, ...]
    logs: tuple[LogMark, ...]
    subjects: frozenset[Digest]
    latest: Mapping[str, Digest] = field(default_factory=dict)

    def dump(self) -> bytes:
        """Return canonical JSON."""
        return canonical_json.dumps(
            {
                "format": FORMAT,
                "basis": str(self.basis),
                "repository": self.repository,
                "records": [record.to_json() for record in self.records],
                "heads": [str(each) for each in heads_of(self.records)],
                "logs": [
                    {"key": str(at.key), "size": at.head.size, "root": at.head.root.hex()}
                    for at in self.logs
                ],
                "subjects": [str(each) for each in sorted(self.subjects)],
                "latest": {copy: str(digest) for copy, digest in self.latest.items()},
            }
        )

    @classmethod
    def parse(cls, text: bytes, what: str) -> Self:
        """Read what ``dump`` wrote; ``InputError`` for anything else."""
        found = object_of(canonical_json.loads(text, what=what), what)
        if member(found, "format", int, what) != FORMAT:
            raise InputError(f"{what} is of another format than {FORMAT}")
        records = [
            LedgerRecord.from_json(each, f"{what}, records[{position}]")
            for position, each in enumerate(member(found, "records", list, what))
        ]
        latest = member(found, "latest", dict, what)
        state = cls(
            digest(found, "basis", what),
            member(found, "repository", str, what),
            tuple(records),
            tuple(_mark(each, what) for each in member(found, "logs", list, what)),
            frozenset(Digest.parse(each) for each in strings(found, "subjects", what)),
            {copy: digest(latest, copy, f"{what}, latest") for copy in latest},
        )
        if state.dump() != text:
            raise InputError(f"{what} is not what an audit writes")
        return state


def _mark(value: Any, what: str) -> LogMark:
    found = object_of(value, f"{what}, logs")
    root = Digest(member(found, "root", str, what))
    return LogMark(digest(found, "key", what), TreeHead(count(found, "size", what), root.raw))
