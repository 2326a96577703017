"""The command in a process of its own that need not start first: forked from one that waits.

What is forked is as what ``python -m nix_seed`` starts: it has its own arguments, environment,
directory and files, is ended by the same signals, and ends as Python does. Only its modules are
there already, and are not taken apart, which takes a third of a second less. Where an environment
would have Python itself start otherwise, Python is started.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import marshal
import os
import selectors
import shlex
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from support import frames, quick, warm_client

SOURCE = str(Path(__file__).resolve().parents[2] / "src")
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
    if not forks(env):
        return subprocess.run(
            [*_COMMAND, *words],
            env=env, cwd=cwd, input=text, capture_output=True, text=True, check=False,
        )  # fmt: skip
    with tempfile.TemporaryFile() as given, socket.socket(socket.AF_UNIX) as link:
        given.write(text.encode())
        given.seek(0)
        (out, out_end), (err, err_end) = os.pipe(), os.pipe()
        _reach(link)
        handles = [given.fileno(), out_end, err_end]
        warm_client.ask(link, words, dict(env), str(cwd or Path.cwd()), handles)
        os.close(out_end)
        os.close(err_end)
        said = _read_all(out, err)
        code = os.waitstatus_to_exitcode(warm_client.status(link))
    return subprocess.CompletedProcess(words, code, said[out].decode(), said[err].decode())


def forks(env: Mapping[str, str]) -> bool:
    """Whether Python would start in *env* as it did here, so that a fork will do."""
    return warm_client.kind(dict(env)) == warm_client.kind(dict(os.environ))


def program(directory: Path, *modules: str) -> Path:
    """Return the program ``nix-seed`` in *directory*, which is forked as well.

    These *modules* are there already, beside what any command may import. It stays what it is in
    another mount or network namespace: the fork enters that.
    """
    path = directory / "nix-seed"
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        where = os.pathsep.join([*os.environ.get("PYTHONPATH", "").split(os.pathsep), SOURCE])
        ours = dict(os.environ) | {"PYTHONPATH": where}
        asks = [
            sys.executable,
            "-IS",
            warm_client.__file__,
            _address(*modules),
            warm_client.kind(ours),
        ]
        path.write_text(f'#!/bin/sh\nPYTHONPATH="{where}" exec {shlex.join(asks)} "$@"\n')
        path.chmod(0o755)
    return path


def path(directory: Path, *modules: str) -> str:
    """Return a PATH on which ``nix-seed`` is forked, from a program in *directory*."""
    found = [str(program(directory, *modules).parent), *os.get_exec_path()]
    # The linters and checkers that tests run are this environment's.
    return os.pathsep.join([found[0], str(Path(sys.executable).parent), *found[1:]])


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


def _reach(link: socket.socket) -> None:
    """Connect to the waiting process of this one, which is started by whoever asks first."""
    link.connect(_address())


def _address(*modules: str) -> str:
    return _started(os.getpid(), warm_client.kind(dict(os.environ)), *modules)


@cache
def _started(_: int, _kind: str, *modules: str) -> str:
    directory = Path(tempfile.mkdtemp(prefix="warm-"))
    address = str(directory / "s")
    # It ends with the last who could ask it.
    ours, its = os.pipe()
    command = [sys.executable, __file__, address, str(ours), *modules]
    process = subprocess.Popen(command, pass_fds=[ours], stdin=subprocess.DEVNULL)
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


def _serve(address: str, life: int, *modules: str) -> None:
    """Fork whatever is asked for at *address*, until *life* ends."""
    _load(*modules)
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
    words, env, cwd, mask = marshal.loads(warm_client.exactly(link, struct.unpack("!I", head)[0]))
    credentials = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    asker = struct.unpack("3i", credentials)[0]
    child = os.fork()
    if child == 0:
        link.close()
        _enter(asker)
        _become(words, env, cwd, mask, handles)
    for handle in handles:
        os.close(handle)
    _pass_signals(link, child)
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(OSError):
        link.sendall(struct.pack("!i", status))
    os._exit(0)


def _pass_signals(link: socket.socket, child: int) -> None:
    """Send *child* what the asker is sent, until it ends; it ends with its asker."""
    ended = os.pidfd_open(child)
    with selectors.DefaultSelector() as selector:
        selector.register(link, selectors.EVENT_READ)
        selector.register(ended, selectors.EVENT_READ)
        while all(key.fd != ended for key, _ in selector.select()):
            for number in link.recv(64) or [signal.SIGKILL]:
                os.kill(child, number)
            if number == signal.SIGKILL:
                break


def _enter(asker: int) -> None:
    """Go where the process *asker* is: into its mounts and its network."""
    for name in ("mnt", "net", "uts", "ipc"):
        theirs = f"/proc/{asker}/ns/{name}"
        if os.readlink(theirs) != os.readlink(f"/proc/self/ns/{name}"):
            with open(theirs) as space:
                code = ctypes.CDLL(None, use_errno=True).setns(space.fileno(), 0)
            assert code == 0, os.strerror(ctypes.get_errno())


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
    sys.dont_write_bytecode = bool(env.get("PYTHONDONTWRITEBYTECODE"))
    sys.argv = ["nix_seed", *words]
    from nix_seed.cli.main import main

    try:
        main()
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            raise
        _end(end.code or 0)
    _end(0)


def _end(code: int) -> NoReturn:
    """End as Python does, but for taking a thousand modules apart, which takes longest."""
    # What Python has no other name for: it waits for threads, and then does what was registered.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        sys.exit(code)
    os._exit(code)


def _load(*modules: str) -> None:
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
    for name in (*_OTHERS, *modules):
        seen.append(importlib.import_module(name))

    frames.remember(quick.root() / "frames")
    gc.freeze()


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
