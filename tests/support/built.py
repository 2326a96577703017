"""Real images, built from the example of two packages once per session and kind."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from atexit import register
from pathlib import Path

from support import seeds
from support.distribution import distribution, make_project


@functools.cache
def workshop() -> Path:
    """A directory of this session's own, for the project, its images and their layers."""
    directory = Path(tempfile.mkdtemp(prefix="nix-seed-tests-"))
    register(shutil.rmtree, directory, ignore_errors=True)
    # Some engines work for another user, who has to get this far.
    directory.chmod(0o755)
    return directory


@functools.cache
def project() -> Path:
    """The example, locked and committed. It is shared: change only a ``fresh_project``."""
    base = distribution()
    return make_project("two-packages", workshop() / "two-packages", base)


def fresh_project(directory: Path) -> Path:
    """A clone of the example at *directory*, to be changed at will."""
    subprocess.run(["git", "clone", "-q", str(project()), str(directory)], check=True)
    return directory


@functools.cache
def layout(kind: str, compressor: str = "zstd") -> Path:
    """The image layout that ``nix-seed build`` makes of the example: ``seed`` or ``run``."""
    path = workshop() / f"{kind}-{compressor}"
    how = ["--kind", kind, "--compressor", compressor, "-o", str(path)]
    seeds.build(project(), *how, cache=workshop() / "cache")
    return path
