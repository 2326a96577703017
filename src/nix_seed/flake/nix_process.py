"""Runs a program of Nix's, and reads what it tells while it works."""

import grp
import os
import pwd
import selectors
import subprocess
import sys
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from nix_seed.core.errors import InputError
from nix_seed.core.events import tell
from nix_seed.flake.rules.nix_log import NixLog

_STATE: Final = Path("/nix/var/nix")
_PLACES: Final = ("NIX_REMOTE", "NIX_STORE_DIR", "NIX_STATE_DIR")


def demand_store(environment: Mapping[str, str]) -> None:
    """Raise ``InputError`` where a Nix that is told of no other store has none in ``/nix/store``.

    It then takes one below the home directory of any user but root, and says so as a warning only.
    """
    if sys.platform != "linux" or os.geteuid() == 0 or _STATE.exists():
        return
    if not any(map(environment.get, _PLACES)):
        raise InputError(
            f"there is no {_STATE}, so this user's Nix has no store in /nix/store",
            hint="run Nix's daemon; or, for a Nix of one user:"
            " sudo install -d -o $USER /nix /nix/var /nix/var/nix",
        )


def is_one_of(users: Collection[str]) -> bool:
    """Whether this user is among *users*, where ``@wheel`` is a group and ``*`` is everyone."""
    names = {"*"}
    with suppress(KeyError):
        names.add(pwd.getpwuid(os.geteuid()).pw_name)
    for group in {os.getegid(), *os.getgroups()}:
        with suppress(KeyError):
            names.add(f"@{grp.getgrgid(group).gr_name}")
    return not names.isdisjoint(users)


def run_logged(
    command: Sequence[str],
    pipes_of: tuple[int | BinaryIO, int | BinaryIO],
    environment: Mapping[str, str],
    log: NixLog,
    stop: threading.Event | None,
) -> tuple[int, bytes]:
    """Run *command*; return its exit code and what it printed, having told all that *log* read.

    *pipes_of* are its standard input and output. It is ended where *stop* is set.
    """
    printed, rest = bytearray(), b""
    stdin, stdout = pipes_of
    with (
        subprocess.Popen(
            command, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, env=environment
        ) as process,
        selectors.DefaultSelector() as pipes,
    ):
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipes.register(pipe, selectors.EVENT_READ)
        try:
            while pipes.get_map():
                if stop is not None and stop.is_set():
                    process.kill()
                for key, _ in pipes.select(None if stop is None else 0.1):
                    chunk = os.read(key.fd, 1 << 16)
                    if not chunk:
                        pipes.unregister(key.fileobj)
                    elif key.fileobj is process.stdout:
                        printed += chunk
                    else:
                        *lines, rest = (rest + chunk).split(b"\n")
                        _tell(log, lines)
        except BaseException:
            process.kill()
            raise
    _tell(log, [rest] if rest else [])
    return process.returncode, bytes(printed)


def _tell(log: NixLog, lines: Iterable[bytes]) -> None:
    for line in lines:
        for event in log.read(line):
            tell(event)
