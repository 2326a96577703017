"""The last job of a CI run: once every system has its seed, promote the commit, or say who lacks.

Each system's job left a tag, ``<commit>-<system>``; jobs are told nothing else of each other. With
a policy that names promoters the release is theirs; without, the index is published when all
systems are there, and verified where there is a policy at all.

A commit whose images are all those of the last release is none of its own: its builders said
nothing of it, and its tag would name what no record promotes. The tags that were asked for are
given to the last release then.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError
from nix_seed.core.values import dataclass
from nix_seed.core.verdict import Fate
from nix_seed.formats.intoto.statement import Commit
from nix_seed.formats.oci.manifest import UNSAID, About
from nix_seed.formats.oci.reference import Reference
from nix_seed.image.index import IndexPlan, build_index
from nix_seed.image.inspect import InspectedIndex, inspect
from nix_seed.image.request import add_tags
from nix_seed.logs.log import Log
from nix_seed.registry.open import AnyReference, Stores, find
from nix_seed.release.promote import Signing, promote
from nix_seed.release.rules.answer import Verification
from nix_seed.release.verifiers import Verifiers
from nix_seed.release.verify import Query, ReleasePlace, verify_image
from nix_seed.sbom.sbom import listed_licences
from nix_seed.trust.rules.policy import Policy
from nix_seed.trust.sign import Signer


def why_latest_stays(
    stores: Stores, repository: Reference, commit: Commit, newest: Sequence[str] | None
) -> str | None:
    """Return why ``latest`` must not move to the release of *commit*, None where it may.

    *newest* are the newest commits of the default branch, the newest first, as the forge has them
    now; None where it could not be asked. What is in doubt stays as it is.
    """
    if newest is None:
        return "origin could not be asked which commits of its default branch are newer"
    if commit.hex not in newest:
        return f"{commit} is none of the newest {len(newest)} commits of origin's default branch"
    for newer in newest[: newest.index(commit.hex)]:
        if find(stores, repository.at(newer)) is not None:
            return f"{newer}, which came after {commit}, is promoted already"
    return None


_LATEST = "latest"


@dataclass(frozen=True, slots=True)
class ReleaseAuthority:
    """By whose word: the policy, what judges by it here, and, where it names promoters, who signs.

    The records of the *earlier* policies' promoters are part of the ledger.
    """

    by: Verifiers
    signer: Signer | None
    logs: Sequence[Log]
    earlier: Sequence[Verifiers] = ()

    @property
    def policy(self) -> Policy:
        """The policy in force."""
        return self.by.policy


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


@dataclass(frozen=True, slots=True)
class CommitRelease:
    """The release of *commit* over *systems* at *repository*, by *authority* if there is one.

    *about* is what an index says of itself that no promoter signs for.
    """

    stores: Stores
    repository: Reference
    commit: Commit
    systems: Sequence[str]
    authority: ReleaseAuthority | None
    about: About = UNSAID

    def publish(self, tags: Sequence[str], result: str = "success") -> Released:
        """Publish the index, under the commit and *tags*; or nothing.

        *result* is what the jobs that make the seeds came to. Raises ``CheckedFalse`` with the
        systems that lack, or as the promotion and the quorum do.
        """
        members = self._members()
        if result != "success":
            raise CheckedFalse(
                f"every system has a seed of {self.commit}, and yet the jobs that make them came "
                f"to {result}: nothing is promoted",
                hint="this run lists the job of each system: run those that failed again. "
                f"{_LATEST} stays where it is",
            )
        if self.authority is None:
            return self._index(members, tags)
        if not self.authority.policy.promoters:
            return self._index(members, tags, self._verified(members, self.authority))
        before = promoted_images(self.stores, self.repository)
        if before is not None and before[1] == members:
            last = self.repository.at(before[0])
            found = verify_image(self.authority.by, last, Query())
            if found.fate is Fate.VERIFIED:
                return _tag(self.stores, last, members, tags, found)
        return self._promote(tags, self.authority)

    def _members(self) -> dict[str, Digest]:
        found = {}
        for system in self.systems:
            image = find(self.stores, self.repository.at(f"{self.commit.hex}-{system}"))
            if image is not None:
                found[system] = image.digest
        missing = [system for system in self.systems if system not in found]
        if missing:
            raise CheckedFalse(
                f"{self.commit} has no seed for {', '.join(missing)}: nothing is promoted",
                hint="the jobs of these systems failed, or published nothing: see their logs. "
                f"{_LATEST} stays where it is",
            )
        return found

    def _index(
        self,
        members: Mapping[str, Digest],
        tags: Sequence[str],
        verified: tuple[Verification, ...] = (),
    ) -> Released:
        images: list[AnyReference] = [self.repository.at(digest) for digest in members.values()]
        target = self.repository.at(self.commit.hex)
        about = replace(self.about, licenses=listed_licences(self.stores, images))
        plan = IndexPlan(tuple(members), tags, about)
        done = build_index(self.stores, target, images, plan)
        state = "the index over all systems is published"
        return Released(state, members, done.descriptor.digest, done.tags, verified=verified)

    def _verified(
        self, members: Mapping[str, Digest], authority: ReleaseAuthority
    ) -> tuple[Verification, ...]:
        """Verify each member by the policy; one that is not what it must be stops the release."""
        answers = []
        for system, digest in members.items():
            query = Query(system=system, promotion=False)
            answers.append((system, verify_image(authority.by, self.repository.at(digest), query)))
        bad = [f"{system}: {found.reason}" for system, found in answers if not found]
        if bad:
            failed = any(found.fate is Fate.FALSE for _, found in answers)
            raise (CheckedFalse if failed else CouldNotCheck)(
                f"{self.commit} is not promoted: {'; '.join(bad)}",
                hint=f"nix-seed verify {self.repository.at(f'{self.commit.hex}-{answers[0][0]}')}",
            )
        return tuple(found for _, found in answers)

    def _promote(self, tags: Sequence[str], authority: ReleaseAuthority) -> Released:
        if authority.signer is None:
            raise InputError(
                "the policy names promoters, and nobody signs here",
                hint="signing: keyless or key",
            )
        done = promote(
            authority.by,
            self.commit,
            ReleasePlace(self.repository, tags=tuple(tags)),
            Signing(authority.signer, authority.logs),
            authority.earlier,
        )
        notices = list(done.notices)
        if done.missing:
            notices.append(f"{done.missing} more of the policy's promoters must sign")
        index = done.record.predicate.index if done.tags else None
        verified: tuple[Verification, ...] = ()
        if index is not None:
            verified = (verify_image(authority.by, self.repository.at(index), Query(self.commit)),)
        return Released(
            state=done.state,
            members={leaf.system: leaf.image_digest for leaf in done.release.leaves},
            index=index,
            tags=done.tags,
            notices=tuple(notices),
            verified=verified,
            published=bool(done.tags),
        )


def _tag(
    stores: Stores,
    index: Reference,
    members: Mapping[str, Digest],
    tags: Sequence[str],
    found: Verification,
) -> Released:
    """Give the last release *tags*, for a commit of the same images."""
    assert index.digest is not None
    remote = stores.repository(index)
    if add_tags(remote, index.digest, tags) is None:
        raise CouldNotCheck(f"{index} was there a moment ago, and is gone")
    reason = f"every image is what {_LATEST} was promoted with: there is nothing new to promote"
    if tags:
        reason += f"; {', '.join(tags)} now {'names' if len(tags) == 1 else 'name'} that release"
    return Released(reason, members, index.digest, tuple(tags), verified=(found,), published=False)


def promoted_images(
    stores: Stores, repository: Reference
) -> tuple[Digest, Mapping[str, Digest]] | None:
    """Return the index that ``latest`` names, and its images by system; None without one."""
    reference = repository.at(_LATEST)
    if find(stores, reference) is None:
        return None
    found = inspect(stores, reference)
    if not isinstance(found, InspectedIndex):
        return None
    return found.digest, {image.system or "": image.digest for image in found.images}
