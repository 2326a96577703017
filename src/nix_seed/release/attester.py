"""Who attests, and for which checkout: known before any work, and without what attesting loads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nix_seed.core.errors import InputError
from nix_seed.core.values import dataclass

if TYPE_CHECKING:
    from nix_seed.logs.log import Log
    from nix_seed.sbom.sbom import Format
    from nix_seed.trust.rules.policy import Policy
    from nix_seed.trust.sign import Signer


@dataclass(frozen=True, slots=True)
class SourceTree:
    """The checkout to attest for.

    *uri* says where it is published, for a checkout without a remote. *allow_dirty* lets changes
    that no commit holds pass, and has the attestation say so.
    """

    directory: Path
    uri: str | None = None
    attr: str | None = None
    allow_dirty: bool = False


@dataclass(frozen=True, slots=True)
class Attester:
    """Who attests: *builder*, as *policy* calls it, who signs, and the *logs* it is entered in.

    Bills of materials are attached in each format of *sboms* (None: in all).
    """

    builder: str
    signer: Signer
    logs: Sequence[Log] = ()
    sboms: Sequence[Format] | None = None
    policy: Policy | None = None


def builder_of(policy: Policy | None, signer: Signer, given: str | None = None) -> str:
    """Return the id of the builder: as *given*, else as the policy calls the one who signs."""
    if policy is not None:
        from nix_seed.trust.rules.policy import is_signer

        known = (each.id for each in policy.builders if is_signer(each.signer, signer.who))
        found = next(known, None)
        if found is not None and given in (None, found):
            return found
        if given is None or found is not None:
            raise InputError(
                f"the policy calls {signer.identity} {found or 'nothing'}"
                + (f", not {given}" if given else ""),
                hint="sign with the builder's own key, or add the builder to the policy",
            )
    if given is None:
        raise InputError(
            "it is not said which builder this is",
            hint="name it: --builder ID, as the policy calls it",
        )
    return given
