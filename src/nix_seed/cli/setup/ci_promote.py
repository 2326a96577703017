"""``nix-seed ci promote``."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nix_seed.cli.options import state_directory
from nix_seed.cli.setup.ci_log import Stages, reporting
from nix_seed.cli.setup.ci_options import (
    Secrets,
    ci_option,
    ci_options,
    flake_of,
    seed_attr_option,
    sign_options,
    take_secrets,
)

if TYPE_CHECKING:
    from nix_seed.formats.intoto.statement import Commit
    from nix_seed.formats.oci.reference import Reference
    from nix_seed.registry.open import Stores
    from nix_seed.setup.ci_host import CiHost
    from nix_seed.setup.ci_promote import ReleaseAuthority, Released
    from nix_seed.setup.rules.ci_events import Decision

_NEWEST = 64  # commits of the default branch that may have been promoted before this one


@click.command("promote", short_help="Promote the commit over all systems.")
@ci_options
@seed_attr_option
@sign_options
@ci_option("--systems", "Systems that must be there [the policy's].")
@ci_option("--tags", "Tags of the index, moved last; latest only on the default branch.")
@ci_option("--policy-history", "Files of earlier policies, whose promoters' records there are.")
@ci_option("--commit", "The commit [the one checked out].")
@ci_option("--result", "What the jobs that make the seeds came to [success].")
def command(**options: Any) -> None:
    """Publish the index over every system's seed of the commit, once all of them are there.

    Where there is a policy with promoters, the commit is promoted by it, and the index published
    only then. Jobs of events that may not publish end here, with a notice.
    """
    from nix_seed.cli.setup.ci_report import promote_summary
    from nix_seed.setup.ci_host import CiHost
    from nix_seed.setup.rules.ci_events import evaluate_event
    from nix_seed.setup.rules.ci_inputs import repository_of

    host, secrets = CiHost(), take_secrets()
    flake = Path(options["flake"] or ".")
    with reporting(host, "Promotion", flake), Stages(host) as stages:
        decision = evaluate_event(os.environ, host.event())
        if not decision.publish or not secrets.get("SEED_REGISTRY_TOKEN"):
            why = decision.why if not decision.publish else "there is no registry_token"
            _end_unpromoted(host, why)
            return
        repository = repository_of(options["image"], options["registry"], decision, os.environ)
        commit, authority = _commit(options, decision), _authority(host, secrets, options)
        stranger = _why_stranger(authority, decision)
        if stranger is not None:
            _end_unpromoted(host, stranger)
            return
        job = _PromotionJob(host, secrets, options, decision, repository, commit, authority)
        done = job.release(stages)
    _outputs(host, repository, done)
    _tell(host, done)
    host.add_summary(promote_summary(done, repository, str(commit), job.commands(done)))


def _end_unpromoted(host: CiHost, why: str) -> None:
    host.annotate("notice", "Nothing is promoted", why)
    _outputs(host, None, None)


def _why_stranger(authority: ReleaseAuthority | None, decision: Decision) -> str | None:
    """Return why this job, a fork's for one, is rightly none that the policy has promote."""
    from nix_seed.cli.trust.options import why_stranger

    if authority is None or authority.signer is None:
        return None
    return why_stranger(authority.signer, authority.policy, decision)


def _commit(options: dict[str, Any], decision: Decision) -> Commit:
    from nix_seed.flake.checkout import read_checkout
    from nix_seed.formats.intoto.statement import Commit

    given = options["commit"] or decision.commit
    return Commit(given) if given else read_checkout(flake_of(options).directory).commit


@dataclass(frozen=True, slots=True)
class _PromotionJob:
    """A job that may publish: what it is about."""

    host: CiHost
    secrets: Secrets
    options: dict[str, Any]
    decision: Decision
    repository: Reference
    commit: Commit
    authority: ReleaseAuthority | None

    def release(self, stages: Stages) -> Released:
        """Publish the index, or say why not."""
        from nix_seed.core.errors import InputError
        from nix_seed.setup.ci_promote import CommitRelease
        from nix_seed.setup.rules.ci_inputs import parse_systems

        systems = parse_systems(self.options["systems"])
        if self.authority is not None:
            systems = tuple(sorted(self.authority.policy.systems))
        if not systems:
            raise InputError(
                "which systems make a release?",
                hint="name them: systems (SEED_SYSTEMS), or in a policy",
            )
        stores = self.secrets.stores(self.options, self.repository)
        job = CommitRelease(stores, self.repository, self.commit, systems, self.authority, stages)
        return job.publish(self._tags(stores), self.options["result"] or "success")

    def _tags(self, stores: Stores) -> tuple[str, ...]:
        """Return the tags that may move now; of the others it is said why they stay."""
        from nix_seed.setup.rules.ci_inputs import LATEST, parse_tags, split_index_tags

        tags, held = split_index_tags(parse_tags(self.options["tags"]))
        commits = [tag for tag in held if tag not in (LATEST, self.commit.hex)]
        if commits:
            self._stays(f"{', '.join(commits)}: a commit is tagged by its own promotion alone")
        if LATEST not in held:
            return tags
        why = self._why_latest_stays(stores)
        if why is not None:
            self._stays(f"{LATEST}: {why}")
            return tags
        return (*tags, LATEST)

    def _why_latest_stays(self, stores: Stores) -> str | None:
        from nix_seed.flake.checkout import newest_commits
        from nix_seed.setup.ci_promote import why_latest_stays

        if not self.decision.release:
            return "only the default branch moves it"
        directory = flake_of(self.options).directory
        # GitLab's own name for it lets the job in, wherever the runner keeps its credentials.
        url = os.environ.get("CI_REPOSITORY_URL") if self.host.kind == "gitlab" else None
        newest = newest_commits(directory, _NEWEST, url=url, login=self.secrets.login())
        return why_latest_stays(stores, self.repository, self.commit, newest)

    def _stays(self, why: str) -> None:
        self.host.annotate("notice", "Tags left where they are", why)

    def commands(self, done: Released) -> tuple[str, ...]:
        """Return the commands that do the same, and check it, on anyone's machine."""
        from nix_seed.release.load import DEFAULT_POLICY

        path = flake_of(self.options).policy
        by = "" if path in (None, DEFAULT_POLICY) else f" --policy {shlex.quote(str(path))}"
        tags = "".join(f" --tag {tag}" for tag in done.tags if tag != self.commit.hex)
        images = [str(self.repository.at(digest)) for digest in done.members.values()]
        verify = f"nix-seed verify {{}}{by}".format
        if self.authority is None or not self.authority.policy.promoters:
            target = f"nix-seed index {self.repository}:{self.commit} {' '.join(images)}{tags}"
            return (*(map(verify, images) if self.authority else ()), target)
        if done.index is not None and not done.published:
            return (verify(self.repository.at(done.index)),)
        key = " --key FILE" if self.options["signing"] == "key" else ""
        release = f"nix-seed promote {self.commit} --to {self.repository}{by}{key}{tags}"
        return (release, *([] if done.index is None else [verify(self.repository.at(done.index))]))


def _authority(host: CiHost, secrets: Secrets, options: dict[str, Any]) -> ReleaseAuthority | None:
    from datetime import UTC, datetime

    from nix_seed.release.load import earlier_of, load_policy, verifiers_of
    from nix_seed.setup.ci_promote import ReleaseAuthority
    from nix_seed.setup.rules.ci_inputs import parse_list
    from nix_seed.trust.log_signed import open_logs

    path = flake_of(options).policy
    if path is None:
        return None
    loaded = load_policy(path, datetime.now(UTC))
    history = [Path(each) for each in parse_list(options["policy_history"])]
    promotes = bool(loaded.policy.promoters)
    return ReleaseAuthority(
        by=verifiers_of(loaded, state=state_directory()),
        signer=secrets.signer(options, host) if promotes else None,
        logs=open_logs(loaded.policy, loaded.directory, spare=True) if promotes else (),
        earlier=earlier_of(loaded, history),
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
