"""What an audit keeps for the next one: all that it verified, and how far it had come."""

from collections.abc import Mapping
from dataclasses import field
from typing import Any, ClassVar, Final, Self

from nix_seed.audit.rules.conflicts import heads_of
from nix_seed.audit.rules.record import LedgerRecord
from nix_seed.core.declared import Declared, HexHash, read, write
from nix_seed.core.digests import Digest
from nix_seed.core.errors import InputError
from nix_seed.core.values import dataclass
from nix_seed.formats.tlog.merkle import TreeHead

FORMAT: Final = 2


@dataclass(frozen=True, slots=True)
class LogMark:
    """The log with this *key* (the SHA-256 of its DER) was replayed up to this tree."""

    key: Digest
    size: int
    root: HexHash

    @property
    def head(self) -> TreeHead:
        """The tree."""
        return TreeHead(self.size, self.root)


@dataclass(frozen=True, slots=True)
class AuditState(Declared):
    """A verified checkpoint of a ledger.

    *basis* is the hash of what it was judged by: policies, copies, this format. *records* are in
    their order; *subjects* are those whose lists were read and hold nothing else. *latest* is, of
    each copy, the newest promoted index that ``latest`` was seen to name there.
    """

    otherwise: ClassVar = "is not what an audit writes"

    basis: Digest
    repository: str
    records: tuple[LedgerRecord, ...]
    logs: tuple[LogMark, ...]
    subjects: frozenset[Digest]
    latest: Mapping[str, Digest] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return all that is kept: the format and the heads as well, for whoever reads it."""
        heads = [str(each) for each in heads_of(self.records)]
        return write(self) | {"format": FORMAT, "heads": heads}

    @classmethod
    def from_json(cls, value: Any, where: str) -> Self:
        """Read what ``to_json`` returns."""
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise InputError(f"{where} is of another format than {FORMAT}")
        return read(cls, value, where)
