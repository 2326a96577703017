"""Fills a CI machine's store from the seed that fits its checkout best, and says how well it fits.

The seed of this very recipe is found by its input key, which takes a Nix to evaluate with. A
machine that has none gets one with the nearest seed there is (of this commit, of its parents, of
the lock, the last one promoted), and what that lacks comes from the right one afterwards.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import field, replace
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError, NixFailed, NixSeedError
from nix_seed.core.events import Stage, tell
from nix_seed.core.files import read_given
from nix_seed.core.values import dataclass
from nix_seed.flake.nix import Nix
from nix_seed.formats.oci.reference import Reference
from nix_seed.registry.open import AnyReference, Stores, choose_system, fetch, fetch_if_there
from nix_seed.registry.rules.lock import LOCK_NAME, SeedLock
from nix_seed.registry.store import Fetched

if TYPE_CHECKING:
    from nix_seed.image.request import Request
    from nix_seed.release.rules.answer import Verification
    from nix_seed.use.hydrate import Hydrated

_LATEST = "latest"
# What asks registries, and what fills, which is loaded while they are waited for.
_ASKING = "nix_seed.registry.client"
_FILLING = ("nix_seed.use.hydrate", "nix_seed.use.mount.store")


class NotPromoted(CheckedFalse):
    """All of the seed verified, but that nothing says yet that its commit was promoted.

    So it is between the first system's job and the promotion. It is not used; others may be.
    """


Fill = Callable[[AnyReference, Fetched], "Hydrated"]
"""Makes the paths of the image named, by digest, valid in this machine's store.

Its manifest was fetched already.
"""

Verify = Callable[[AnyReference], "Verification | None"]
"""Verifies it before; None without a policy, ``CheckedFalse`` where it must not be used.

``NotPromoted`` where that is all that it lacks.
"""


@dataclass(frozen=True, slots=True)
class Actions:
    """What is done with an image that is found, and who *explain*s an error to people."""

    fill: Fill
    verify: Verify
    explain: Callable[[NixSeedError], str | None] = attrgetter("hint")


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
    fills: tuple[Hydrated, ...] = ()
    verification: Verification | None = None
    problems: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def nix(self) -> Path | None:
        """Where the seed's own Nix is."""
        return next((each.nix for each in reversed(self.fills) if each.nix is not None), None)


@dataclass(slots=True)
class SeedSearch:
    """Where to look: in *repository*, for *system*, with this *request* to know the recipe by.

    *named* is the one image wanted, if the user said so. *commits* are the one checked out and then
    its parents: a pull request's own commit is one that nobody else has. *used* is what came of it
    so far.
    """

    stores: Stores
    nix: Nix
    repository: Reference
    system: str
    request: Request
    actions: Actions
    named: AnyReference | None = None
    commits: tuple[str, ...] = ()
    lock: Path | None = None
    used: Used = field(default_factory=Used)
    waiting: set[Digest | None] = field(default_factory=set)

    def use(self) -> Used:
        """Find, verify and unpack; an answer without an image is one as well.

        Raises ``CheckedFalse`` where the seed that was found is not what the policy demands, or is
        not what it says it is: that is never passed over. One that is not promoted yet is, unless
        it is the one image wanted.
        """
        self._go()
        return self.used

    def _go(self) -> None:
        """Take the right seed, or the nearest and then the right one."""
        if self.named is not None:
            found = fetch(self.stores.open(self.named), self.named)
            self._take(*self._chosen(self.named, found), "the image named")
        elif self.nix.is_at_hand() and self._take_by_key():
            return
        else:
            self._take_nearest()
        if self.used.nix is not None and not self.nix.is_at_hand():
            self.nix = replace(self.nix, bin_dir=self.used.nix)
        if self.used.digest is not None and self.nix.is_at_hand():
            if not self.used.exact:
                self._take_by_key()
            if self.used.input_key is None:
                # Else it has evaluated the flake.
                # See that Nix starts: what is left to wait for before the first build.
                try:
                    with self._timed("start"):
                        self.nix.version()
                except (NixFailed, CouldNotCheck) as error:
                    reason = f"the Nix in the store does not start here: {error.message}"
                    raise CheckedFalse(reason, detail=error.detail) from error

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
            (asked,) = self._ask([self.repository.at(f"{key}-{self.system}")])
            found = self._answer(asked)
        if found is None:
            self._tell(f"{self.repository} has no seed of this flake.lock and recipe yet")
            return False
        how = "the seed of this recipe, by its input key"
        if found[0].digest != self.used.digest and not self._is_taken(*found, how):
            return False
        self.used = replace(self.used, exact=True)
        return True

    def _input_key(self) -> str | None:
        if self.used.input_key is None:
            from nix_seed.image.request import evaluate_request

            try:
                with self._timed("start"):
                    evaluated = evaluate_request(self.nix, self.request)
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
            self._tell(f"{self.repository} has no seed yet")

    def _of_commits(self) -> dict[AnyReference, str]:
        """Return where the seed of a commit may be, the likeliest to fit first, and its name."""
        names = [f"the seed of {commit[:12]}, before this one" for commit in self.commits[1:]]
        tags = [self.repository.at(f"{commit}-{self.system}") for commit in self.commits]
        return dict(zip(tags, (_OF_THIS_COMMIT, *names), strict=False))

    def _of_others(self) -> dict[AnyReference, str]:
        """Return where another seed may be."""
        locked = self._locked()
        pinned = {} if locked is None else {locked: f"the seed that {LOCK_NAME} names"}
        return pinned | {self.repository.at(_LATEST): "the last seed promoted"}

    def _locked(self) -> AnyReference | None:
        path = self.lock
        if path is None or not path.is_file():
            return None
        return SeedLock.parse(read_given(path), str(path)).reference(self.system)

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
            found = fetch_if_there(self.stores, reference)
            return None if found is None else self._chosen(reference, found)
        except NixSeedError as error:
            return error

    def _chosen(self, reference: AnyReference, found: Fetched) -> tuple[AnyReference, Fetched]:
        chosen = choose_system(self.stores.open(reference), found, self.system)
        return reference.at(chosen.descriptor.digest), chosen

    def _answer(self, answer: _Answer) -> tuple[AnyReference, Fetched] | None:
        """Return the image that was found, None without one; what went wrong is told.

        What is false is raised, and only here: nobody may ever come to ask for this one.
        """
        if not isinstance(answer, NixSeedError):
            return answer
        if not isinstance(answer, CouldNotCheck | InputError):
            raise answer
        hint = self.actions.explain(answer)
        self._tell(f"{answer.message} ({hint})" if hint else answer.message)
        return None

    def _is_taken(self, image: AnyReference, found: Fetched, how: str) -> bool:
        """Take *image*; False where it is not promoted yet, so that others are looked at."""
        if image.digest in self.waiting:
            return False
        try:
            self._take(image, found, how)
        except NotPromoted as error:
            self.waiting.add(image.digest)
            self._tell(error.message)
            return False
        return True

    def _take(self, image: AnyReference, found: Fetched, how: str) -> None:
        tell(Stage("found", f"found {how}: {image}"))
        with self._timed("verify"):
            verification = self.actions.verify(image)
        self.used = replace(
            self.used,
            image=image,
            digest=image.digest,
            how=how,
            fills=(*self.used.fills, self.actions.fill(image, found)),
            verification=verification,
        )


_OF_THIS_COMMIT = "the seed of this commit"
_AT_ONCE = 4

_Answer = tuple[AnyReference, Fetched] | NixSeedError | None
"""An image by its digest, with its manifest; what went wrong; or that there is none."""
