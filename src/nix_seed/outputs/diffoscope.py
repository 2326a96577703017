"""What diffoscope shows of two NARs of one output, where it is installed: bounded, never needed.

It takes apart what builders made, by many programs. So it runs in a sandbox: without a network,
without this user's files, and with nothing but its own directory to write to. It ends after a
while, with all that it started. Where there can be no sandbox, it is not run.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from nix_seed.core.errors import CouldNotCheck, foreign
from nix_seed.core.files import explained
from nix_seed.core.safe_text import safe_text
from nix_seed.core.words import human_size
from nix_seed.formats.nix.nar import read_nar
from nix_seed.image.read.safe_root import scratch_directory

LARGEST_SHOWN: Final = 64 << 20
"""Bytes of a NAR: what is larger is not unpacked for it."""
_SECONDS: Final = 60
_MOST_SAID: Final = 64 << 10
_MOST_ENTRIES: Final = 20_000
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


def show_difference(program: str, one: Iterable[bytes], other: Iterable[bytes]) -> str:
    """Return what *program* shows of the NARs *one* and *other*, empty where it sees the same.

    ``CouldNotCheck`` where it failed or took too long; and as the NARs raise.
    """
    with scratch_directory("nix-seed-diffoscope-") as scratch:
        for name, nar in (("first", one), ("second", other)):
            _unpack(nar, scratch / name)
        return _run(program, scratch)


def _unpack(nar: Iterable[bytes], top: Path) -> None:
    """Write the tree that *nar* is; each directory in it is one that was made here."""
    left, count = LARGEST_SHOWN, 0
    # As it is read, no name leads out of its directory, and none comes twice.
    for entry in read_nar(nar, "the NAR", LARGEST_SHOWN):
        left, count = left - entry.size, count + 1
        if left < 0 or count > _MOST_ENTRIES:
            most = f"{human_size(LARGEST_SHOWN)} and {_MOST_ENTRIES} files"
            raise CouldNotCheck(f"diffoscope is given outputs of up to {most}")
        path = Path(os.fsdecode(os.path.join(os.fsencode(top), entry.path)) if entry.path else top)
        with explained("unpacking for diffoscope"):
            if entry.kind == "directory":
                path.mkdir()
            elif entry.kind == "symlink":
                os.symlink(entry.head, os.fsencode(path))
            else:
                path.write_bytes(entry.head)
                path.chmod(0o555 if entry.kind == "program" else 0o444)


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


def _run(program: str, scratch: Path) -> str:
    said, errors = scratch / "said", scratch / "errors"
    limits = ["--timeout", str(_SECONDS), "--max-text-report-size", str(_MOST_SAID)]
    limits += ["--max-container-depth", "5", "--exclude-directory-metadata", "recursive"]
    command = ["sh", "-c", _BOUNDED, "sh", program, "--no-progress", *limits]
    temporary, search = str(scratch / "tmp"), os.environ.get("PATH", os.defpath)
    # The sandbox itself is a process that can be looked at inside: it knows no secrets either.
    known = {"PATH": search, "HOME": temporary, "TMPDIR": temporary, "LC_ALL": "C.UTF-8"}
    with foreign("starting diffoscope", OSError), errors.open("wb") as sink:
        (scratch / "tmp").mkdir()
        process = subprocess.Popen(
            [*_confined(program, scratch), *command, "--text", said.name, "first", "second"],
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
