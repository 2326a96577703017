"""What a CI job does with the project's outputs: builds them in the seed, and keeps what is new.

What the policy's builders built before is taken, not built. The seed is a published one, so that
whoever takes an output can tell what it was built in.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from nix_seed.core.errors import CouldNotCheck, InputError
from nix_seed.core.events import Stage, tell
from nix_seed.core.values import dataclass
from nix_seed.core.words import plural
from nix_seed.flake.checkout import read_checkout
from nix_seed.flake.nix import Nix
from nix_seed.formats.oci.reference import Reference
from nix_seed.image.read.spec import read_spec
from nix_seed.image.read.unpack import private_cache
from nix_seed.outputs.offer import Outputs, Told, choice_of
from nix_seed.outputs.open import built_in, fresh_key, open_cache
from nix_seed.outputs.push import OutputsTarget, PushedOutputs, named_outputs, push_outputs
from nix_seed.registry.layout import Image
from nix_seed.registry.open import fetch
from nix_seed.registry.transfer import open_here
from nix_seed.release.attester import Attester, SourceTree
from nix_seed.release.verifiers import Verifiers
from nix_seed.use.engines import choose_engine
from nix_seed.use.engines.base import Engine
from nix_seed.use.engines.mounted import mounted_engine
from nix_seed.use.mount.linux import NotMountable
from nix_seed.use.run import Command, RunResult, run


@dataclass(frozen=True, slots=True)
class OutputsJob:
    """Keep in *place* what *attester* builds of *tree* for *system*, in the published *seed*.

    *accepted* are licences of what the seed withholds; *ref* is the branch or tag, if known.
    """

    by: Verifiers
    place: Reference
    seed: Reference
    tree: SourceTree
    attester: Attester
    system: str
    cache: Path
    accepted: Sequence[str] = ()
    ref: str | None = None

    def make(self) -> OutputsResult:
        """Build all packages and checks, take what is kept, and keep what was built.

        Raises ``CouldNotCheck`` where they do not build, or nothing here runs images.
        """
        nix, start = Nix(), time.monotonic()
        checkout = read_checkout(self.tree.directory)
        named = named_outputs(nix, checkout.flake, self.system)
        wanted = named.installables(".", self.system)
        if not wanted:
            raise InputError(f"the flake has no packages and checks for {self.system}")
        self.by.stores.open(self.place, create=True)
        told = Told()
        outputs = Outputs(open_cache(self.by, self.place, fresh_key(), None, told), told)
        used: list[Image] = []

        def run_in(image: Image, engine: Engine) -> RunResult:
            used.append(image)
            tell(Stage("outputs", f"building {plural(len(wanted), 'output')} in the seed"))
            argv = ("nix", "build", "--no-link", "--keep-going", "-L", *wanted)
            asked = Command(argv, self.tree.directory, accepted=self.accepted, attr=self.tree.attr)
            with outputs.offered_in(image, engine) as offered:
                return run(asked, engine=offered, image=image, nix=nix)

        done = self._in_seed(run_in)
        if done.exit_code != 0:
            raise CouldNotCheck(
                f"the outputs do not all build in {self.seed}: nix exited with {done.exit_code}",
                hint="nothing of them is signed; what failed is in the log above",
            )
        choice = replace(choice_of(done.brought, told, self.ref), named=named)
        pushed = push_outputs(
            OutputsTarget(self.by.stores, self.place, nix),
            built_in(read_spec(used[-1]), self.seed.digest or used[-1].digest),
            self.tree,
            self.attester,
            choice,
        )
        built = tuple(sorted(path.name for path in choice.built))
        seconds = sum(choice.millis.values()) / 1000
        return OutputsResult(built, told, pushed, seconds, time.monotonic() - start)

    def _in_seed(self, run_in: Callable[[Image, Engine], RunResult]) -> RunResult:
        """Run in the seed, mounted or, where that cannot be, unpacked."""
        store, cache = self.by.stores.open(self.seed), private_cache(self.cache)
        with contextlib.suppress(NotMountable):
            root = fetch(store, self.seed)
            with mounted_engine(cache, root, store, str(self.seed)) as (image, engine):
                return run_in(image, engine)
        kept = cache / "images"
        image = open_here(self.by.stores, self.seed, kept, self.system)
        return run_in(image, choose_engine(None, cache))


@dataclass(frozen=True, slots=True)
class OutputsResult:
    """The names of what was *built*, what *told* says was taken, and what was *pushed*.

    *seconds* are those of all builds, each for itself, *took* those of everything.
    """

    built: tuple[str, ...]
    told: Told
    pushed: PushedOutputs
    seconds: float
    took: float
