"""``nix-seed ci promote``."""

import os
import shlex
from pathlib import Path
from typing import Any

from nix_seed.cli.options import state_directory
from nix_seed.cli.setup.ci_job import CiJob
from nix_seed.cli.setup.ci_report import promote_summary
from nix_seed.core.errors import InputError
from nix_seed.flake.checkout import DEFAULT_POLICY, about_commit, newest_commits, read_checkout
from nix_seed.formats.intoto.statement import Commit
from nix_seed.release.load import earlier_of, verifiers_of
from nix_seed.setup.ci_promote import CommitRelease, ReleaseAuthority, Released, why_latest_stays
from nix_seed.setup.rules import ci_inputs
from nix_seed.trust.sign import open_logs

_NEWEST = 64  # commits of the default branch that may have been promoted before this one


def promote(options: dict[str, Any]) -> None:
    """Promote the commit, or say why nothing is promoted."""
    job = CiJob(options)
    host, done, commit = job.host, None, None
    with job.reported("Promotion"):
        why = None if job.decision.publish else job.decision.why
        why = why or (None if job.token else "there is no registry_token")
        if why is None:
            commit, authority = _commit(job), authority_of(job)
            why = job.why_stranger(authority.signer) if authority else None
            if why is None:
                done = _release(job, commit, authority)
    if done is None:
        host.annotate("notice", "Nothing is promoted", why or "")
    index = None if done is None else done.index
    host.set_outputs(
        {
            "digest": str(index or ""),
            "reference": "" if index is None else str(job.repository.at(index)),
            "promoted": str(done is not None and done.published).lower(),
        }
    )
    if done is not None and commit is not None:
        _tell(job, done)
        commands = _commands(job, commit, done)
        host.add_summary(promote_summary(done, job.repository, str(commit), commands))


def _commit(job: CiJob) -> Commit:
    given = job.options["commit"] or job.decision.commit
    return Commit(given) if given else read_checkout(job.flake.directory).commit


def authority_of(job: CiJob) -> ReleaseAuthority | None:
    """Return by whose word it is promoted, None where there is no policy."""
    loaded = job.policy
    if loaded is None:
        return None
    history = [Path(each) for each in ci_inputs.parse_list(job.options["policy_history"])]
    promotes = bool(loaded.policy.promoters)
    return ReleaseAuthority(
        by=verifiers_of(loaded, job.stores, state_directory()),
        signer=job.signer() if promotes else None,
        logs=open_logs(loaded.policy, loaded.directory, spare=True) if promotes else (),
        earlier=earlier_of(loaded, history),
    )


def _release(job: CiJob, commit: Commit, authority: ReleaseAuthority | None) -> Released:
    """Publish the index, or say why not."""
    systems = ci_inputs.parse_systems(job.options["systems"])
    if authority is not None:
        systems = tuple(sorted(authority.policy.systems))
    if not systems:
        raise InputError(
            "no systems are named that make a release",
            hint="name them: systems (SEED_SYSTEMS), or in a policy",
        )
    about = about_commit(job.flake.directory, commit)
    release = CommitRelease(job.stores, job.repository, commit, systems, authority, about)
    return release.publish(_tags(job, commit), job.options["result"] or "success")


def _tags(job: CiJob, commit: Commit) -> tuple[str, ...]:
    """Return the tags that may move now; of the others it is said why they stay."""
    tags, held = ci_inputs.split_index_tags(ci_inputs.parse_tags(job.options["tags"]))
    commits = [tag for tag in held if tag not in (ci_inputs.LATEST, commit.hex)]
    stay = []
    if commits:
        stay.append(f"{', '.join(commits)}: a commit is tagged by its own promotion alone")
    if ci_inputs.LATEST in held:
        why = _why_latest_stays(job, commit)
        if why is None:
            tags = (*tags, ci_inputs.LATEST)
        else:
            stay.append(f"{ci_inputs.LATEST}: {why}")
    for why in stay:
        job.host.annotate("notice", "Tags left where they are", why)
    return tags


def _why_latest_stays(job: CiJob, commit: Commit) -> str | None:
    if not job.decision.release:
        return "only the default branch moves it"
    # GitLab's own name for it lets the job in, wherever the runner keeps its credentials.
    url = os.environ.get("CI_REPOSITORY_URL") if job.host.kind == "gitlab" else None
    newest = newest_commits(job.flake.directory, _NEWEST, url=url, login=job.login())
    return why_latest_stays(job.stores, job.repository, commit, newest)


def _commands(job: CiJob, commit: Commit, done: Released) -> tuple[str, ...]:
    """Return the commands that do the same, and check it, on anyone's machine."""
    path, repository = job.flake.policy, job.repository
    by = "" if path in (None, DEFAULT_POLICY) else f" --policy {shlex.quote(str(path))}"
    tags = "".join(f" --tag {tag}" for tag in done.tags if tag != commit.hex)
    images = [str(repository.at(digest)) for digest in done.members.values()]
    index = () if done.index is None else (f"nix-seed verify {repository.at(done.index)}{by}",)
    if job.policy is None or not job.policy.policy.promoters:
        checks = [f"nix-seed verify {image}{by}" for image in images] if job.policy else []
        return (*checks, f"nix-seed index {repository}:{commit} {' '.join(images)}{tags}")
    if index and not done.published:
        return index
    key = " --key FILE" if job.options["signing"] == "key" else ""
    return (f"nix-seed promote {commit} --to {repository}{by}{key}{tags}", *index)


def _tell(job: CiJob, done: Released) -> None:
    say, annotate = job.host.say, job.host.annotate
    if not done.published:
        annotate("notice", "Nothing is promoted", "; ".join([done.state, *done.notices]))
    else:
        for notice in done.notices:
            annotate("notice", "Promotion", notice)
    say(done.state)
    for system, digest in done.members.items():
        say(f"  {system:16} {digest}")
    say(f"  index            {done.index or 'none'}")
    for tag in done.tags:
        say(f"  tag              {tag}")
