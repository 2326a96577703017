"""Has one build inside a seed list what it reads, for those who mount that seed afterwards."""

import contextlib
import tempfile
from pathlib import Path

from nix_seed.core.errors import CouldNotCheck, NixSeedError
from nix_seed.core.events import Stage, tell
from nix_seed.flake.evaluate import Evaluation, evaluate_flake, read_written
from nix_seed.flake.nix import Nix
from nix_seed.formats.oci.reference import Reference
from nix_seed.registry.layout import Image
from nix_seed.registry.open import Stores, fetch
from nix_seed.registry.store import ImageStore
from nix_seed.use.engines.mounted import Mounted, mounted_engine
from nix_seed.use.mount.seed import keep_hint
from nix_seed.use.run import Command, run
from nix_seed.use.sandboxed import inside


def start_nix(engine: Mounted, image: Image) -> None:
    """Have what Nix reads when it starts stand first in the list of what was read of *image*.

    With Nix begins whoever uses a seed. What else a command reads before comes from our script.
    """
    with inside(engine, image) as work:
        work.run(("/bin/sh", "-c", "exec nix --version >/dev/null 2>&1"), None)


def keep_recorded(
    store: ImageStore,
    engine: Mounted,
    nix: Nix,
    command: Command,
    evaluation: Evaluation | None = None,
) -> str:
    """Put beside an image what *command* read, and what evaluating its flake writes.

    Return the tag. *evaluation* is the flake's, where *nix* was asked before. The command itself
    evaluates less than what tells whether a seed fits.
    """
    files: dict[str, bytes] = {}
    if nix.is_at_hand():
        choice = engine.seed.seed.spec.choice(command.attr)
        # Whatever is wrong with the flake, the list is as good without.
        with contextlib.suppress(NixSeedError):
            known = evaluation or evaluate_flake(nix, str(command.source), choice)
            files = read_written(nix, known)
    return keep_hint(store, engine.seed, tuple(engine.frames.touched), files)


def record_reads(
    stores: Stores,
    reference: Reference,
    command: Command,
    *,
    cache: Path,
    evaluation: Evaluation | None = None,
) -> str:
    """Run *command* inside the mounted seed; return the tag of the list of what it read.

    What it builds is thrown away, and its source stays as it is. *evaluation* is that of its flake,
    where the seed was just made of it. Raises ``NotMountable`` where this machine mounts no images,
    ``CouldNotCheck`` where the command fails.
    """
    words = f"`{' '.join(command.argv)}`"
    tell(Stage("record", f"listing what {words} reads of {reference}"))
    store = stores.open(reference)
    root = fetch(store, reference)
    with (
        mounted_engine(cache, root, store, str(reference)) as (image, engine),
        tempfile.TemporaryDirectory() as out,
    ):
        start_nix(engine, image)
        done = run(command, engine=engine, image=image, nix=Nix(), out=Path(out))
        for link in done.brought.links:
            with contextlib.suppress(FileNotFoundError):
                link.path.unlink()
        if done.exit_code != 0:
            raise CouldNotCheck(
                f"{words} failed inside {reference}, with exit code {done.exit_code}",
                hint="name a command that builds in the seed, with no network",
            )
        return keep_recorded(store, engine, Nix(), command, evaluation)
