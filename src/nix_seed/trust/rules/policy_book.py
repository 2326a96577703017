"""The policies of a repository: the one in force, and those that came before it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from nix_seed.core.digests import Digest
from nix_seed.core.errors import InputError
from nix_seed.trust.rules.policy import Policy


@dataclass(frozen=True, slots=True)
class PolicyBook:
    """The *present* policy, and *earlier* ones by their digest."""

    present: Policy
    earlier: Mapping[Digest, Policy]

    @classmethod
    def of(cls, present: Policy, earlier: Iterable[Policy]) -> Self:
        """Put a book together; ``InputError`` for two policies that cannot be of one history."""
        found = {policy.digest: policy for policy in earlier if policy.digest != present.digest}
        for policy in found.values():
            if policy.epoch >= present.epoch:
                raise InputError(
                    f"the policy {policy.digest} has epoch {policy.epoch}, and that in force has "
                    f"{present.epoch}: it is no earlier one",
                    hint="--policy is the policy in force, --policy-history those before it",
                )
            if policy.source != present.source:
                raise InputError(
                    f"the policy {policy.digest} is of {policy.source}, not of {present.source}"
                )
        return cls(present, found)

    @property
    def all(self) -> tuple[Policy, ...]:
        """Every policy, the one in force first."""
        return self.present, *self.earlier.values()

    def of_record(self, digest: Digest) -> Policy:
        """Return the policy that a record names; where it is unknown, the one in force."""
        return self.earlier.get(digest, self.present)

    def knows(self, digest: Digest) -> bool:
        """Whether the policy with this digest is at hand."""
        return digest == self.present.digest or digest in self.earlier
