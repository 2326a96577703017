"""The demo flake of Debian packages, made once per user and shared by every test that needs it."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support import quick

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
MAKE = EXAMPLES / "debian" / "make"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "debian-flake"
NIX_SETTINGS = {
    "experimental-features": "nix-command flakes",
    "build-users-group": "",
    "substituters": "",
    "flake-registry": "",
    "sandbox": "true",
    # Garbage that other tests make is theirs to collect.
    "min-free": "0",
    # Its database would wait for the disk after every path.
    "fsync-metadata": "true" if os.environ.get("NIX_SEED_TESTS_FSYNC") else "false",
}
NEEDED = {
    "nix": "nix-bin",
    "nix-store": "nix-bin",
    "git": "git",
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
}
WHOLE = "NIX_SEED_TESTS_WHOLE"
"""The variable with which the distribution is the demo's, with all that tests do without."""

# What a fifth of a seed's bytes are, and nothing uses in one: each test would pack, hash and unpack
# them. Only these packages are built by another script, so that what is below them stays one.
_LEAN = "gcc-[0-9]+(-x86-64-linux-gnu)?|git"
_LEFT_OUT = (
    *("*lto-dump*", "lto1", "locale", "RelNotes", "scalar", "git-shell", "git-daemon"),
    "git-imap-send",
)


def nix_env(**settings: str) -> dict[str, str]:
    """Return the environment for Nix in tests; keywords are settings of nix.conf, `_` for `-`."""
    chosen = NIX_SETTINGS | {name.replace("_", "-"): value for name, value in settings.items()}
    config = "".join(f"{name} = {value}\n" for name, value in chosen.items())
    # Root may write where Python would put its bytecode: beside the modules, in the store.
    spared = {"NIX_USER_CONF_FILES": "/dev/null", "PYTHONDONTWRITEBYTECODE": "1"}
    return {**os.environ, "NIX_CONFIG": config, **spared}


def nix(*arguments: str | Path, cwd: str | Path | None = None, **settings: str) -> str:
    """Run `nix` and return what it printed; a failure fails the test with Nix's own message."""
    command = ["nix", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=cwd, env=nix_env(**settings), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"
    return done.stdout.strip()


def build(installable: str, **settings: str) -> Path:
    """Build one output with Nix and return its store path."""
    built = json.loads(nix("build", "--json", "--no-link", installable, **settings))
    return Path(built[0]["outputs"]["out"])


def require_nix() -> None:
    """Skip the test, by name of what is absent, where the distribution cannot be made."""
    for program, package in NEEDED.items():
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}: apt-get install {package}")
    if not os.access("/nix" if Path("/nix").exists() else "/", os.W_OK):
        pytest.skip("needs a writable /nix: run as root, or mkdir /nix && chown it to you")


def make(*arguments: str | Path) -> Path:
    """Run `examples/debian/make` and return the path it printed."""
    done = subprocess.run(
        [sys.executable, MAKE, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


@functools.cache
def distribution(*extra: str) -> Path:
    """Return the distribution's directory, with these Debian packages beyond the usual ones.

    Its name is a digest of what it holds, so it never changes under a project that uses it.
    """
    require_nix()
    kind = "whole-distribution-" if WHOLE in os.environ else "distribution-"
    name = kind + hashlib.sha256(" ".join(extra).encode()).hexdigest()[:12]
    return Path(quick.once(name, lambda path: _make_distribution(path, *extra)).read_text())


def distribution_for(*systems: str) -> Path:
    """Return the directory of a distribution whose packages are real ones of each system."""
    require_nix()
    name = "distribution-" + "-".join(systems)

    def make_it(path: Path) -> None:
        _make_distribution(path, options=("--systems", *systems))

    return Path(quick.once(name, make_it).read_text())


def _make_distribution(where: Path, *extra: str, options: tuple[str, ...] = ()) -> None:
    """Make the distribution, and write to the file *where* which directory it is."""
    with _alone(), tempfile.TemporaryDirectory(dir=CACHE) as work:
        more = [*(["--with", *extra] if extra else []), *options]
        made = make("distribution", Path(work, "new"), *more)
        for package in made.rglob("package.nix"):
            if WHOLE not in os.environ:
                _make_lean(package)
        where.write_text(str(_keep(made)))


def _make_lean(package: Path) -> None:
    """Let packages whose bulk no test uses be built without it."""
    text, choice = package.read_text(), f'if builtins.match "{_LEAN}" name == null'
    assert text.count(" ./package.sh ") == 1
    chosen = f" ({choice} then ./package.sh else ./lean.sh) "
    package.write_text(text.replace(" ./package.sh ", chosen))
    names = " -o ".join(f"-name '{name}'" for name in _LEFT_OUT)
    script = package.with_name("package.sh").read_text()
    removal = f'find "$out" \\( {names} \\) -prune -exec rm -rf {{}} +\n'
    package.with_name("lean.sh").write_text(script + removal)


def upgraded(name: str, *extra: str) -> Path:
    """Return the distribution with one package repacked as a newer version, with other bytes.

    *extra* are packages beyond the usual ones, as for ``distribution``.
    """
    base = distribution(*extra)
    lock = json.loads((base / "packages.json").read_text())
    package = lock["packages"][name]
    with _alone(), tempfile.TemporaryDirectory(dir=CACHE) as work:
        version = f"{package['version']}+upgraded1"
        store_name = re.sub(r"[^A-Za-z0-9+._-]", "-", f"{name}_{version}.deb")
        deb = _repack(fixed_path_of(package), version, Path(work, store_name))
        package |= {
            "version": version,
            "storeName": store_name,
            "sha256": hashlib.sha256(deb.read_bytes()).hexdigest(),
            "size": deb.stat().st_size,
        }
        fresh = Path(work, "new")
        shutil.copytree(base, fresh)
        (fresh / "packages.json").write_text(json.dumps(lock, indent=1, sort_keys=True) + "\n")
        command = ["nix-store", "--add-fixed", "sha256", str(deb)]
        subprocess.run(command, env=nix_env(), check=True, capture_output=True)
        return _keep(fresh)


def make_project(name: str, directory: Path, base: Path | None = None) -> Path:
    """Make an example project ("hello", "two-packages") in a directory that does not exist yet."""
    return make("project", name, directory, "--distribution", base or distribution())


def use_distribution(project: Path, base: Path) -> None:
    """Point a project at another distribution, lock that and commit it: an update of its input."""
    flake = project / "flake.nix"
    text = re.sub(r'nixpkgs\.url = "[^"]*"', f'nixpkgs.url = "path:{base}"', flake.read_text())
    flake.write_text(text)
    nix("flake", "lock", cwd=project)
    commit(project, "Update nixpkgs")


def commit(project: Path, message: str) -> str:
    """Commit everything in the project and return the commit."""
    git = ["git", "-C", str(project), "-c", "user.name=Test", "-c", "user.email=test@localhost"]
    subprocess.run([*git, "add", "-A"], check=True, capture_output=True)
    subprocess.run([*git, "commit", "-q", "-m", message], check=True, capture_output=True)
    return subprocess.run(
        [*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()


@contextmanager
def _alone() -> Iterator[None]:
    """Let one test process at a time make distributions for this user."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _keep(directory: Path) -> Path:
    """Move a distribution to the place that is named by its content."""
    digest = hashlib.sha256()
    for file in sorted(f for f in directory.rglob("*") if f.is_file()):
        digest.update(f"{file.relative_to(directory)}\0".encode() + file.read_bytes() + b"\0")
    kept = CACHE / "distributions" / digest.hexdigest()[:16]
    if not kept.exists():
        kept.parent.mkdir(exist_ok=True)
        directory.rename(kept)
    return kept


def locked_packages(directory: Path) -> dict[str, dict[str, Any]]:
    """Return what a distribution of one system knows of each package, by name."""
    packages: dict[str, dict[str, Any]] = json.loads((directory / "packages.json").read_text())[
        "packages"
    ]
    return packages


def fixed_path_of(package: Mapping[str, Any]) -> str:
    """Return the store path of a package's file."""
    command = ["nix-store", "--print-fixed-path", "sha256", package["sha256"], package["storeName"]]
    return subprocess.run(
        command, env=nix_env(), check=True, capture_output=True, text=True
    ).stdout.strip()


def _repack(deb: str, version: str, into: Path) -> Path:
    """Write the .deb again as another version, with one more file: the same bytes every time."""
    tree = into.with_suffix(".tree")
    subprocess.run(["dpkg-deb", "-R", deb, str(tree)], check=True)
    control = tree / "DEBIAN" / "control"
    text = re.sub(r"^Version:.*$", f"Version: {version}", control.read_text(), flags=re.MULTILINE)
    control.write_text(text)
    news = tree / "usr" / "share" / "doc" / "upgraded"
    news.parent.mkdir(parents=True, exist_ok=True)
    news.write_text(f"{version}\n")
    env = {**os.environ, "SOURCE_DATE_EPOCH": "1"}
    pack = ["dpkg-deb", "--root-owner-group", "-Zxz", "-z1", "-b", str(tree), str(into)]
    subprocess.run(pack, check=True, env=env, capture_output=True)
    return into
