"""Keeps the end of all that goes to standard error, from children as well, while it passes by.

Whether this process may fork workers that go on running Python.

Runs this program again as root: for the few steps that take it, on a machine that lets us.

Runs a command of the user's when something happened, and gives it to read what did.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nix_seed.core.errors import (
    CheckedFalse,
    CouldNotCheck,
    InputError,
    NixFailed,
    NixSeedError,
    foreign,
)

_KEPT = 256 << 10  # bytes


class Tail:
    """The last bytes that passed."""

    def __init__(self) -> None:
        self._data = bytearray()

    def add(self, chunk: bytes) -> None:
        """Remember *chunk*, and forget what is too old."""
        self._data += chunk
        del self._data[:-_KEPT]

    @property
    def text(self) -> str:
        """What is kept, as text."""
        return self._data.decode("utf-8", "replace")


@contextmanager
def stderr_tail() -> Iterator[Tail]:
    """Pass on what is written to file descriptor 2, and keep its end.

    Nix writes its progress and its errors straight there; this is how they can be quoted. A thread
    copies, so no process may be forked meanwhile that goes on as Python.
    """
    tail = Tail()
    sys.stderr.flush()
    real = os.dup(2)
    reader, writer = os.pipe()
    os.dup2(writer, 2)
    os.close(writer)
    thread = threading.Thread(target=_copy, args=(reader, real, tail), daemon=True)
    thread.start()
    try:
        yield tail
    finally:
        sys.stderr.flush()
        os.dup2(real, 2)
        # Whoever inherited the pipe and lives on keeps it open: its words are not waited for long.
        thread.join(timeout=5)
        if not thread.is_alive():
            os.close(reader)
            os.close(real)


def _copy(reader: int, real: int, tail: Tail) -> None:
    while chunk := os.read(reader, 1 << 16):
        tail.add(chunk)
        _write(real, chunk)


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def may_fork() -> bool:
    """Tell whether the process has but one thread: a fork of any other may wait for ever.

    Threads that a library started without Python's knowledge count as well, where the system tells.
    """
    try:
        threads = len(os.listdir("/proc/self/task"))
    except OSError:
        threads = threading.active_count()
    return threads == 1


def cores() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS; elsewhere it knows a container's share
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_KEPT_VARIABLES = (
    "PATH",
    "HOME",
    "NIX_CONFIG",
    "NIX_SEED_CACHE",
    "NIX_SSL_CERT_FILE",
    "NIX_SEED_DEBUG",
)
_ERRORS: dict[int, type[NixSeedError]] = {
    error.exit_code: error for error in (CheckedFalse, InputError, CouldNotCheck, NixFailed)
}
_CODE = """
import sys
sys.path.insert(0, sys.argv.pop(1))
sys.argv[0] = "nix-seed"
from nix_seed.cli.main import main
main()"""


def run_as_root(arguments: Sequence[str], stdin: str = "") -> Any:
    """Run ``nix-seed`` with *arguments* by sudo; return what it printed, read as JSON.

    Its log goes to standard error. A failure is raised as it was raised there, in short.
    """
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if sudo and shutil.which("sudo") is None:
        raise CouldNotCheck(
            "writing to /nix takes root, and there is no sudo",
            hint="run as root, or make /nix yours beforehand: mkdir /nix && chown $USER /nix",
        )
    kept = [f"{name}={os.environ[name]}" for name in _KEPT_VARIABLES if name in os.environ]
    source = str(Path(__file__).resolve().parents[2])
    command = [*sudo, "env", *kept, sys.executable, "-c", _CODE, source, *arguments]
    done = subprocess.run(
        command, input=stdin, stdout=subprocess.PIPE, text=True, check=False, errors="replace"
    )
    if done.returncode != 0:
        raise _ERRORS.get(done.returncode, CouldNotCheck)(
            f"nix-seed {arguments[0]} failed as root, with exit code {done.returncode}",
            hint="what it said is in the log above",
        )
    with foreign(f"nix-seed {arguments[0]} printed no JSON as root", ValueError, quoted=False):
        return json.loads(done.stdout or "null")


_PATIENCE = 60.0  # seconds
_MOST = 2000


def call_hook(command: Sequence[str], text: bytes, environment: Mapping[str, str]) -> None:
    """Run *command*, with *text* to read and *environment* beside our own, and wait for its end.

    ``CouldNotCheck`` where it cannot be started, fails, or has not ended after a minute.
    """
    name = command[0]
    try:
        done = subprocess.run(
            command,
            input=text,
            env={**os.environ, **environment},
            capture_output=True,
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CouldNotCheck(
            f"the hook {name} was killed: it took over {_PATIENCE:.0f} s"
        ) from error
    except OSError as error:
        raise CouldNotCheck(
            f"the hook {name} could not be started: {error.strerror}",
            hint="name a program, with its arguments: --hook 'notify --urgent'",
        ) from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout)[-_MOST:].decode("utf-8", "replace")
        raise CouldNotCheck(f"the hook {name} ended with {done.returncode}", detail=said or None)
