"""Who signed a store path? The names in its signatures are a cache's own words: keys decide."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from nix_seed.core.values import dataclass
from nix_seed.formats.nix.store_path import PathInfo, PathSignature

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class Signers:
    """Names of keys, sorted: those that signed; those that are named falsely; and those that
    cannot be checked, for Nix's configuration has no key of that name.
    """

    verified: tuple[str, ...] = ()
    unverified: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """All of it in one line."""
        parts = [f"signed by {', '.join(self.verified)}"] if self.verified else []
        parts += [f"a signature of {name} does not verify" for name in self.unverified]
        parts += [f"a signature of {name} was not checked" for name in self.unchecked]
        return "; ".join(parts) or "copied, with no signature"


def judge_signatures(
    info: PathInfo, signatures: Iterable[str], trusted: Mapping[str, Ed25519PublicKey]
) -> Signers:
    """Verify *signatures* of *info* by the *trusted* keys, by name."""
    found = [PathSignature.parse(text) for text in signatures]
    known = [each for each in found if each.key in trusted]
    verified = {each.key for each in known if each.verifies(info, trusted[each.key])}
    return Signers(
        tuple(sorted(verified)),
        tuple(sorted({each.key for each in known} - verified)),
        tuple(sorted({each.key for each in found} - trusted.keys())),
    )
