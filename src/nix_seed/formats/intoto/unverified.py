"""What a bundle says of itself, whoever signed it: no signature, signer or log is looked at here.

It only sorts what was found, and tells where to look next: whoever lies here has it judged as what
it is not. What decides anything is judged by ``rules.bundle_verify`` instead.
"""

from dataclasses import dataclass
from typing import Self

from nix_seed.core.digests import Digest
from nix_seed.core.errors import InputError
from nix_seed.formats.intoto.build import BuildPredicate
from nix_seed.formats.intoto.build import check_statement as check_build
from nix_seed.formats.intoto.bundle import Bundle
from nix_seed.formats.intoto.promotion import PromotionPredicate
from nix_seed.formats.intoto.promotion import check_statement as check_promotion
from nix_seed.formats.intoto.statement import Envelope, Statement

_WHAT = "a bundle that is not verified"


@dataclass(frozen=True, slots=True)
class Unverified:
    """An unverified envelope; *statement* is None where its payload is none that can be read."""

    envelope: Envelope
    statement: Statement | None

    @classmethod
    def read(cls, text: bytes) -> Self | None:
        """Read the bytes of a bundle; None for what is none, or holds no envelope."""
        try:
            content = Bundle.parse(text, _WHAT).content
        except InputError:
            return None
        if not isinstance(content, Envelope):
            return None
        try:
            return cls(content, Statement.parse(content.payload, _WHAT))
        except InputError:
            return cls(content, None)

    @property
    def payload(self) -> Digest:
        """The SHA-256 of the payload, which names a record."""
        return Digest.of(self.envelope.payload)

    @property
    def predicate_type(self) -> str | None:
        """What it says it states."""
        return None if self.statement is None else self.statement.predicate_type

    @property
    def build(self) -> BuildPredicate | None:
        """The build it says it states; None if it states another thing, or none well."""
        try:
            return None if self.statement is None else check_build(self.statement, _WHAT)
        except InputError:
            return None

    @property
    def promotion(self) -> PromotionPredicate | None:
        """The promotion it says it states; None if it states another thing, or none well."""
        try:
            return None if self.statement is None else check_promotion(self.statement, _WHAT)
        except InputError:
            return None
