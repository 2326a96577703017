"""A network of a command's own, loopback alone; and one server of ours that can be reached there.

A socket that listens belongs to the network namespace it was made in, whoever accepts from it. So
the command's child makes it where the command will be, and hands it over to this process. Where an
engine makes the network itself, a program of ours does so, in the container.
"""

import ctypes
import fcntl
import os
import platform
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from nix_seed.core.errors import CouldNotCheck, InputError
from nix_seed.use.engines.tiny_programs import MACHINES, listening_program

_NEWUSER, _NEWNET = 0x10000000, 0x40000000  # sched.h
_SET_FLAGS, _UP = 0x8914, 0x1 | 0x40  # sockios.h, if.h: IFF_UP and IFF_RUNNING

PORT: Final = 7090
"""Where the server is found in a namespace of the command's own: nobody else listens there."""

LISTENER: Final = "listen"
_RECEIVER: Final = "listener.sock"

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
    listener = socket.socket(fileno=descriptors[0])
    if listener.getsockname() != ("127.0.0.1", PORT):
        listener.close()
        raise CouldNotCheck(f"somebody else listens at {PORT} in the command's network")
    serve(listener)


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


@contextmanager
def handed_over(exchange: Path, inside: str, serve: Serve) -> Iterator[None]:
    """Have *serve* serve in the network of a container that sees *exchange* at *inside*.

    Nobody need enter that network: a program is put there that listens in it, when the container
    runs it, and sends the socket. Only the first that comes is taken, before the command runs.
    """
    program, address = exchange / LISTENER, exchange / _RECEIVER
    program.write_bytes(listening_program(platform.machine(), PORT, f"{inside}/{_RECEIVER}"))
    program.chmod(0o755)
    address.unlink(missing_ok=True)
    directory = os.open(exchange, os.O_RDONLY)
    with closing(socket.socket(socket.AF_UNIX)) as receiver, _closed(directory):
        # A path of any length: addresses have 107 bytes at most.
        receiver.bind(f"/proc/self/fd/{directory}/{_RECEIVER}")
        receiver.listen(1)

        def take() -> None:
            try:
                with closing(receiver.accept()[0]) as sender:
                    address.unlink(missing_ok=True)
                    take_listener(sender, serve)
            except (OSError, CouldNotCheck):
                return  # the container ended before, or has no such network: all is built there

        thread = threading.Thread(target=take, name="outputs in a container", daemon=True)
        thread.start()
        try:
            yield
        finally:
            with suppress(OSError):
                receiver.shutdown(socket.SHUT_RDWR)
            thread.join()


@contextmanager
def _closed(descriptor: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(descriptor)


def why_no_server(engine: str) -> str | None:
    """Return why no server of ours can be reached by commands of *engine*; None where one can."""
    if engine not in ("docker", "podman"):
        return None
    if not sys.platform.startswith("linux"):
        return f"{engine} runs its containers in another machine"
    machine = platform.machine()
    return None if machine in MACHINES else f"no program of ours listens on {machine}"
