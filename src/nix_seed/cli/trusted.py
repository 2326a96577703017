"""Commands that use an image verify it first, where there is a policy to verify it by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from nix_seed.cli.options import policy_option, state_directory, with_options
from nix_seed.cli.say import say

if TYPE_CHECKING:
    from nix_seed.flows.events import OnEvent
    from nix_seed.flows.stores import AnyReference, Stores

__all__ = ["accepted_licences", "policy_used", "trusted", "verify_options"]

Command = TypeVar("Command", bound=Callable[..., Any])


def verify_options(command: Command) -> Command:
    """Add the policy to verify by, and how to go without; ``trusted`` reads them."""
    return with_options(command, _OPTIONS)


_OPTIONS: list[Callable[[Any], Any]] = [
    policy_option(
        "Verify the image by this policy first [the project's trust.toml, if there].", default=None
    ),
    click.option("--no-verify", is_flag=True, help="Use the image unverified, policy or not."),
]


def trusted(
    options: dict[str, Any],
    stores: Stores,
    reference: AnyReference,
    system: str | None,
    project: Path,
    on_event: OnEvent,
) -> AnyReference:
    """Return *reference* by the digest that was verified; as it is where there is no policy.

    *project* is the directory whose ``trust.toml`` is the default.
    """
    from datetime import UTC, datetime

    from nix_seed.flows.trust import load_policy
    from nix_seed.flows.trusted import check_trusted

    path = policy_used(options, project)
    if options["no_verify"]:
        say(
            f"WARNING: {reference} is used unverified (--no-verify): neither that builders agree "
            "on it was checked, nor that it was promoted",
            fg="yellow",
            bold=True,
            err=True,
        )
        return reference
    if path is None:
        return reference
    now = datetime.now(UTC)
    found = check_trusted(
        stores, reference, system, load_policy(path, now), state_directory(), now, on_event
    )
    say(f"verified by {path}: {found.words}", err=True)
    return found.reference


def accepted_licences(given: Sequence[str], policy: Path | None) -> tuple[str, ...]:
    """Return the licences that the user accepts: *given* now, and those of the *policy* used."""
    from datetime import UTC, datetime

    from nix_seed.flows.trust import load_policy

    if policy is None:
        return tuple(given)
    return (*given, *load_policy(policy, datetime.now(UTC)).policy.licences)


def policy_used(options: dict[str, Any], project: Path) -> Path | None:
    """Return the policy that is named, or is *project*'s own; None where there is none."""
    from nix_seed.flows.trust import DEFAULT_POLICY

    path: Path | None = options.get("policy_file")
    if path is None and (project / DEFAULT_POLICY).is_file():
        return project / DEFAULT_POLICY
    return path
