"""``nix-seed ci promote``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nix_seed.cli.ci_log import Stages, reporting
from nix_seed.cli.ci_options import Secrets, ci_option, ci_options, sign_options, take_secrets
from nix_seed.cli.ci_seed import policy_of
from nix_seed.cli.options import state_directory

if TYPE_CHECKING:
    from nix_seed.clients.ci_host import CiHost
    from nix_seed.flows.ci_promote import Authority, Released
    from nix_seed.formats.oci.reference import Reference
    from nix_seed.rules.ci_events import Decision

__all__ = ["command"]


@click.command("promote", short_help="Promote the commit over all systems.")
@ci_options
@sign_options
@ci_option("--systems", "Systems that must be there [the policy's].")
@ci_option("--tags", "Tags of the index, moved last; latest only on the default branch.")
@ci_option("--commit", "The commit [the one checked out].")
def command(**options: Any) -> None:
    """Publish the index over every system's seed of the commit, once all of them are there.

    Where there is a policy with promoters, the commit is promoted by it, and the index published
    only then. Jobs of events that may not publish end here, with a notice.
    """
    from nix_seed.cli.ci_report import promote_summary
    from nix_seed.clients.ci_host import CiHost
    from nix_seed.rules.ci_events import evaluate_event
    from nix_seed.rules.ci_inputs import repository_of

    host, secrets = CiHost(), take_secrets()
    flake = Path(options["flake"] or ".")
    with reporting(host, "Promotion", flake), Stages(host) as stages:
        decision = evaluate_event(os.environ, host.event())
        if not decision.publish or not secrets.get("SEED_REGISTRY_TOKEN"):
            why = decision.why if not decision.publish else "there is no registry_token"
            host.annotate("notice", "Nothing is promoted", why)
            _outputs(host, None, None)
            return
        repository = repository_of(options["image"], options["registry"], decision, os.environ)
        done = _release(host, secrets, options, decision, repository, stages)
    _outputs(host, repository, done)
    _tell(host, done)
    host.add_summary(promote_summary(done, repository))


def _release(
    host: CiHost,
    secrets: Secrets,
    options: dict[str, Any],
    decision: Decision,
    repository: Reference,
    stages: Stages,
) -> Released:
    from nix_seed.flows.ci_promote import release
    from nix_seed.ground.errors import InputError
    from nix_seed.rules.ci_inputs import parse_systems, parse_tags, safe_tags

    authority = _authority(host, secrets, options)
    systems = parse_systems(options["systems"])
    if authority is not None:
        systems = tuple(sorted(authority.policy.systems))
    if not systems:
        raise InputError(
            "which systems make a release?",
            hint="name them: systems (SEED_SYSTEMS), or in a policy",
        )
    tags, kept_back = safe_tags(parse_tags(options["tags"]), decision)
    if kept_back:
        words = f"only the default branch moves {', '.join(kept_back)}"
        host.annotate("notice", "Tags left where they are", words)
    commit = _commit(options, decision)
    stores = secrets.stores(options, repository)
    return release(stores, repository, commit, systems, tags, authority, stages)


def _commit(options: dict[str, Any], decision: Decision) -> Any:
    from nix_seed.clients.git import read_checkout
    from nix_seed.formats.intoto.commit import Commit

    given = options["commit"] or decision.commit
    return Commit(given) if given else read_checkout(Path(options["flake"] or ".")).commit


def _authority(host: CiHost, secrets: Secrets, options: dict[str, Any]) -> Authority | None:
    from datetime import UTC, datetime

    from nix_seed.flows.ci_promote import Authority
    from nix_seed.flows.logging import open_logs
    from nix_seed.flows.trust import judges_of, load_policy

    path = policy_of(options, Path(options["flake"] or "."))
    if path is None:
        return None
    now = datetime.now(UTC)
    loaded = load_policy(path, now)
    promotes = bool(loaded.policy.promoters)
    return Authority(
        policy=loaded.policy,
        judges=judges_of(loaded, state_directory()),
        signer=secrets.signer(options, host) if promotes else None,
        logs=open_logs(loaded.policy, loaded.directory) if promotes else (),
        now=now,
    )


def _outputs(host: CiHost, repository: Reference | None, done: Released | None) -> None:
    index = None if done is None else done.index
    host.set_outputs(
        {
            "digest": str(index or ""),
            "reference": "" if index is None or repository is None else str(repository.at(index)),
            "promoted": str(done is not None and done.published).lower(),
        }
    )


def _tell(host: CiHost, done: Released) -> None:
    if not done.published:
        host.annotate("notice", "Nothing is promoted", "; ".join([done.state, *done.notices]))
    else:
        for notice in done.notices:
            host.annotate("notice", "Promotion", notice)
    host.say(done.state)
    for system, digest in done.members.items():
        host.say(f"  {system:16} {digest}")
    host.say(f"  index            {done.index or 'none'}")
    for tag in done.tags:
        host.say(f"  tag              {tag}")
