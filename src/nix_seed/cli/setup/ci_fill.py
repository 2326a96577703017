"""Fills a CI machine's store from the seed that fits its checkout best, and says how well it fits.

The seed of this very recipe is found by its input key, which takes a Nix to evaluate with. A
machine that has none gets one with the nearest seed there is (of this commit, of its parents, of
the lock, the last one promoted), and what that lacks comes from the right one afterwards.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import field, replace
from pathlib import Path

from nix_seed.cli.lazily import lazily
from nix_seed.cli.options import accepted_licences, state_directory
from nix_seed.cli.setup.ci_job import CiJob
from nix_seed.core import processes
from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError, NixFailed, NixSeedError
from nix_seed.core.events import Stage, tell
from nix_seed.core.files import read_given
from nix_seed.core.values import dataclass
from nix_seed.core.verdict import Fate
from nix_seed.flake.checkout import parents_of
from nix_seed.flake.nix import Nix
from nix_seed.formats.oci.reference import Reference, parse_reference
from nix_seed.registry.open import AnyReference, choose_system, fetch, fetch_if_there
from nix_seed.registry.rules.lock import LOCK_NAME, SeedLock
from nix_seed.registry.store import Fetched
from nix_seed.setup import ci_host
from nix_seed.setup.rules.ci_inputs import parse_list, parse_names, parse_switch
from nix_seed.use.mount import linux

with lazily():
    from nix_seed.image import request as requests
    from nix_seed.release import load, verify
    from nix_seed.release.rules import answer as answers
    from nix_seed.use import hydrate


_LATEST = "latest"
# What asks registries, and what fills, which is loaded while they are waited for.
_ASKING = "nix_seed.registry.client"
_FILLING = ("nix_seed.use.hydrate", "nix_seed.use.mount.store")


class NotPromoted(CheckedFalse):
    """All of the seed verified, but that nothing says yet that its commit was promoted.

    So it is between the first system's job and the promotion. It is not used; others may be.
    """


@dataclass(frozen=True, slots=True)
class Used:
    """What was found, by *how* it was found, and how *exact*: nothing of this recipe lacks.

    *problems* say, for people, why no better one was found. *seconds* are by the clock, of the
    parts ``find``, ``verify``, ``start`` (the first evaluation); ``fill`` has its own.
    """

    image: AnyReference | None = None
    digest: Digest | None = None
    how: str = ""
    exact: bool = False
    input_key: str | None = None
    fills: tuple[hydrate.Hydrated, ...] = ()
    verification: answers.Verification | None = None
    problems: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def nix(self) -> Path | None:
        """Where the seed's own Nix is."""
        return next((each.nix for each in reversed(self.fills) if each.nix is not None), None)


class SeedSearch:
    """Finds the seed for *job*, and fills this machine's store; *used* is what came of it so far.

    The commits that are looked for are the one checked out and then its parents: a pull request's
    own commit is one that nobody else has.
    """

    def __init__(self, job: CiJob) -> None:
        named = job.options["reference"]
        self.used = Used()
        self._job = job
        self._nix = Nix()
        self._named = parse_reference(named) if named else None
        self._request = job.request()
        self._system = processes.current_system()
        self._commits = parents_of(job.flake.directory)
        self._waiting: set[Digest | None] = set()

    def use(self) -> Used:
        """Find, verify and unpack; an answer without an image is one as well.

        Raises ``CheckedFalse`` where the seed that was found is not what the policy demands, or is
        not what it says it is: that is never passed over. One that is not promoted yet is, unless
        it is the one image wanted.
        """
        if self._named is not None:
            found = fetch(self._job.stores.open(self._named), self._named)
            self._take(*self._chosen(self._named, found), "the image named")
        elif not (self._nix.is_at_hand() and self._take_by_key()):
            self._take_nearest()
        if self.used.nix is not None and not self._nix.is_at_hand():
            self._nix = replace(self._nix, bin_dir=self.used.nix)
        if self.used.digest is not None and self._nix.is_at_hand():
            if not self.used.exact:
                self._take_by_key()
            if self.used.input_key is None:
                # Else it has evaluated the flake.
                # See that Nix starts: what is left to wait for before the first build.
                try:
                    with self._timed("start"):
                        self._nix.version()
                except (NixFailed, CouldNotCheck) as error:
                    reason = f"the Nix in the store does not start here: {error.message}"
                    raise CheckedFalse(reason, detail=error.detail) from error
        return self.used

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        """Add the time of what is done meanwhile to *part*."""
        start = time.perf_counter()
        try:
            yield
        finally:
            took = self.used.seconds.get(part, 0) + time.perf_counter() - start
            self.used = replace(self.used, seconds={**self.used.seconds, part: took})

    def _tell(self, problem: str) -> None:
        if problem not in self.used.problems:
            self.used = replace(self.used, problems=(*self.used.problems, problem))

    def _take_by_key(self) -> bool:
        """Take the seed of this recipe; False where there is none, or the recipe is not known."""
        key = self._input_key()
        if key is None:
            return False
        with self._timed("find"):
            (asked,) = self._ask([self._job.repository.at(f"{key}-{self._system}")])
            found = self._answer(asked)
        if found is None:
            self._tell(f"{self._job.repository} has no seed of this flake.lock and recipe yet")
            return False
        how = "the seed of this recipe, by its input key"
        if found[0].digest != self.used.digest and not self._is_taken(*found, how):
            return False
        self.used = replace(self.used, exact=True)
        return True

    def _input_key(self) -> str | None:
        if self.used.input_key is None:
            try:
                with self._timed("start"):
                    evaluated = requests.evaluate_request(self._nix, self._request)
            except (NixFailed, InputError, CouldNotCheck) as error:
                self._tell(f"the recipe could not be evaluated: {error.message}")
                return None
            self.used = replace(self.used, input_key=evaluated.input_key)
        return self.used.input_key

    def _take_nearest(self) -> None:
        for near in (self._of_commits, self._of_others):
            known = near()
            with self._timed("find"):
                answers = self._ask([*known])
            for answer, how in zip(answers, known.values(), strict=True):
                found = self._answer(answer)
                if found is not None and self._is_taken(*found, how):
                    # Its tag was moved by who built it for this very commit.
                    self.used = replace(self.used, exact=how == _OF_THIS_COMMIT)
                    return
        if not self.used.problems:
            self._tell(f"{self._job.repository} has no seed yet")

    def _of_commits(self) -> dict[AnyReference, str]:
        """Return where the seed of a commit may be, the likeliest to fit first, and its name."""
        names = [f"the seed of {commit[:12]}, before this one" for commit in self._commits[1:]]
        tags = [self._job.repository.at(f"{commit}-{self._system}") for commit in self._commits]
        return dict(zip(tags, (_OF_THIS_COMMIT, *names), strict=False))

    def _of_others(self) -> dict[AnyReference, str]:
        """Return where another seed may be."""
        locked = self._locked()
        pinned = {} if locked is None else {locked: f"the seed that {LOCK_NAME} names"}
        return pinned | {self._job.repository.at(_LATEST): "the last seed promoted"}

    def _locked(self) -> AnyReference | None:
        path = self._job.flake.directory / LOCK_NAME
        if not path.is_file():
            return None
        return SeedLock.parse(read_given(path), str(path)).reference(self._system)

    def _ask(self, references: Sequence[AnyReference]) -> list[_Answer]:
        """Ask for all of *references* side by side: one after another, each is a round trip.

        The connections then serve what is fetched next.
        """
        # In one thread: several that load the same modules wait for one another.
        importlib.import_module(_ASKING)
        with ThreadPoolExecutor(_AT_ONCE) as beside:
            asked = [beside.submit(self._image_of, each) for each in references]
            for name in _FILLING:
                importlib.import_module(name)
            return [each.result() for each in asked]

    def _image_of(self, reference: AnyReference) -> _Answer:
        try:
            found = fetch_if_there(self._job.stores, reference)
            return None if found is None else self._chosen(reference, found)
        except NixSeedError as error:
            return error

    def _chosen(self, reference: AnyReference, found: Fetched) -> tuple[AnyReference, Fetched]:
        chosen = choose_system(self._job.stores.open(reference), found, self._system)
        return reference.at(chosen.descriptor.digest), chosen

    def _answer(self, answer: _Answer) -> tuple[AnyReference, Fetched] | None:
        """Return the image that was found, None without one; what went wrong is told.

        What is false is raised, and only here: nobody may ever come to ask for this one.
        """
        if not isinstance(answer, NixSeedError):
            return answer
        if not isinstance(answer, CouldNotCheck | InputError):
            raise answer
        hint = self._job.explain(answer)
        self._tell(f"{answer.message} ({hint})" if hint else answer.message)
        return None

    def _is_taken(self, image: AnyReference, found: Fetched, how: str) -> bool:
        """Take *image*; False where it is not promoted yet, so that others are looked at."""
        if image.digest in self._waiting:
            return False
        try:
            self._take(image, found, how)
        except NotPromoted as error:
            self._waiting.add(image.digest)
            self._tell(error.message)
            return False
        return True

    def _take(self, image: AnyReference, found: Fetched, how: str) -> None:
        tell(Stage("found", f"found {how}: {image}"))
        with self._timed("verify"):
            verification = _verify(self._job, image, self._system)
        self.used = replace(
            self.used,
            image=image,
            digest=image.digest,
            how=how,
            fills=(*self.used.fills, fill(self._job, image, self._system, found)),
            verification=verification,
        )


_OF_THIS_COMMIT = "the seed of this commit"
_AT_ONCE = 4

_Answer = tuple[AnyReference, Fetched] | NixSeedError | None
"""An image by its digest, with its manifest; what went wrong; or that there is none."""


def _verify(job: CiJob, image: AnyReference, system: str) -> answers.Verification | None:
    if job.policy is None:
        return None

    by = load.verifiers_of(job.policy, job.stores, state_directory())
    found = verify.verify_image(by, image, verify.Query(system=system))
    if found.fate is Fate.VERIFIED:
        return found
    failure, why = found.fate.error, found.reason
    if found.awaits_promotion:
        failure, why = NotPromoted, f"it is not promoted yet ({found.reason})"
    hint = f"nix-seed verify {image} --policy {job.flake.policy}"
    raise failure(f"{image} is not used: {why}", hint=hint)


def fill(
    job: CiJob,
    image: AnyReference,
    system: str,
    found: Fetched | None = None,
) -> hydrate.Hydrated:
    """Mount or unpack *image*: in this process where the store is ours, else by sudo.

    *found* is its manifest, where that is here already.
    """
    options, project = job.options, job.flake
    outputs, accepted = parse_list(options["for"]), parse_names(options["accept_licence"])
    lazy = not (outputs or parse_switch(options["eager"] or "false", "eager"))
    complete = parse_switch(options["complete"] or "false", "complete")
    how = ["--complete"] if complete else []
    if ci_host.store_state() == "absent":
        processes.run_as_root(["ci", "store", str(os.geteuid())])
    if ci_host.store_state() == "ours":
        if lazy and os.geteuid() != 0:
            mounted = _mounted_by_root(job, image, ["--system", system, *how])
            if mounted is not None:
                return mounted
        done = None
        if lazy and os.geteuid() == 0:
            place = hydrate.Place(system=system, found=found)
            done = hydrate.mount_if_possible(job.stores, image, place, complete=complete)
        return done or hydrate.hydrate(
            job.stores,
            image,
            outputs=outputs,
            system=system,
            accepted=accepted_licences(accepted, project.policy),
            project=str(project.directory),
            attr=project.attr,
        )
    # What is named by digest was verified before, by the policy that was asked for.
    how = how if lazy else ["--eager"]
    arguments = ["hydrate", str(image), "--json", "--no-verify", *how, "--system", system]
    arguments += ["--flake", str(project.directory), *(f"--for={name}" for name in outputs)]
    arguments += [f"--accept-licence={name}" for name in accepted]
    arguments += [f"--attr={project.attr}"] if project.attr else []
    # For the licences that it accepts.
    arguments += [f"--policy={project.policy.absolute()}"] if project.policy else []
    return _by_root(job, image, arguments)


def _mounted_by_root(
    job: CiJob, image: AnyReference, arguments: list[str]
) -> hydrate.Hydrated | None:
    """Have root mount *image* in a store that stays ours; None where it has to be unpacked."""
    if linux.why_not_here() is not None:
        return None
    try:
        return _by_root(job, image, ["mount", str(image), "--json", "--no-verify", *arguments])
    except NixSeedError as error:
        # Unpacking needs no root, and finds out by itself whatever may be wrong with the image.
        job.host.say(f"nix-seed: unpacking, not mounting: {error.message}")
        return None


def _by_root(job: CiJob, image: AnyReference, arguments: list[str]) -> hydrate.Hydrated:
    ca_file = job.options["ca_file"]
    arguments += [f"--ca-file={ca_file}"] if ca_file else []
    # The checkout's lock may name another registry, which the token is not for.
    own = isinstance(image, Reference) and image.registry == job.repository.registry
    token = job.token if own else ""
    arguments += ["--username", job.user, "--password-stdin"] if token else []
    said = processes.run_as_root(arguments, f"{token}\n")
    return hydrate.Hydrated.from_json(said, f"what nix-seed {arguments[0]} printed")
