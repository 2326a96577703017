"""What spares the tests waiting: no ``fsync``, short pauses, no work done twice by two processes.

``NIX_SEED_TESTS_FSYNC=1`` keeps ``fsync`` everywhere. Tests of durability carry the mark ``fsync``.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from atexit import register
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

SHARED = "NIX_SEED_TESTS_SHARED"
_HERE = str(Path(__file__).parent)
_NAMES = [name for name in ("fsync", "fdatasync") if hasattr(os, name)]
_REAL = {name: getattr(os, name) for name in _NAMES}


def start(*, new: bool) -> None:
    """Prepare this process and all it starts; a *new* run shares nothing with any other."""
    if new:
        os.environ.pop(SHARED, None)
    root()
    # What a shell starts in the background ignores it, and so does all that this would start.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Else each of the thousands of processes that are started compiles all that it imports.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    if not os.environ.get("NIX_SEED_TESTS_FSYNC"):
        os.environ["PYTHONPATH"] = os.pathsep.join([_HERE, *_python_path()])
        import support.quick.sitecustomize  # noqa: F401  (imported for what it does)


def root() -> Path:
    """Return the directory that all processes of this run share; it goes when the run ends."""
    if SHARED not in os.environ:
        # podman names an image by its path, in which it takes no underscore at the end of a name.
        directory = Path(tempfile.gettempdir(), f"nix-seed-tests-{secrets.token_hex(4)}")
        directory.mkdir()
        # Some engines work for another user, who has to get this far.
        directory.chmod(0o755)
        register(_remove, directory, os.getpid())
        os.environ[SHARED] = str(directory)
    return Path(os.environ[SHARED])


@contextmanager
def durable() -> Iterator[None]:
    """Let ``fsync`` be itself, here and in what is started, until the block ends."""
    before = {name: getattr(os, name) for name in _NAMES}
    path = os.environ.pop("PYTHONPATH", None)
    if others := _without_ours(path):
        os.environ["PYTHONPATH"] = os.pathsep.join(others)
    _set(_REAL)
    try:
        yield
    finally:
        _set(before)
        if path is not None:
            os.environ["PYTHONPATH"] = path


def once(name: str, make: Callable[[Path], None]) -> Path:
    """Return the directory *name* of this run, made by whichever process asks first.

    Nobody may change it; *make* is given a path where nothing is yet.
    """
    made = root() / name
    with (root() / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root() / f".{name}.made").exists():
            make(made)
            (root() / f".{name}.made").touch()
    return made


def _python_path() -> list[str]:
    return _without_ours(os.environ.get("PYTHONPATH"))


def _without_ours(path: str | None) -> list[str]:
    return [part for part in (path or "").split(os.pathsep) if part not in ("", _HERE)]


def _set(functions: dict[str, Callable[..., None]]) -> None:
    for name, function in functions.items():
        setattr(os, name, function)


def _remove(shared: Path, owner: int) -> None:
    """Remove what the run shared, unless a fork of its owner ends here."""
    if os.getpid() == owner:
        # Nobody may write to a store's directories.
        subprocess.run(["chmod", "-R", "u+w", str(shared)], check=False, capture_output=True)
        shutil.rmtree(shared, ignore_errors=True)
