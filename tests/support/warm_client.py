"""Asks the waiting process of the tests (``warm``) to be the command that this is started as.

Arguments: the waiting process's address, what it was started with (``warm.kind``), and the
command's own. Where that does not fit here, Python is started. It imports next to nothing: it
takes a twentieth of the time of what it stands for.
"""

import _socket
import marshal
import os
import signal
import struct
import sys

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def main(address: str, wanted: str, *words: str) -> None:
    """Be ``nix-seed`` with *words*."""
    link = _socket.socket(_socket.AF_UNIX)
    try:
        if kind(dict(os.environ)) != wanted:
            raise OSError("Python would start otherwise")
        link.connect(address)
    except OSError:
        os.execv(sys.executable, [sys.executable, "-m", "nix_seed", *words])
    for number in _SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda number, _: link.send(bytes([number])))
    ask(link, [*words], dict(os.environ), os.getcwd(), [0, 1, 2])
    code = os.waitstatus_to_exitcode(status(link))
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


# What has Python start no otherwise: a fork is told, or always is that way.
_TOLD = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")
_PYTHONS = ("PYTHON", "LC_", "LANG", "TZ", "LD_", "MALLOC_")
_SOURCE = os.path.realpath(f"{__file__}/../../../src")


def kind(env: dict[str, str]) -> str:
    """Return what decides how Python starts in *env*, and who and where it is."""
    said = {k: v for k, v in env.items() if k.startswith(_PYTHONS) and k not in _TOLD}
    path = said.pop("PYTHONPATH", "").split(":")
    modules = [each for each in path if each not in ("", _SOURCE)]
    spaces = [os.readlink(f"/proc/self/ns/{name}") for name in ("pid", "user")]
    who = [os.getuid(), os.getgid(), sorted(os.getgroups())]
    return repr([sorted(said.items()), modules, who, os.stat("/").st_ino, spaces])


def ask(
    link: _socket.socket, words: list[str], env: dict[str, str], cwd: str, handles: list[int]
) -> None:
    """Send all that a command is started with over *link*."""
    mask = os.umask(0o022)
    os.umask(mask)
    asked = marshal.dumps((words, env, cwd, mask))
    rights = struct.pack(f"{len(handles)}i", *handles)
    head = struct.pack("!I", len(asked))
    link.sendmsg([head], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
    link.sendall(asked)


def status(link: _socket.socket) -> int:
    """Return how the command ended, as ``waitpid`` gives it."""
    number: int = struct.unpack("!i", exactly(link, 4))[0]
    return number


def exactly(link: _socket.socket, size: int) -> bytes:
    """Read *size* bytes."""
    data = b""
    while len(data) < size:
        data += (more := link.recv(size - len(data)))
        assert more, "the warm process ended"
    return data


if __name__ == "__main__":
    main(*sys.argv[1:])
