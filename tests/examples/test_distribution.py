"""The flake of Debian packages, on real Nix: what it builds runs, and refers to what it should."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from support.distribution import build, make_project, nix, nix_env, upgraded

SYSTEM = "x86_64-linux"
CORE = {
    "bash": ("bash", "--version"),
    "coreutils": ("ls", "--version"),
    "gnugrep": ("grep", "--version"),
    "gnused": ("sed", "--version"),
    "gawk": ("gawk", "--version"),
    "findutils": ("find", "--version"),
    "diffutils": ("diff", "--version"),
    "gnutar": ("tar", "--version"),
    "gzip": ("gzip", "--version"),
    "xz": ("xz", "--version"),
    "zstd": ("zstd", "--version"),
    "gitMinimal": ("git", "--version"),
    "nix": ("nix", "--version"),
    "python3": ("python3", "-c", "import ctypes, lzma, sqlite3, ssl"),
    "gcc": ("cc", "--version"),
    "binutils": ("ld", "--version"),
    "gnumake": ("make", "--version"),
    "patchelf": ("patchelf", "--version"),
    "busybox": ("awk", "BEGIN { exit 0 }"),
    "openssl": ("openssl", "version"),
    "pkg-config": ("pkg-config", "--version"),
    "gdb": ("gdb", "--batch", "-ex", "python print(1)"),
    "curl": ("curl", "--version"),
}


def closure(path: Path) -> list[Path]:
    command = ["nix-store", "--query", "--requisites", str(path)]
    done = subprocess.run(command, env=nix_env(), check=True, capture_output=True, text=True)
    return [Path(line) for line in done.stdout.split()]


def in_closure(path: Path, *command: str, more: tuple[str, ...] = ()) -> str:
    """Run a command where nothing exists but the closure of its package."""
    mounts = [a for p in closure(path) for a in ("--ro-bind", str(p), str(p))]
    alone = ["bwrap", "--unshare-all", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"]
    done = subprocess.run(
        [
            *alone,
            "--clearenv",
            "--setenv",
            "HOME",
            "/tmp",
            *mounts,
            *more,
            str(path / "bin" / command[0]),
            *command[1:],
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("attribute", CORE)
def test_program_runs_in_its_closure_alone(distribution: Path, attribute: str) -> None:
    command = CORE[attribute]
    in_closure(build(f"{distribution}#{attribute}"), *command)
