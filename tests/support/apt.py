"""Debian packages of another suite, unpacked beside the system and never installed.

The mirror and its key are those this machine's own apt is configured with. Packages are kept in
``~/.cache/nix-seed-tests``, so that the network is asked once.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "nix-seed-tests"


def packages(suite: str, *names: str) -> Path:
    """Return a root in which the packages *names* of *suite* are unpacked, all by themselves.

    The test is skipped where there is no apt, no Debian mirror, or no network.
    """
    key = hashlib.sha256(" ".join(sorted(names)).encode()).hexdigest()[:12]
    root = CACHE / f"{suite}-{names[0]}-{key}"
    with _locked(suite):
        if not root.is_dir():
            partial = root.with_name(f".partial-{root.name}")
            shutil.rmtree(partial, ignore_errors=True)
            for archive in _download(suite, names, partial / "archives"):
                _call(["dpkg-deb", "--extract", archive, partial / "root"])
            (partial / "root").rename(root)
            shutil.rmtree(partial)
    return root


def with_dependencies(suite: str, *names: str) -> list[str]:
    """Return the packages *names* of *suite* and all they depend on."""
    options = [f"--no-{kind}" for kind in _WEAK]
    output = _apt(suite, "apt-cache", "depends", "--recurse", *options, *names)
    return sorted(set(re.findall(r"^(\w\S*)$", output, re.MULTILINE)))


def available(suite: str) -> str:
    """Return what *suite* offers, as ``apt-cache dumpavail`` prints it: names, sizes, needs."""
    with _locked(suite):
        return _apt(suite, "apt-cache", "dumpavail")


_WEAK = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")


def _download(suite: str, names: tuple[str, ...], directory: Path) -> list[Path]:
    directory.mkdir(parents=True)
    _apt(suite, "apt-get", "download", *names, cwd=directory)
    return sorted(directory.glob("*.deb"))


def _apt(suite: str, program: str, *arguments: str, cwd: Path | None = None) -> str:
    return _call([program, *_options(suite), *arguments], cwd)


@cache
def _options(suite: str) -> tuple[str, ...]:
    """Make apt's directories for *suite* and fetch its index; return the options that use them."""
    base = CACHE / f"apt-{suite}"
    for name in ("etc/preferences.d", "etc/sources.list.d", "state/lists/partial"):
        (base / name).mkdir(parents=True, exist_ok=True)
    (base / "cache/archives/partial").mkdir(parents=True, exist_ok=True)
    (base / "state/status").touch()
    uri, key = _mirror()
    (base / "etc/sources.list").write_text(f"deb [signed-by={key}] {uri} {suite} main\n")
    settings = {
        "Dir": base,
        "Dir::Etc": base / "etc",
        "Dir::State": base / "state",
        "Dir::State::status": base / "state/status",
        "Dir::Cache": base / "cache",
        "Acquire::Languages": "none",
        "APT::Sandbox::User": "root" if os.geteuid() == 0 else "",
    }
    options = tuple(part for key, value in settings.items() for part in ("-o", f"{key}={value}"))
    if not list((base / "state/lists").glob("*_Packages*")):
        _call(["apt-get", *options, "update", "--error-on=any"])
    return options


def _mirror() -> tuple[str, str]:
    """Return (URI, keyring) of the Debian archive in this machine's own apt sources."""
    if shutil.which("apt-get") is None:
        pytest.skip("needs apt-get, on Debian or a system made from it")
    key = "/usr/share/keyrings/debian-archive-keyring.gpg"
    sources = Path("/etc/apt")
    for path in [*sources.glob("sources.list.d/*"), sources / "sources.list"]:
        text = path.read_text() if path.is_file() else ""
        for uri in re.findall(r"^(?:URIs:|deb\s(?:\[.*\])?)\s*(\S+)", text, re.MULTILINE):
            if uri.rstrip("/").endswith("/debian") and Path(key).exists():
                return uri, key
    pytest.skip("needs a Debian archive in /etc/apt/sources.list")


def _call(command: list[str | Path], cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        words = done.stderr.strip().splitlines()[-1:]
        pytest.skip(f"needs {command[0]} to reach a Debian mirror: {words}")
    return done.stdout


@contextmanager
def _locked(name: str) -> Iterator[None]:
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
