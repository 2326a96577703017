"""Programs of the system that tests compare with."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

PACKAGES = {
    "nix-store": "nix-bin",
    "nix-instantiate": "nix-bin",
    "nix": "nix-bin",
    "docker": "docker.io",
}


def need(program: str) -> str:
    """Return the program's path, or skip the test by name."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"needs {program}: apt-get install {PACKAGES.get(program, program)}")
    return found


def run(
    *command: str | bytes | Path, stdin: bytes = b"", env: dict[str, str] | None = None
) -> bytes:
    """Run *command*, which must succeed, and return what it printed."""
    done = subprocess.run(command, input=stdin, capture_output=True, env=env, check=False)
    assert done.returncode == 0, (command, done.stderr.decode(errors="replace"))
    return done.stdout


def first_line(process: subprocess.Popen[str]) -> str:
    """Read the next line that *process* prints, and not a byte more.

    Python's own ``readline`` takes all that is there, and ``communicate`` never gives that back.
    """
    assert process.stdout is not None
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(process.stdout.fileno(), 1)):
        line += byte
    return line.decode()
