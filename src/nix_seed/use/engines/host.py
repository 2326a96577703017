"""Run on the machine itself, whose store a seed was hydrated into, with the network off.

There is no container: the command sees the user's own files and writes into the user's own tree and
store. On Linux it gets a network namespace of its own, loopback alone; where that cannot be had
(macOS, or a daemon that builds for it), Nix's settings keep Nix off the network, and
``network_off`` says which of the two it is.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from nix_seed.core.errors import CouldNotCheck
from nix_seed.core.values import dataclass
from nix_seed.core.words import plural
from nix_seed.flake.nix import OFFLINE
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.image.read.spec import read_spec
from nix_seed.registry.layout import Image
from nix_seed.use.engines.base import Job, LocalCache
from nix_seed.use.engines.loopback import leave_network, run_beside
from nix_seed.use.store import valid_paths

_SOCKET = Path("/nix/var/nix/daemon-socket/socket")
# What an image's own configuration turns on inside it.
FEATURES: Final = "extra-experimental-features = nix-command flakes\n"


@dataclass(frozen=True, slots=True)
class Host:
    """The store below *root*; any other than ``/`` has to be named to Nix by the command.

    *cache* is what Nix may take from, beside its own store.
    """

    root: Path = Path("/")
    name: str = "host"
    cache: LocalCache | None = None

    def unavailable(self) -> str | None:
        """See ``Engine``."""
        if not (self.root / "nix/var/nix/db/db.sqlite").exists():
            return f"there is no Nix store below {self.root}; fill it: nix-seed hydrate REF"
        return None

    def network_off(self) -> str:
        """Say what keeps the command off the network: ``namespace`` or ``settings``."""
        if not sys.platform.startswith("linux"):
            return "settings"
        try:
            subprocess.run(["/bin/sh", "-c", ":"], preexec_fn=leave_network, check=True)
        except (OSError, subprocess.SubprocessError):
            return "settings"
        return "namespace"

    def prepare(self, image: Image) -> str:
        """See ``Engine``: every path of *image* must be valid in the store already."""
        missing = sorted(set(read_spec(image).paths) - valid_paths(self.root))
        if missing:
            raise CouldNotCheck(
                f"the store below {self.root} lacks {plural(len(missing), 'path')} of {image.name}",
                hint=f"fetch them: nix-seed hydrate {image.name}",
                detail="\n".join(map(str, missing[:10])),
            )
        return str(self.root)

    def run(self, prepared: str, image: Image | None, job: Job) -> int:  # noqa: ARG002
        """See ``Engine``; the command works in the source tree itself, not in a copy of it."""
        environment = _environment(job, self.cache)
        alone = not job.network and self.network_off() == "namespace"
        program = shutil.which(job.argv[0], path=environment.get("PATH"))
        if program is None:
            raise CouldNotCheck(
                f"{job.argv[0]} is not on PATH",
                hint="`nix-seed hydrate` says where the seed's Nix is",
            )
        command = [program, *job.argv[1:]]
        if alone and self.cache is not None and self.cache.serve is not None:
            code = run_beside(command, self.cache.serve, cwd=job.source, env=environment)
        else:
            alone_in = leave_network if alone else None
            code = subprocess.run(
                command, cwd=job.source, env=environment, preexec_fn=alone_in, check=False
            ).returncode
        return code if code >= 0 else 128 - code


def _environment(job: Job, cache: LocalCache | None) -> dict[str, str]:
    environment = os.environ | dict(job.env)
    settings = FEATURES if job.network else FEATURES + OFFLINE
    settings += "" if cache is None else cache.settings
    environment["NIX_CONFIG"] = environment.get("NIX_CONFIG", "") + "\n" + settings
    return environment


def has_daemon() -> bool:
    """Whether a daemon builds for this user: it is in the machine's network, not in ours."""
    named = os.environ.get("NIX_REMOTE", "")
    return named == "daemon" or (os.geteuid() != 0 and _SOCKET.exists())


def is_here(path: StorePath) -> bool:
    """Whether *path* lies in the machine's store."""
    return os.path.lexists(str(path))
