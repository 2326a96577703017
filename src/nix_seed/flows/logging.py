"""From the policy's logs to what writes to them."""

from __future__ import annotations

from collections.abc import Sequence

from nix_seed.flows.attest import Logger
from nix_seed.ground.errors import InputError
from nix_seed.rules.policy import Policy

__all__ = ["open_logs"]


def open_logs(policy: Policy) -> Sequence[Logger]:
    """Return a writer for every log of *policy*."""
    if policy.logs:
        raise InputError(
            "this release cannot write to logs yet", hint="leave [[logs]] out of the policy"
        )
    return ()
