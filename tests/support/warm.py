"""The command in a process of its own that need not start first: forked from one that waits.

What is forked is as what ``python -m nix_seed`` starts: it has its own arguments, environment,
directory and files, is ended by the same signals, and ends as Python does. Only its modules are
there already, which takes a third of a second less. Where an environment would have Python itself
start otherwise, Python is started.
"""

from __future__ import annotations

import atexit
import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

_PYTHONS = ("PYTHON", "LC_", "LANG", "TZ", "LD_", "MALLOC_")
_COMMAND = (sys.executable, "-m", "nix_seed")
_OTHERS = (
    "jinja2",
    "license_expression",
    "rich.table",
    "sigstore.sign",
    "sigstore.verify",
    "sqlite3",
    "zstandard",
)


def run(
    arguments: Sequence[str | Path], env: Mapping[str, str], cwd: Path | None = None, text: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run ``nix-seed`` with *arguments*; *text* is what it reads."""
    words = [str(each) for each in arguments]
    if _starts_python(env) != _starts_python(os.environ):
        return subprocess.run(
            [*_COMMAND, *words],
            env=env, cwd=cwd, input=text, capture_output=True, text=True, check=False,
        )  # fmt: skip
    with tempfile.TemporaryFile() as given, socket.socket(socket.AF_UNIX) as link:
        given.write(text.encode())
        given.seek(0)
        (out, out_end), (err, err_end) = os.pipe(), os.pipe()
        _reach(link)
        asked = json.dumps([words, dict(env), str(cwd or Path.cwd()), _umask()]).encode()
        handles = [given.fileno(), out_end, err_end]
        socket.send_fds(link, [struct.pack("!I", len(asked))], handles)
        link.sendall(asked)
        os.close(out_end)
        os.close(err_end)
        said = _read_all(out, err)
        status = struct.unpack("!i", _exactly(link, 4))[0]
    code = os.waitstatus_to_exitcode(status)
    return subprocess.CompletedProcess(words, code, said[out].decode(), said[err].decode())


def _starts_python(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(_PYTHONS)}


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _read_all(*handles: int) -> dict[int, bytes]:
    """Read each to its end, whichever has something."""
    found = dict.fromkeys(handles, b"")
    with selectors.DefaultSelector() as selector:
        for handle in handles:
            selector.register(handle, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                data = os.read(key.fd, 1 << 16)
                found[key.fd] += data
                if not data:
                    selector.unregister(key.fd)
                    os.close(key.fd)
    return found


def _exactly(link: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += (more := link.recv(size - len(data)))
        assert more, "the warm process ended"
    return data


def _reach(link: socket.socket) -> None:
    """Connect to the waiting process of this one, which is started by whoever asks first."""
    link.connect(_started(os.getpid()))


@cache
def _started(_: int) -> str:
    directory = Path(tempfile.mkdtemp(prefix="warm-"))
    address = str(directory / "s")
    # It ends with the last who could ask it.
    ours, its = os.pipe()
    process = subprocess.Popen(
        [sys.executable, __file__, address, str(ours)], pass_fds=[ours], stdin=subprocess.DEVNULL
    )
    os.close(ours)
    end = time.monotonic() + 60
    while not Path(address).exists():
        assert process.poll() is None, "the warm process did not start"
        assert time.monotonic() < end, "the warm process did not start in a minute"
        time.sleep(0.02)
    atexit.register(_stop, process, its, directory, os.getpid())
    return address


def _stop(process: subprocess.Popen[bytes], its: int, directory: Path, owner: int) -> None:
    if os.getpid() == owner:
        os.close(its)
        process.wait()
        (directory / "s").unlink(missing_ok=True)
        directory.rmdir()


def _serve(address: str, life: int) -> None:
    """Fork whatever is asked for at *address*, until *life* ends."""
    _load()
    listener = socket.socket(socket.AF_UNIX)
    # The name is there once it can be connected to.
    listener.bind(address + "-")
    listener.listen(64)
    os.rename(address + "-", address)
    # Nobody waits for who hands the exit code on.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(life, selectors.EVENT_READ)
        while all(key.fd != life for key, _ in selector.select()):
            link, _ = listener.accept()
            if os.fork() == 0:
                break
            link.close()
        else:
            return
    listener.close()
    os.close(life)
    _hand_on(link)


def _hand_on(link: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    head, handles, _, _ = socket.recv_fds(link, 4, 3)
    words, env, cwd, mask = json.loads(_exactly(link, struct.unpack("!I", head)[0]))
    child = os.fork()
    if child == 0:
        link.close()
        _become(words, env, cwd, mask, handles)
    for handle in handles:
        os.close(handle)
    _, status = os.waitpid(child, 0)
    link.sendall(struct.pack("!i", status))
    os._exit(0)


def _become(
    words: list[str], env: dict[str, str], cwd: str, mask: int, handles: list[int]
) -> NoReturn:
    for number, handle in enumerate(handles):
        os.dup2(handle, number)
        os.close(handle)
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.chdir(cwd)
    os.umask(mask)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["nix_seed", *words]
    from nix_seed.cli.main import main

    main()
    sys.exit(0)


def _load() -> None:
    """Import what commands import, but for what only one of them does."""
    import gc
    import importlib
    import pkgutil

    import nix_seed

    seen: list[Any] = []
    for found in pkgutil.walk_packages(nix_seed.__path__, "nix_seed."):
        if not found.name.startswith(("nix_seed.evm", "nix_seed.__main__")):
            seen.append(importlib.import_module(found.name))

    # What functions import of others': the largest takes longer than many a command.
    for name in _OTHERS:
        seen.append(importlib.import_module(name))

    gc.freeze()


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
