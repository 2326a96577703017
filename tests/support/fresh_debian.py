"""Containers that hold Debian and nothing else, for tests of what a new user types."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import engines, quick
from support.apt import CACHE
from support.programs import need
from support.readme import ROOT

_SUITE = "bookworm"
# What every Debian has that one works on; the rest README's own commands install.
_DEBIAN = "make,git,ca-certificates,python3-venv,pipx"
_SECONDS = 900


@dataclass(frozen=True)
class Container:
    """A root directory that each command finds as the one before left it."""

    root: Path
    podman: tuple[str, ...]

    def run(self, script: str, place: str = "/root") -> str:
        """Run *script*, which must succeed, and return what it printed."""
        command = [*self.podman, "--workdir", place, "--rootfs", str(self.root)]
        done = subprocess.run(
            [*command, "sh", "-ec", script],
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
        )
        if "Failed to fetch" in done.stderr or "error sending request" in done.stderr:
            pytest.skip("needs a package index within reach")
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout


def _debian() -> Path:
    """Return the tar of a fresh Debian, made once from the mirror that this machine uses."""
    need("mmdebstrap")
    made = CACHE / f"debian-{_SUITE}-{_DEBIAN.replace(',', '-')}.tar"
    quick.once("debian", lambda _: _make_debian(made))
    return made


def _make_debian(made: Path) -> None:
    if not made.exists():
        sources = [str(path) for path in Path("/etc/apt").glob("sources.list*/*.sources")]
        options = [f"--aptopt={path}" for path in Path("/etc/apt/apt.conf.d").glob("99*")]
        command = ["mmdebstrap", "--variant=apt", f"--include={_DEBIAN}", *options]
        partial = made.with_suffix(".partial.tar")
        made.parent.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [*command, _SUITE, str(partial), *sources], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            pytest.skip(f"needs a Debian mirror: {done.stderr.strip().splitlines()[-1:]}")
        partial.rename(made)


def _as_this_machine() -> list[str]:
    """How this machine reaches package indexes: their certificates, and pip's own settings."""
    places = ["/etc/ssl/certs", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates"]
    there = [place for place in (*places, "/etc/pip.conf") if Path(place).exists()]
    names = [name for name in os.environ if name.startswith(("PIP_", "UV_", "SSL_CERT_"))]
    volumes = [part for place in there for part in ("--volume", f"{place}:{place}:ro")]
    return [*volumes, *(part for name in names for part in ("--env", name))]


@contextmanager
def fresh_debian(directory: Path) -> Iterator[Container]:
    """A fresh Debian in *directory*, with a wheel of this checkout in ``/root/wheels``."""
    need("uv")
    root = directory / "root"
    root.mkdir()
    with engines.podman(directory) as started:
        subprocess.run(["tar", "-C", root, "-xf", _debian()], check=True)
        wheels = root / "root/wheels"
        build = ["uv", "build", "--wheel", "--no-config", "-q", "-o", str(wheels), str(ROOT)]
        subprocess.run(build, check=True)
        given = [started.env[f"NIX_SEED_PODMAN_{kind}"].split() for kind in ("ARGS", "RUN_ARGS")]
        command = ["podman", *given[0], "run", "--rm", "--network", "host", "--privileged"]
        command += [*given[1], *_as_this_machine(), "--env", "HOME=/root", "--tz", "UTC"]
        yield Container(root, tuple(command))
        subprocess.run(["chmod", "-R", "u+w", root], check=False)
        shutil.rmtree(root, ignore_errors=True)
