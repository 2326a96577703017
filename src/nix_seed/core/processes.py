"""Processes of ours: workers that may be forked, this program as root, a command of the user's."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nix_seed.core.errors import (
    CheckedFalse,
    CouldNotCheck,
    InputError,
    NixFailed,
    NixSeedError,
    foreign,
)

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor


def may_fork() -> bool:
    """Tell whether the process has but one thread: a fork of any other may wait for ever.

    Threads that a library started without Python's knowledge count as well, where the system tells.
    """
    try:
        threads = len(os.listdir("/proc/self/task"))
    except OSError:
        threads = threading.active_count()
    return threads == 1


@contextmanager
def forked_pool(count: int, begin: Callable[[], None]) -> Iterator[ProcessPoolExecutor]:
    """Yield *count* forks of this process, which *begin* so, and end when it does, however it ends.

    Each of them holds the ends of the others' pipes: by these none would see that this one is gone.
    """
    # What is never unpacked or hydrated waits for neither.
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    pipe = os.pipe()
    context = multiprocessing.get_context("fork")
    try:
        yield ProcessPoolExecutor(count, context, _begin_fork, (begin, pipe))
    finally:
        for end in pipe:
            os.close(end)


def _begin_fork(begin: Callable[[], None], parent: tuple[int, int]) -> None:
    begin()
    reads, writes = parent
    os.close(writes)

    def end_with_parent() -> None:
        os.read(reads, 1)  # nothing is ever written: it returns when the parent is gone
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def current_system() -> str:
    """Return the machine's system as Nix spells it: ``x86_64-linux``, ``aarch64-darwin``."""
    machine = {"arm64": "aarch64", "amd64": "x86_64"}.get(platform.machine(), platform.machine())
    return f"{machine}-{platform.system().lower()}"


def cores() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS; elsewhere it knows a container's share
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# What sudo leaves out. Passwords are among them, so none goes by a command line.
_KEPT_VARIABLES = (
    *("PATH", "HOME", "NIX_CONFIG", "NIX_SEED_CACHE", "NIX_SEED_DEBUG"),
    *("NIX_SSL_CERT_FILE", "SSL_CERT_FILE", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE"),
    *(f"{name}_PROXY" for name in ("HTTP", "HTTPS", "ALL", "NO")),
    *(f"{name}_proxy" for name in ("http", "https", "all", "no")),
)
_ERRORS: dict[int, type[NixSeedError]] = {
    error.exit_code: error for error in (CheckedFalse, InputError, CouldNotCheck, NixFailed)
}
_CODE = """
import sys
sys.path.insert(0, sys.argv.pop(1))
sys.argv[0] = "nix-seed"
from nix_seed.cli.start import main
main()"""
# Byte by byte: what follows the first line is for the command itself.
_AS_ROOT = """
import json, os
line = b""
while not line.endswith(b"\\n"):
    line += os.read(0, 1) or b"\\n"
os.environ.update(json.loads(line))
"""


def own_command(arguments: Sequence[str], first: str = "") -> list[str]:
    """Return the command line of another ``nix-seed`` of this very code, with *arguments*.

    It runs the code *first*. No module is taken from where it is called, often a foreign checkout.
    """
    source = str(Path(__file__).resolve().parents[2])
    return [sys.executable, "-P", "-c", first + _CODE, source, *arguments]


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
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    command = [*sudo, *own_command(arguments, _AS_ROOT)]
    stdin = json.dumps(kept) + "\n" + stdin
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
