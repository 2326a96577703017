"""``/nix`` on macOS, whose ``/`` is read-only: a synthetic directory, and an APFS volume on it.

``/etc/synthetic.conf`` names the directory, ``apfs.util -t`` makes it without a restart, and a
volume in the container of ``/`` is mounted there: case-sensitive, ownership on, hidden in Finder.
Every step looks first whether it is done already.
"""

import os
import plistlib
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from nix_seed.core.errors import CouldNotCheck, InputError
from nix_seed.core.values import dataclass

_VOLUME = "Nix Store"
_APFS_UTIL = "/System/Library/Filesystems/apfs.fs/Contents/Resources/apfs.util"
_MOUNT_OPTIONS = "rw,noauto,nobrowse,noatime,owners"
_DISK = re.compile(r"(disk[0-9]+)(?:s[0-9]+)*\Z")


class System:
    """The programs of macOS, by absolute names or PATH."""

    def run(self, argv: Sequence[str], *, any_code: bool = False) -> bytes:
        """Run *argv* and return its standard output; ``CouldNotCheck`` if it fails.

        With *any_code* its exit code says nothing, and is not looked at.
        """
        try:
            done = subprocess.run(argv, capture_output=True, check=False, stdin=subprocess.DEVNULL)
        except OSError as error:
            raise CouldNotCheck(f"cannot start {argv[0]}: {error.strerror}") from error
        if done.returncode != 0 and not any_code:
            raise CouldNotCheck(
                f"making /nix: {argv[0]} failed with exit code {done.returncode}",
                detail=done.stderr.decode("utf-8", "replace").strip() or None,
                hint="make /nix as Nix's installer does, then run this again",
            )
        return done.stdout


@dataclass(frozen=True, slots=True)
class Machine:
    """What a Mac's steps depend on: where files lie, and who asks."""

    root: Path = Path("/")
    user: int = 0

    @property
    def nix(self) -> Path:
        """The mount point."""
        return self.root / "nix"

    @property
    def synthetic(self) -> Path:
        """``synthetic.conf(5)``."""
        return self.root / "etc/synthetic.conf"

    @property
    def fstab(self) -> Path:
        """Where mounts are remembered for the next start."""
        return self.root / "etc/fstab"


def ensure_store(root: Path) -> None:
    """On macOS make ``/nix`` where it is asked for and missing; else do nothing."""
    if sys.platform == "darwin" and root == Path("/") and not os.access("/nix", os.W_OK):
        create_store(System(), Machine(user=os.geteuid()))


def create_store(commands: System, machine: Machine) -> None:
    """Have a volume mounted at ``/nix``; done already, nothing changes.

    Raises ``InputError`` where the user is not root, ``CouldNotCheck`` where a step fails.
    """
    if machine.nix.is_dir() and _mounted(commands):
        return
    if machine.user != 0:
        raise InputError(
            "there is no /nix yet, and only root can make it on macOS",
            hint="run the same command with sudo, or choose another place with --root DIR",
        )
    _add_line(machine.synthetic, "nix", "nix")
    if not machine.nix.is_dir():
        # Makes what synthetic.conf names, now rather than at the next start. It ends with 253 where
        # it did so and with 252 where not: the directory tells (nix-darwin #401, #402, #1265).
        commands.run([_APFS_UTIL, "-t"], any_code=True)
    if not machine.nix.is_dir():
        raise CouldNotCheck(
            "/nix was not made by apfs.util, although /etc/synthetic.conf names it",
            hint="restart this Mac, then run this again",
        )
    disk = _container(commands)
    volume = _find_volume(commands, disk) or _add_volume(commands, disk)
    _add_line(machine.fstab, f"UUID={volume}", f"UUID={volume} /nix apfs {_MOUNT_OPTIONS}")
    if not _mounted(commands):
        commands.run(
            ["diskutil", "mount", "-mountOptions", _MOUNT_OPTIONS, "-mountPoint", "/nix", volume]
        )
    commands.run(["diskutil", "enableOwnership", "/nix"])


def _mounted(commands: System) -> bool:
    # The device of a directory is that of what is mounted on it.
    root, nix = (commands.run(["stat", "-f", "%d", path]).strip() for path in ("/", "/nix"))
    return root != nix


def _container(commands: System) -> str:
    """Return the APFS container of ``/``: ``disk3`` for ``disk3s1s1``, its sealed snapshot."""
    device = commands.run(["stat", "-f", "%Sd", "/"]).decode("utf-8", "replace").strip()
    match = _DISK.match(device)
    if match is None:
        raise CouldNotCheck(
            f"making /nix: the disk of / is {device!r}, which is no APFS volume's name",
            hint="make /nix as Nix's installer does, then run this again",
        )
    return match[1]


def _find_volume(commands: System, disk: str) -> str | None:
    """Return the UUID of the volume an earlier run made."""
    try:
        value = plistlib.loads(commands.run(["diskutil", "apfs", "list", "-plist", disk]))
    except (plistlib.InvalidFileException, ValueError) as error:
        raise CouldNotCheck(f"making /nix: diskutil's answer cannot be read: {error}") from error
    found = value if isinstance(value, dict) else {}
    for container in found.get("Containers", ()):
        for volume in container.get("Volumes", ()):
            if volume.get("Name") == _VOLUME:
                return str(volume["APFSVolumeUUID"])
    return None


def _add_volume(commands: System, disk: str) -> str:
    # Case-sensitive: Nix's case hack is then not needed for what other machines made.
    commands.run(
        ["diskutil", "apfs", "addVolume", disk, "Case-sensitive APFS", _VOLUME, "-nomount"]
    )
    volume = _find_volume(commands, disk)
    if volume is None:
        raise CouldNotCheck(f"making /nix: diskutil added no volume {_VOLUME!r} to {disk}")
    return volume


def _add_line(path: Path, start: str, line: str) -> None:
    """Append *line* to the file unless one beginning with the word *start* is there."""
    try:
        text = path.read_text() if path.exists() else ""
        if any(each.split()[:1] == [start] for each in text.splitlines()):
            return
        end = "" if not text or text.endswith("\n") else "\n"
        path.write_text(f"{text}{end}{line}\n")
    except OSError as error:
        raise CouldNotCheck(f"making /nix: cannot change {path}: {error.strerror}") from error
