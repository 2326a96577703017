"""A small image made from this machine's own programs: Nix, git and a shell with their libraries.

It is no seed (nothing of it comes from a flake), but it meets enough of the image contract for the
engines, for ``run`` and for the proof to be tried with a real Nix, and it is made in a second.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
from functools import cache
from pathlib import Path

import pytest

from support.layouts import directory, file, symlink, tar, write_layout

_PROGRAMS = """basename bash cat chmod comm cp cut date dirname env false find git grep gzip head id
ln ls mkdir mktemp mv readlink rm sed sleep sort stat tail tar touch tr true uname wc zstd"""
_NIX = ["nix", "nix-store"]
# Debian's Nix asks this for remote builders, of which it then has none.
_HOOK = Path("/usr/libexec/nix/build-remote")
_NIX_CONFIG = """experimental-features = nix-command flakes
substituters =
build-users-group =
sandbox = false
"""
_MERGED = ("bin", "sbin", "lib", "lib64")
Members = list[tuple[tarfile.TarInfo, bytes]]


@cache
def base_layer(*, nix: bool = True) -> bytes:
    """The tar: programs and libraries at their usual places, /etc, /tmp, an empty store."""
    needs = [*_PROGRAMS.split(), *(_NIX if nix else ())]
    for program in needs:
        if shutil.which(program) is None:
            package = {"nix": "nix-bin", "nix-store": "nix-bin"}.get(program, program)
            pytest.skip(f"needs {program}: apt-get install {package}")
    files: dict[str, Path] = {}
    for program in needs:
        path = Path(shutil.which(program) or "")
        files[f"usr/bin/{program}"] = path
        files |= {_place(library): library for library in _libraries(path)}
    # What Node asks for, beyond what the programs above do.
    for place in {library.parent for library in _libraries(Path(shutil.which("bash") or ""))}:
        for name in ("libdl.so.2", "libpthread.so.0"):
            if (place / name).exists():
                files[_place(place / name)] = place / name
    if nix and _HOOK.exists():
        files[str(_HOOK).lstrip("/")] = _HOOK
    members: Members = [symlink(name, f"usr/{name}") for name in _MERGED]
    members += [file(name, path.read_bytes(), 0o555) for name, path in files.items()]
    members += [symlink("usr/bin/sh", "bash"), *_etc(), *_places()]
    folders = {str(parent) for name in files for parent in Path(name).parents} - {"."}
    folders |= {"usr/sbin", "usr/lib64", "usr/lib", "etc"}
    return tar(sorted([*members, *map(directory, folders)], key=lambda member: member[0].name))


def host_image(path: Path, *more: bytes, nix: bool = True, compression: str = "zstd") -> Path:
    """Write the image, with *more* layers on top, as a layout at *path*."""
    config = {"Env": ["PATH=/usr/bin", "HOME=/root", f"NIX_CONFIG={_NIX_CONFIG}"]}
    return write_layout(path, [base_layer(nix=nix), *more], compression=compression, config=config)


def _libraries(program: Path) -> list[Path]:
    done = subprocess.run(["ldd", program], capture_output=True, text=True, check=True)
    return [Path(name) for name in re.findall(r"(?:=> )?(/\S+) \(0x", done.stdout)]


def _place(library: Path) -> str:
    first, _, rest = str(library).lstrip("/").partition("/")
    return f"usr/{first}/{rest}" if first in _MERGED else f"{first}/{rest}"


def _etc() -> Members:
    texts = {
        "etc/passwd": "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n",
        "etc/group": "root:x:0:\nnogroup:x:65534:\n",
        "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
        "etc/os-release": "ID=nixos\nNAME=Test\n",
        "etc/gitconfig": "[safe]\n\tdirectory = *\n",
        "etc/ssl/certs/ca-certificates.crt": "none is needed offline\n",
    }
    folders = [directory("etc/ssl"), directory("etc/ssl/certs")]
    return [*folders, *(file(name, text.encode(), 0o644) for name, text in texts.items())]


def _places() -> Members:
    modes = {"root": 0o700, "tmp": 0o1777, "var": 0o755, "var/tmp": 0o1777, "nix": 0o755}
    modes |= {"nix/store": 0o1775, "nix/var": 0o755, "nix/var/nix": 0o755}
    return [directory(name, mode) for name, mode in modes.items()]


def make_accessible(path: Path) -> None:
    """Let everyone pass through pytest's private directories, for engines with another user."""
    for parent in [path, *path.parents][:4]:
        if os.access(parent, os.W_OK) and parent != Path("/tmp"):
            parent.chmod(parent.stat().st_mode | 0o755)
