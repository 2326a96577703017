"""Real images, built from the example of two packages once per run and kind."""

from __future__ import annotations

import subprocess
from pathlib import Path

from support import quick, seeds
from support.distribution import distribution, make_project


def workshop() -> Path:
    """A directory of this run's own, for the project, its images and their layers."""
    return quick.root()


def project() -> Path:
    """The example, locked and committed. It is shared: change only a ``fresh_project``."""
    return quick.once("two-packages", _project)


def _project(path: Path) -> None:
    make_project("two-packages", path, distribution())


def fresh_project(directory: Path) -> Path:
    """A clone of the example at *directory*, to be changed at will."""
    subprocess.run(["git", "clone", "-q", str(project()), str(directory)], check=True)
    return directory


def layout(kind: str, compressor: str = "zstd") -> Path:
    """The image layout that ``nix-seed build`` makes of the example: ``seed`` or ``run``."""

    def build(path: Path) -> None:
        how = ["--kind", kind, "--compressor", compressor, "-o", str(path)]
        seeds.build(source, *how, cache=path.parent / "cache")

    source = project()
    return quick.once(f"{kind}-{compressor}", build)
