"""ARM64 on this machine: its programs run by themselves, under qemu where the processor is another.

The kernel starts them through ``binfmt_misc``. The entry is registered with the flag F, so that
containers and Nix's sandbox need no qemu of their own.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from support import quick
from support.distribution import fixed_path_of, locked_packages

SYSTEM = "aarch64-linux"
_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_ENTRY = Path("/usr/lib/binfmt.d/qemu-aarch64.conf")
# Of Debian's packages; the last is for what is not Debian's.
_PYTHON = ("python3", "libsqlite3-0", "libgcc-s1")
_WHEELS = (
    "cffi",
    "cryptography",
    "msgspec",
    "rfc8785",
    "typing_extensions",
    "urllib3",
    "zstandard",
)


def need_emulation() -> None:
    """Have programs for ARM64 run here, or skip the test by the name of what is absent."""
    if platform.machine() != "aarch64":
        quick.once("binfmt", _register)


def _register(made: Path) -> None:
    if not _ENTRY.exists():
        pytest.skip("needs qemu-aarch64-static: apt-get install qemu-user-static")
    if not (_BINFMT / "register").exists():
        mount = ["mount", "-t", "binfmt_misc", "binfmt_misc", str(_BINFMT)]
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"needs binfmt_misc, which only root can mount: {done.stderr.strip()}")
    if not any(_is_enabled(entry) for entry in _BINFMT.glob("*aarch64*")):
        try:
            (_BINFMT / "register").write_text(_ENTRY.read_text().strip())
        except OSError as error:
            pytest.skip(f"needs to register qemu-aarch64 with {_BINFMT}: {error.strerror}")
    made.touch()


def _is_enabled(entry: Path) -> bool:
    lines = entry.read_text().splitlines()
    return "enabled" in lines and any(
        line.startswith("flags:") and "F" in line.split(":")[1] for line in lines
    )


def arm_python(distribution: Path) -> Path:
    """Return a root that holds Debian's Python for ARM64, and what this project imports of others.

    It is unpacked, not built: only what runs in it is emulated.
    """
    return quick.once("arm-python", lambda root: _unpack_python(distribution, root))


def _unpack_python(distribution: Path, root: Path) -> None:
    packages = locked_packages(distribution / SYSTEM)
    wanted, todo = set[str](), list(_PYTHON)
    while todo:
        if (name := todo.pop()) not in wanted:
            wanted.add(name)
            todo += packages[name]["depends"]
    for name in sorted(wanted):
        subprocess.run(["dpkg-deb", "-x", fixed_path_of(packages[name]), str(root)], check=True)
    for place in ("dev", "proc", "tmp"):
        (root / place).mkdir(exist_ok=True)
    _add_wheels(root)


def _add_wheels(root: Path) -> None:
    """Install what the assembler imports of other projects, in the versions that run here."""
    from importlib.metadata import version

    names = [f"{name}=={version(name)}" for name in _WHEELS]
    command = ["uv", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"]
    # They are for Debian's Python, whichever that is, not for this one.
    python = (root / "usr/bin/python3").readlink().name.removeprefix("python")
    command += ["--python-version", python, "--python-platform", "aarch64-manylinux_2_28"]
    command += ["--python", sys.executable, "--target"]
    done = subprocess.run(
        [*command, str(root / "wheels"), *names], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"needs uv to reach the package index, for wheels: {done.stderr.strip()}")


def run_arm_python(root: Path, program: str, arguments: Sequence[str], writable: Path) -> str:
    """Run a program in that Python, with no network; it sees the store, our code and *writable*."""
    source = Path(__file__).resolve().parents[2] / "src"
    command = ["bwrap", "--unshare-all", "--ro-bind", str(root), "/", "--dev", "/dev"]
    command += ["--proc", "/proc", "--tmpfs", "/tmp", "--ro-bind", "/nix/store", "/tmp/nix/store"]
    command += ["--ro-bind", str(source), "/tmp/src", "--bind", str(writable), "/tmp/work"]
    command += ["--clearenv", "--setenv", "PYTHONPATH", "/tmp/src:/wheels"]
    command += ["--chdir", "/tmp/work", "/usr/bin/python3", "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr
    return done.stdout
