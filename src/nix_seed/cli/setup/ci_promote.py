"""The last job of a CI run: once every system has its seed, promote the commit, or say who lacks.

Each system's job left a tag, ``<commit>-<system>``; jobs are told nothing else of each other. With
a policy that names promoters the release is theirs; without, the index is published when all
systems are there, and verified where there is a policy at all.

A commit whose images are all those of the last release is none of its own: its builders said
nothing of it, and its tag would name what no record promotes. The tags that were asked for are
given to the last release then.
"""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nix_seed.cli.options import state_directory
from nix_seed.cli.setup.ci_job import CiJob
from nix_seed.cli.setup.ci_report import reproduce, verification_part
from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError
from nix_seed.core.values import dataclass
from nix_seed.core.verdict import Fate
from nix_seed.flake.checkout import DEFAULT_POLICY, about_commit, newest_commits, read_checkout
from nix_seed.formats.intoto.statement import Commit
from nix_seed.formats.oci.reference import Reference
from nix_seed.image.index import IndexPlan, build_index
from nix_seed.image.inspect import InspectedIndex, inspect
from nix_seed.image.request import add_tags
from nix_seed.logs.log import Log
from nix_seed.registry.open import AnyReference, Stores, find
from nix_seed.release.load import earlier_of, verifiers_of
from nix_seed.release.promote import Signing, promote as promote_commit
from nix_seed.release.rules.answer import Verification
from nix_seed.release.verifiers import Verifiers
from nix_seed.release.verify import Query, ReleasePlace, verify_image
from nix_seed.sbom.sbom import listed_licences
from nix_seed.setup.rules import ci_inputs
from nix_seed.setup.rules.ci_words import build_summary, code, paragraph, table
from nix_seed.trust.sign import Signer, open_logs

_NEWEST = 64  # commits of the default branch that may have been promoted before this one


@dataclass(frozen=True, slots=True)
class Authority:
    """By whose word: what judges by the policy here and, where it names promoters, who signs.

    The records of the *earlier* policies' promoters are part of the ledger.
    """

    by: Verifiers
    signer: Signer | None
    logs: Sequence[Log]
    earlier: Sequence[Verifiers]


@dataclass(frozen=True, slots=True)
class Released:
    """What came of it: *index* is None where nothing was released, and *state* says why.

    *members* are the images by system, *tags* what names the index now, *verified* the answers of
    the policy, where there is one: for each image, or for the index where it names promoters.
    *published* is false where the index is an earlier release's.
    """

    state: str
    members: Mapping[str, Digest]
    index: Digest | None
    tags: tuple[str, ...]
    notices: tuple[str, ...] = ()
    verified: tuple[Verification, ...] = ()
    published: bool = True


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
                done = CommitRelease(job, commit, authority).publish(_tags(job, commit))
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
        host.add_summary(_summary(done, job.repository, commit, commands))


def _commit(job: CiJob) -> Commit:
    given = job.options["commit"] or job.decision.commit
    return Commit(given) if given else read_checkout(job.flake.directory).commit


def authority_of(job: CiJob) -> Authority | None:
    """Return by whose word it is promoted, None where there is no policy."""
    loaded = job.policy
    if loaded is None:
        return None
    history = [Path(each) for each in ci_inputs.parse_list(job.options["policy_history"])]
    promotes = bool(loaded.policy.promoters)
    return Authority(
        by=verifiers_of(loaded, job.stores, state_directory()),
        signer=job.signer() if promotes else None,
        logs=open_logs(loaded.policy, loaded.directory, spare=True) if promotes else (),
        earlier=earlier_of(loaded, history),
    )


class CommitRelease:
    """The release of *commit* over all systems, by *authority* if there is one."""

    def __init__(self, job: CiJob, commit: Commit, authority: Authority | None) -> None:
        systems = ci_inputs.parse_systems(job.options["systems"])
        if authority is not None:
            systems = tuple(sorted(authority.by.policy.systems))
        if not systems:
            raise InputError(
                "no systems are named that make a release",
                hint="name them: systems (SEED_SYSTEMS), or in a policy",
            )
        self._job, self._commit, self._authority = job, commit, authority
        self._stores, self._repository, self._systems = job.stores, job.repository, systems

    def publish(self, tags: Sequence[str]) -> Released:
        """Publish the index, under the commit and *tags*; or nothing.

        Raises ``CheckedFalse`` with the systems that lack, or as the promotion and the quorum do.
        """
        members, result = self._members(), self._job.options["result"] or "success"
        if result != "success":
            raise CheckedFalse(
                f"every system has a seed of {self._commit}, and yet the jobs that make them came "
                f"to {result}: nothing is promoted",
                hint="this run lists the job of each system: run those that failed again. "
                f"{ci_inputs.LATEST} stays where it is",
            )
        authority = self._authority
        if authority is None:
            return self._index(members, tags)
        if not authority.by.policy.promoters:
            return self._index(members, tags, self._verified(members, authority))
        before = promoted_images(self._stores, self._repository)
        if before is not None and before[1] == members:
            last = self._repository.at(before[0])
            found = verify_image(authority.by, last, Query())
            if found.fate is Fate.VERIFIED:
                return self._tag(before[0], members, tags, found)
        return self._promote(tags, authority)

    def _tag(
        self,
        index: Digest,
        members: Mapping[str, Digest],
        tags: Sequence[str],
        found: Verification,
    ) -> Released:
        """Give the last release *tags*, for a commit of the same images."""
        if add_tags(self._stores.repository(self._repository), index, tags) is None:
            last = self._repository.at(index)
            raise CouldNotCheck(f"{last} was there a moment ago, and is gone")
        reason = "every image is what latest was promoted with: there is nothing new to promote"
        if tags:
            names = "names" if len(tags) == 1 else "name"
            reason += f"; {', '.join(tags)} now {names} that release"
        return Released(reason, members, index, tuple(tags), verified=(found,), published=False)

    def _tagged(self, system: str) -> Reference:
        return self._repository.at(f"{self._commit.hex}-{system}")

    def _members(self) -> dict[str, Digest]:
        found = {}
        for system in self._systems:
            image = find(self._stores, self._tagged(system))
            if image is not None:
                found[system] = image.digest
        missing = [system for system in self._systems if system not in found]
        if missing:
            raise CheckedFalse(
                f"{self._commit} has no seed for {', '.join(missing)}: nothing is promoted",
                hint="the jobs of these systems failed, or published nothing: see their logs. "
                f"{ci_inputs.LATEST} stays where it is",
            )
        return found

    def _index(
        self,
        members: Mapping[str, Digest],
        tags: Sequence[str],
        verified: tuple[Verification, ...] = (),
    ) -> Released:
        images: list[AnyReference] = [self._repository.at(digest) for digest in members.values()]
        target = self._repository.at(self._commit.hex)
        about = about_commit(self._job.flake.directory, self._commit)
        about = replace(about, licenses=listed_licences(self._stores, images))
        plan = IndexPlan(tuple(members), tags, about)
        done = build_index(self._stores, target, images, plan)
        state = "the index over all systems is published"
        return Released(state, members, done.descriptor.digest, done.tags, verified=verified)

    def _verified(
        self, members: Mapping[str, Digest], authority: Authority
    ) -> tuple[Verification, ...]:
        """Verify each member by the policy; one that is not what it must be stops the release."""
        answers = []
        for system, digest in members.items():
            query = Query(system=system, promotion=False)
            answers.append((system, verify_image(authority.by, self._repository.at(digest), query)))
        bad = [f"{system}: {found.reason}" for system, found in answers if not found]
        if bad:
            failed = any(found.fate is Fate.FALSE for _, found in answers)
            raise (CheckedFalse if failed else CouldNotCheck)(
                f"{self._commit} is not promoted: {'; '.join(bad)}",
                hint=f"nix-seed verify {self._tagged(answers[0][0])}",
            )
        return tuple(found for _, found in answers)

    def _promote(self, tags: Sequence[str], authority: Authority) -> Released:
        if authority.signer is None:
            raise InputError(
                "the policy names promoters, and nobody signs here",
                hint="signing: keyless or key",
            )
        done = promote_commit(
            authority.by,
            self._commit,
            ReleasePlace(self._repository, tags=tuple(tags)),
            Signing(authority.signer, authority.logs),
            authority.earlier,
        )
        notices = list(done.notices)
        if done.missing:
            notices.append(f"{done.missing} more of the policy's promoters must sign")
        index = done.record.predicate.index if done.tags else None
        verified: tuple[Verification, ...] = ()
        if index is not None:
            verified = (
                verify_image(authority.by, self._repository.at(index), Query(self._commit)),
            )
        return Released(
            state=done.state,
            members={leaf.system: leaf.image_digest for leaf in done.release.leaves},
            index=index,
            tags=done.tags,
            notices=tuple(notices),
            verified=verified,
            published=bool(done.tags),
        )


def promoted_images(
    stores: Stores, repository: Reference
) -> tuple[Digest, Mapping[str, Digest]] | None:
    """Return the index that ``latest`` names, and its images by system; None without one."""
    reference = repository.at(ci_inputs.LATEST)
    if find(stores, reference) is None:
        return None
    found = inspect(stores, reference)
    if not isinstance(found, InspectedIndex):
        return None
    return found.digest, {image.system or "": image.digest for image in found.images}


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
    """Return why ``latest`` must not move to the release of *commit*, None where it may.

    What is in doubt stays as it is. The forge says what its default branch has now.
    """
    if not job.decision.release:
        return "only the default branch moves it"
    # GitLab's own name for it lets the job in, wherever the runner keeps its credentials.
    url = os.environ.get("CI_REPOSITORY_URL") if job.host.kind == "gitlab" else None
    newest = newest_commits(job.flake.directory, _NEWEST, url=url, login=job.login())
    if newest is None:
        return "origin could not be asked which commits of its default branch are newer"
    if commit.hex not in newest:
        return f"{commit} is none of the newest {len(newest)} commits of origin's default branch"
    for newer in newest[: newest.index(commit.hex)]:
        if find(job.stores, job.repository.at(newer)) is not None:
            return f"{newer}, which came after {commit}, is promoted already"
    return None


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


def _summary(done: Released, repository: Reference, commit: Commit, commands: Sequence[str]) -> str:
    """Return the page of ``ci promote``; *commands* do the same at *commit*."""
    parts: list[str] = [paragraph(f"{code(done.state)}.")]
    rows = tuple((code(system), code(str(image))) for system, image in done.members.items())
    parts.append(table("Systems", ("system", "image"), rows))
    if done.index is not None:
        names = [("index", str(repository.at(done.index))), *(("tag", tag) for tag in done.tags)]
        cells = tuple((name, code(text)) for name, text in names)
        parts.append(table("Index", ("", ""), cells))
    for found in done.verified:
        parts.append(verification_part(found))
    parts.append(reproduce(str(commit), *commands))
    return build_summary("Promotion", parts)
