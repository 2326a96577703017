"""A network of a command's own, loopback alone; and one server of ours that can be reached there.

A socket that listens belongs to the network namespace it was made in, whoever accepts from it. So
the command's child makes it where the command will be, and hands it over to this process.
"""

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from nix_seed.core.errors import CouldNotCheck, InputError

_NEWUSER, _NEWNET = 0x10000000, 0x40000000  # sched.h
_SET_FLAGS, _UP = 0x8914, 0x1 | 0x40  # sockios.h, if.h: IFF_UP and IFF_RUNNING

PORT: Final = 7090
"""Where the server is found in a namespace of the command's own: nobody else listens there."""

Serve = Callable[[socket.socket], None]
"""Takes a socket that listens, and serves there from now on."""


def leave_network() -> None:
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


def leave_and_listen(theirs: socket.socket) -> None:
    """In a forked child: ``leave_network``, and send a socket that listens there to *theirs*."""
    leave_network()
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", PORT))
        listener.listen(128)
        socket.send_fds(theirs, [b"+"], [listener.fileno()])


def take_listener(ours: socket.socket, serve: Serve) -> None:
    """Have *serve* serve at the socket that ``leave_and_listen`` sent."""
    _, descriptors, _, _ = socket.recv_fds(ours, 16, 1)
    if not descriptors:
        raise CouldNotCheck("the command's network could not be made: it sent no socket")
    serve(socket.socket(fileno=descriptors[0]))


def run_beside(command: Sequence[str], serve: Serve, **how: Any) -> int:
    """Run *command* with loopback alone, where *serve* serves; return its exit code.

    *how* is as for ``subprocess.Popen``.
    """
    ours, theirs = socket.socketpair()
    with closing(ours):
        with closing(theirs):
            try:
                process = subprocess.Popen(
                    command,
                    preexec_fn=lambda: leave_and_listen(theirs),  # noqa: PLW1509
                    **how,
                )
            except subprocess.SubprocessError as error:
                raise CouldNotCheck(
                    "the command's network could not be made",
                    hint="run without the outputs that are kept: --no-outputs",
                ) from error
            except OSError as error:
                raise InputError(f"{command[0]} could not be started: {error}") from error
        with process:
            try:
                take_listener(ours, serve)
                return process.wait()
            except BaseException:
                process.kill()
                raise


def why_no_server(engine: str) -> str | None:
    """Return why no server of ours can be reached by commands of *engine*; None where one can."""
    if engine == "docker":
        return "Docker's daemon makes the networks of its containers, and lets nobody in"
    if engine == "podman" and os.geteuid() != 0:
        return "podman makes the networks of its containers itself, unless root runs it"
    return None
