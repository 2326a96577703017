"""What every engine does: make an image ready, and run one command in a fresh copy of it.

Inside, the source tree lies at ``/src``, writable, and yet the user's own is never changed: the
engines give the command a copy-on-write view or a copy. ``/.nix-seed/exchange`` is the one
directory both sides share.
"""

import os
import shlex
from collections.abc import Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import Protocol

from nix_seed.core.errors import CouldNotCheck
from nix_seed.core.values import dataclass
from nix_seed.registry.layout import Image
from nix_seed.use.engines.loopback import GATE, STARTED, Serve

SOURCE = "/src"
EXCHANGE = "/.nix-seed/exchange"
# Below the exchange: what takes the place of a worktree's ``.git``.
HISTORY = "history"


@dataclass(frozen=True, slots=True)
class LocalCache:
    """A binary cache for the Nix inside: *settings* are lines of nix.conf that name it.

    *serve* is given a socket that listens at ``loopback.PORT`` in the command's own network; None
    where the cache is on the machine's.
    """

    settings: str
    serve: Serve | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One command: *argv* run in *workdir* with *env* added to the image's own environment.

    *source* is the host's tree to be seen at ``/src``; *exchange* an empty host directory to be
    mounted, writable, at ``/.nix-seed/exchange``. Without *network* there is only loopback, and
    there *cache* alone.
    """

    argv: tuple[str, ...]
    exchange: Path
    source: Path | None = None
    workdir: str = "/"
    env: Mapping[str, str] = field(default_factory=dict)
    network: bool = False
    cache: LocalCache | None = None

    @property
    def serve(self) -> Serve | None:
        """What is to serve in a network of the command's own, if anything is."""
        return None if self.cache is None or self.network else self.cache.serve


class Engine(Protocol):
    """A way to run images on this machine."""

    @property
    def name(self) -> str:
        """What the user calls it: ``bwrap``."""

    def unavailable(self) -> str | None:
        """Why this engine cannot be used here, and what to do; ``None`` where it can."""

    def prepare(self, image: Image) -> str:
        """Verify *image* and have it ready to start; return the engine's own name for it.

        Raises ``CheckedFalse`` where the image is not what its digests say. Ready already: quick.
        """

    def run(self, prepared: str, image: Image, job: Job) -> int:
        """Run *job* in a fresh copy of the *prepared* image; return the command's exit code.

        Standard input, output and error are the caller's. Raises ``CouldNotCheck`` where the
        command was not even started.
        """


@dataclass(frozen=True, slots=True)
class WithCache:
    """An *engine* whose commands may take from *cache*; satisfies ``Engine``."""

    engine: Engine
    cache: LocalCache

    @property
    def name(self) -> str:
        """See ``Engine``."""
        return self.engine.name

    def unavailable(self) -> str | None:
        """See ``Engine``."""
        return self.engine.unavailable()

    def prepare(self, image: Image) -> str:
        """See ``Engine``."""
        return self.engine.prepare(image)

    def run(self, prepared: str, image: Image, job: Job) -> int:
        """See ``Engine``."""
        return self.engine.run(prepared, image, replace(job, cache=self.cache))


def environment_of(base: Mapping[str, str], job: Job) -> dict[str, str]:
    """Return *base* with what *job* adds to it; of Nix's settings its cache's come last."""
    merged = {**base, **job.env}
    if job.cache is not None:
        merged["NIX_CONFIG"] = f"{merged.get('NIX_CONFIG', '')}\n{job.cache.settings}"
    return merged


def wrapped(job: Job, *, copy_from: str | None = None, listens: bool = False) -> list[str]:
    """Return the argv that an engine starts: it marks the start, fetches the source, runs the job.

    *copy_from* is where the engine mounted the source read-only, for engines that have no
    copy-on-write mount; the copy keeps modes, times and symlinks, and belongs to the user inside.
    *listens*: it waits until ``served_inside`` serves there. Where nobody can, all is built.
    """
    lines = [f": > {EXCHANGE}/{STARTED} || exit 125"]
    if listens:
        lines.append(f"read -r served < {EXCHANGE}/{GATE}")
        lines.append('[ "$served" = + ] || echo "nix-seed: no output can be taken here" >&2')
    if copy_from is not None:
        copy = f"cp -R -P --preserve=mode,timestamps,links {copy_from}/. {SOURCE}"
        lines.append(f"mkdir -p {SOURCE} && {copy} || exit 125")
    if (job.exchange / HISTORY).exists():
        lines.append(f"rm {SOURCE}/.git && cp -R {EXCHANGE}/{HISTORY} {SOURCE}/.git || exit 125")
    lines += ['cd "$1" || exit 125', "shift", 'exec "$@"']
    return ["/bin/sh", "-c", "\n".join(lines), "nix-seed", job.workdir, *job.argv]


def check_started(job: Job, engine: str, code: int, command: list[str]) -> None:
    """Raise ``CouldNotCheck`` unless the container got as far as the command."""
    if not (job.exchange / STARTED).exists():
        what = f"{engine} could not start the image (exit code {code})"
        hint = "its own message is above; `nix-seed doctor IMAGE` checks the image"
        if os.environ.get("NIX_SEED_DEBUG"):
            hint += f"; the command was:\n{shlex.join(command)}"
        raise CouldNotCheck(what, hint=hint)
