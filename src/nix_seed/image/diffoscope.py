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
from contextlib import suppress
from pathlib import Path
from typing import Final

from nix_seed.core.errors import CouldNotCheck, foreign
from nix_seed.core.files import explained
from nix_seed.core.safe_text import safe_text

_SECONDS: Final = 60
_MOST_SAID: Final = 64 << 10
_LARGEST_FILE: Final = 256 << 20
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
    command += ["--bind", str(scratch), str(scratch)]
    for name in ("first", "second"):
        command += ["--ro-bind", str(scratch / name), str(scratch / name)]
    return [*command, "--chdir", str(scratch), "--"]


def show_difference(program: str, scratch: Path, below: str = "") -> str:
    """Return what *program* shows of ``first`` and ``second`` in *scratch*; empty for the same.

    *below* is the path in each that is compared. ``CouldNotCheck``: it failed, or took too long.
    """
    said, errors = scratch / "said", scratch / "errors"
    limits = ["--timeout", str(_SECONDS), "--max-text-report-size", str(_MOST_SAID)]
    limits += ["--max-container-depth", "5", "--exclude-directory-metadata", "recursive"]
    command = ["sh", "-c", _BOUNDED, "sh", program, "--no-progress", *limits]
    trees = [f"first{below}", f"second{below}"]
    temporary, search = str(scratch / "tmp"), os.environ.get("PATH", os.defpath)
    # The sandbox itself is a process that can be looked at inside: it knows no secrets either.
    known = {"PATH": search, "HOME": temporary, "TMPDIR": temporary, "LC_ALL": "C.UTF-8"}
    with foreign("starting diffoscope", OSError), errors.open("wb") as sink:
        (scratch / "tmp").mkdir()
        process = subprocess.Popen(
            [*_confined(program, scratch), *command, "--text", said.name, *trees],
            env=known,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=sink,
            start_new_session=True,
        )
    try:
        code = process.wait(_SECONDS + 10)
    except subprocess.TimeoutExpired as error:
        raise CouldNotCheck(f"diffoscope took more than {_SECONDS} seconds") from error
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if code == 0:
        return ""
    if code != 1 or not said.is_file():
        with explained("reading what diffoscope said"), errors.open("rb") as file:
            words = safe_text(file.read(300).decode("utf-8", "replace")).strip()
        raise CouldNotCheck(f"diffoscope failed in its sandbox, with exit code {code}: {words}")
    # It keeps to its limits only roughly.
    with explained("reading what diffoscope said"), said.open("rb") as file:
        text, more = file.read(_MOST_SAID).decode("utf-8", "replace"), file.read(1)
    cut = "\n… cut here" if more else ""
    return safe_text(text.replace(str(scratch), "")).strip() + cut
