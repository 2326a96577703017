"""Run on the machine itself, whose store a seed was hydrated into, with the network off.

There is no container: the command sees the user's own files and writes into the user's own tree and
store. On Linux it gets a network namespace of its own, loopback alone; where that cannot be had
(macOS, or a daemon that builds for it), Nix's settings keep Nix off the network, and
``network_off`` says which of the two it is.
"""

import ctypes
import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nix_seed.core.errors import CouldNotCheck
from nix_seed.core.words import plural
from nix_seed.flake.nix import OFFLINE
from nix_seed.image.read.spec import read_spec
from nix_seed.registry.image import Image
from nix_seed.use.engines.base import Job
from nix_seed.use.store import valid_paths

_NEWUSER, _NEWNET = 0x10000000, 0x40000000  # sched.h
_SET_FLAGS, _UP = 0x8914, 0x1 | 0x40  # sockios.h, if.h: IFF_UP and IFF_RUNNING
# What an image's own configuration turns on inside it.
FEATURES: Final = "extra-experimental-features = nix-command flakes\n"


@dataclass(frozen=True, slots=True)
class Host:
    """The store below *root*; any other than ``/`` has to be named to Nix by the command."""

    root: Path = Path("/")
    name: str = "host"

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
            subprocess.run(["/bin/sh", "-c", ":"], preexec_fn=_leave_network, check=True)
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
        environment = _environment(job)
        alone = not job.network and self.network_off() == "namespace"
        program = shutil.which(job.argv[0], path=environment.get("PATH"))
        if program is None:
            raise CouldNotCheck(
                f"{job.argv[0]} is not on PATH",
                hint="`nix-seed hydrate` says where the seed's Nix is",
            )
        done = subprocess.run(
            [program, *job.argv[1:]],
            cwd=job.source,
            env=environment,
            preexec_fn=_leave_network if alone else None,
            check=False,
        )
        return done.returncode if done.returncode >= 0 else 128 - done.returncode


def _environment(job: Job) -> dict[str, str]:
    environment = os.environ | dict(job.env)
    settings = FEATURES if job.network else FEATURES + OFFLINE
    environment["NIX_CONFIG"] = environment.get("NIX_CONFIG", "") + "\n" + settings
    return environment


def _leave_network() -> None:
    """In a forked child: enter a network namespace of its own, as the user it was before."""
    user, group = os.geteuid(), os.getegid()
    flags = _NEWNET if user == 0 else _NEWNET | _NEWUSER
    if ctypes.CDLL(None, use_errno=True).unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    if user != 0:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{user} {user} 1"),
            ("gid_map", f"{group} {group} 1"),
        ):
            Path("/proc/self", name).write_text(text)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        fcntl.ioctl(handle, _SET_FLAGS, struct.pack("16sH14x", b"lo", _UP))
