"""What a bundle says of itself, whoever signed it: no signature, signer or log is looked at here.

It only sorts what was found, and tells where to look next: whoever lies here has it judged as what
it is not. What decides anything is judged by ``trust.rules.bundle`` instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from nix_seed.core.digests import Digest
from nix_seed.core.errors import InputError
from nix_seed.formats.intoto import build as builds
from nix_seed.formats.intoto import promotion as promotions
from nix_seed.formats.intoto.build import BuildPredicate
from nix_seed.formats.intoto.bundle import Bundle
from nix_seed.formats.intoto.promotion import PromotionPredicate
from nix_seed.formats.intoto.statement import Envelope, Statement

_WHAT = "a bundle that is not verified"


@dataclass(frozen=True, slots=True)
class Unverified:
    """An unverified envelope: the SHA-256 of what is *signed*, and of the *payload*.

    The payload names a record. *build* and *promotion* are what it says it states; None if it
    states another thing, or none well.
    """

    signed: Digest
    payload: Digest
    predicate_type: str | None
    build: BuildPredicate | None
    promotion: PromotionPredicate | None

    @staticmethod
    @lru_cache(1024)
    def read(text: bytes) -> Unverified | None:
        """Read the bytes of a bundle; None for what is none, or holds no envelope."""
        try:
            envelope = Bundle.parse(text, _WHAT).content
        except InputError:
            return None
        if not isinstance(envelope, Envelope):
            return None
        kind, build, promotion = None, None, None
        try:
            statement = Statement.parse(envelope.payload, _WHAT)
            kind = statement.predicate_type
            if kind == builds.PREDICATE_TYPE:
                build = builds.check_statement(statement, _WHAT)
            if kind == promotions.PREDICATE_TYPE:
                promotion = promotions.check_statement(statement, _WHAT)
        except InputError:
            pass
        signed, payload = Digest.of(envelope.pae), Digest.of(envelope.payload)
        return Unverified(signed, payload, kind, build, promotion)
