"""A network of a command's own, loopback alone; and one server of ours that can be reached there.

A socket that listens belongs to the network namespace it was made in, whoever accepts from it. So
the command's child makes it where the command will be, and hands it over to this process. Where an
engine makes the network itself, a child of ours enters that of the container.
"""

import ctypes
import fcntl
import os
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
from nix_seed.use.mount.linux import NEWUSER, enter_namespaces, try_in_child

_NEWNET = 0x40000000  # sched.h
# Opened once: in a forked child nothing should be loaded.
_LIBC: Final[Any] = ctypes.CDLL(None, use_errno=True)
_SET_FLAGS, _UP = 0x8914, 0x1 | 0x40  # sockios.h, if.h: IFF_UP and IFF_RUNNING

PORT: Final = 7090
"""Where the server is found in a namespace of the command's own: nobody else listens there."""

STARTED, GATE = "started", "gate"
"""What a container makes first, and what it then reads from, in the directory both sides share."""

Serve = Callable[[socket.socket], None]
"""Takes a socket that listens, and serves there from now on."""


def leave_network() -> None:
    """In a forked child: enter a network namespace of its own, as the user it was before."""
    enter_namespaces(_NEWNET, as_root=False)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        fcntl.ioctl(handle, _SET_FLAGS, struct.pack("16sH14x", b"lo", _UP))


def leave_and_listen(theirs: socket.socket) -> None:
    """In a forked child: ``leave_network``, and send a socket that listens there to *theirs*."""
    leave_network()
    _listen(theirs)


def _listen(theirs: socket.socket) -> None:
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
def served_inside(exchange: Path, inside: str, ask: Sequence[str], serve: Serve) -> Iterator[None]:
    """Have *serve* serve in the network of a container whose process the command *ask* tells.

    The container sees *exchange* at *inside*. There it marks that it has started, and reads from
    ``GATE`` before it does anything else: a plus where it is served, else a minus. It is not where
    nobody but root may enter its network, or where it runs on another machine.
    """
    os.mkfifo(exchange / GATE)
    ended = threading.Event()
    # Open for both ways: nobody need read for it to be opened, and what is written waits.
    gate = os.open(exchange / GATE, os.O_RDWR | os.O_NONBLOCK)

    def enter() -> None:
        while not (exchange / STARTED).exists():
            if ended.wait(0.02):
                return
        os.write(gate, b"+\n" if _serve_inside(exchange, inside, ask, serve) else b"-\n")

    thread = threading.Thread(target=enter, name="outputs in a container", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        os.close(gate)


def _serve_inside(exchange: Path, inside: str, ask: Sequence[str], serve: Serve) -> bool:
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs), suppress(OSError, ValueError, CouldNotCheck):
        process = int(subprocess.run(ask, capture_output=True, text=True, check=False).stdout)
        # On another machine the number is another process's, or nobody's.
        if not os.path.samefile(f"/proc/{process}/root{inside}", exchange):
            return False
        if try_in_child(lambda: _enter_and_listen(process, theirs)) is None:
            take_listener(ours, serve)
            return True
    return False


def _enter_and_listen(process: int, theirs: socket.socket) -> None:
    """In a forked child: enter the network of *process*, and send a socket that listens there."""
    for kind, flag in (("user", NEWUSER), ("net", _NEWNET)):
        name = f"/proc/{process}/ns/{kind}"
        if kind == "user" and os.path.samefile(name, "/proc/self/ns/user"):
            continue  # one's own cannot be entered
        with open(name, "rb") as namespace:
            if _LIBC.setns(namespace.fileno(), flag) != 0:
                raise OSError(ctypes.get_errno(), f"entering {name}")
    _listen(theirs)


def why_no_server(engine: str) -> str | None:
    """Return why no server of ours can be reached by commands of *engine*; None where one can."""
    if engine in ("docker", "podman") and not sys.platform.startswith("linux"):
        return f"{engine} runs its containers in another machine"
    return None
