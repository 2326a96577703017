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


def layers(cache: Path) -> Path:
    """Fill *cache*, unless it is there, with the layers of the examples' seeds; return it.

    For tests in which it does not matter that each is made: that takes seconds of compressing.
    """
    made = quick.once("layers", _layers)
    if not cache.exists():
        cache.parent.mkdir(parents=True, exist_ok=True)
        link(made, cache)
    return cache


def link(made: Path, to: Path) -> None:
    """Make *to* what *made*, which has a layer cache, is: by hard links, where files allow them.

    Blobs are never written to, only removed; a record's time may be that of another's use.
    """
    subprocess.run(["cp", "-al", str(made), str(to)], check=True)
    for each in to.rglob("altered-trees"):
        each.unlink()


def _layers(path: Path) -> None:
    for name in ("hello", "two-packages"):
        source = path.with_name(f"{name}-of-layers")
        make_project(name, source, distribution())
        image = path.with_name(f"{name}-seed")
        seeds.build(source, "-o", image, cache=path)
        seeds.remove_tree(source)
        seeds.remove_tree(image)


_SMALL = """
      packages.${system} = {
        default = pkgs.runCommand "greeting" { src = ./greeting; } "cp $src $out";
        tools = pkgs.runCommand "tools" { packages = [ pkgs.gnumake ]; } "mkdir $out";
      };
"""


def small_project(directory: Path, base: Path) -> Path:
    """A flake on *base* without a compiler: its seed is made in half the time of the example's."""
    return seeds.write_project(directory, base, _SMALL, {"greeting": "Hello, World!\n"})


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
