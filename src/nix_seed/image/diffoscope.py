"""What diffoscope shows of two trees, where it is installed: bounded, never needed.

It takes apart what builders made, by many programs. So it runs in a sandbox: without a network,
without this user's files, and with nothing but its own directory to write to. It ends after a
while, with all that it started. Where there can be no sandbox, it is not run.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

from nix_seed.core.errors import CouldNotCheck, foreign
from nix_seed.core.safe_text import safe_text

_SECONDS: Final = 60
_MOST_SAID: Final = 64 << 10
_LARGEST_FILE: Final = 256 << 20
_WRITABLE: Final = "tmp"
# What programs need of a system; none of it is a user's.
_SYSTEM: Final = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib64", "/nix/store", "/run/current-system"),
    *("/etc/alternatives", "/etc/ld.so.cache", "/etc/magic"),
)
# Each file that it or its helpers write is bounded, in blocks of 512 bytes.
_BOUNDED: Final = f'ulimit -f {_LARGEST_FILE // 512}; exec "$@"'


def diffoscope_at_hand() -> str | None:
    """Return the program, None where it is not installed."""
    return shutil.which("diffoscope")


def _confined(program: str, scratch: Path) -> list[str]:
    """Return what runs a command in *scratch* that sees the system's programs, and little else."""
    sandbox = shutil.which("bwrap")
    if sandbox is None:
        raise CouldNotCheck(
            "diffoscope is installed, and not run: there is no bubblewrap to confine it",
            hint="apt-get install bubblewrap",
        )
    there = Path(program).resolve().parent
    # A program in a virtual environment needs all of that.
    own = there.parent if (there.parent / "pyvenv.cfg").exists() else there
    command = [sandbox, "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    command += ["--proc", "/proc", "--dev", "/dev"]
    for path in (*_SYSTEM, str(own)):
        command += ["--ro-bind-try", path, path]
    # Foreign trees are not named here: bubblewrap follows a link to what it is told to bind.
    command += ["--ro-bind", str(scratch), str(scratch)]
    command += ["--bind", str(scratch / _WRITABLE), str(scratch / _WRITABLE)]
    return [*command, "--chdir", str(scratch), "--"]


def show_difference(program: str, scratch: Path, one: str, other: str) -> str:
    """Return what *program* shows of the trees at *one* and *other*, empty where it sees the same.

    Both are relative to *scratch*, a directory made for this, which has nothing else in it yet.
    ``CouldNotCheck`` where it failed or took too long.
    """
    limits = ["--timeout", str(_SECONDS), "--max-text-report-size", str(_MOST_SAID)]
    limits += ["--max-container-depth", "5", "--exclude-directory-metadata", "recursive"]
    command = ["sh", "-c", _BOUNDED, "sh", program, "--no-progress", *limits]
    search, home = os.environ.get("PATH", os.defpath), str(scratch / _WRITABLE)
    # The sandbox itself is a process that can be looked at inside: it knows no secrets either.
    known = {"PATH": search, "HOME": home, "TMPDIR": home, "LC_ALL": "C.UTF-8"}
    # What it writes by name may be a link by now: only these two files are read here.
    with foreign("starting diffoscope", OSError), ExitStack() as stack:
        (scratch / _WRITABLE).mkdir()
        said, errors = (
            stack.enter_context((scratch / name).open("w+b")) for name in ("said", "errors")
        )
        process = subprocess.Popen(
            [*_confined(program, scratch), *command, "--text", "-", one, other],
            env=known,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=errors,
            start_new_session=True,
        )
        code = _wait(process)
        for file in (said, errors):
            file.seek(0)
        # It keeps to its limits only roughly.
        text, more = said.read(_MOST_SAID).decode("utf-8", "replace"), said.read(1)
        words = safe_text(errors.read(300).decode("utf-8", "replace")).strip()
    if code == 0:
        return ""
    if code != 1 or not text:
        raise CouldNotCheck(f"diffoscope failed in its sandbox, with exit code {code}: {words}")
    cut = "\n… cut here" if more else ""
    return safe_text(text.replace(str(scratch), "")).strip() + cut


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Return the exit code of *process*, and leave nothing running that it started."""
    try:
        return process.wait(_SECONDS + 10)
    except subprocess.TimeoutExpired as error:
        raise CouldNotCheck(f"diffoscope took more than {_SECONDS} seconds") from error
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
