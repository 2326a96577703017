"""What a policy that ``init`` writes keeps of the one that it takes the place of.

A new version of nix-seed is a new identity of the same job. A policy that knew that one alone would
refuse all there is until it had made a release; and nothing can make one before it is merged.
"""

from dataclasses import dataclass, replace
from typing import Final

from nix_seed.core.digests import Digest
from nix_seed.logs.rules.signer import CertificateIdentity
from nix_seed.trust.rules.policy import Policy
from nix_seed.trust.rules.policy_template import Workflow

BEFORE: Final = "github-before"
"""The id of the builder that was *github*, until this policy has made a release."""


@dataclass(frozen=True, slots=True)
class KeptPolicy:
    """The *epoch* of the new policy, the earlier ones it *accepts*, and the job known before.

    *accepts* has each one's digest and how many systems it had.
    """

    epoch: int = 1
    accepts: tuple[tuple[Digest, int], ...] = ()
    workflow: Workflow | None = None


def keep_before(old: Policy | None, current: Workflow) -> KeptPolicy:
    """Decide what of *old* a policy for *current* keeps: nothing that *old* does not trust."""
    if old is None:
        return KeptPolicy()
    accepts = tuple(old.accepts.items())
    known = {builder.id: builder.signer for builder in old.builders}
    was = known.get(current.id)
    if was == CertificateIdentity(current.issuer, current.subject, current.repository):
        return KeptPolicy(old.epoch, accepts, _as_before(known.get(BEFORE), current))
    before = _as_before(was, current)
    if before is None:
        return KeptPolicy(old.epoch, accepts)
    return KeptPolicy(old.epoch + 1, (*accepts, (old.digest, len(old.systems))), before)


def _as_before(signer: object, current: Workflow) -> Workflow | None:
    """Return *signer* as a workflow, if it is another version of *current*, for one repository."""
    if not isinstance(signer, CertificateIdentity):
        return None
    same = (signer.issuer, signer.repository) == (current.issuer, current.repository)
    if not same or signer.subject.partition("@")[0] != current.subject.partition("@")[0]:
        return None
    about = "The version of it before, for what there is: out with it after the first release."
    return replace(current, id=BEFORE, about=about, subject=signer.subject)
