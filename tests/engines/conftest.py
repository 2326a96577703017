"""One image and one of each engine for all tests of this directory."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nix_seed.formats.oci.reference import LayoutReference
from nix_seed.image.read.unpack import unpacked
from nix_seed.registry.layout import Image, open_image
from nix_seed.use.engines import choose_engine
from nix_seed.use.engines.base import Engine
from support import built, engines

ENGINES = ("bwrap", "podman", "docker")


@pytest.fixture(scope="session")
def layout() -> Path:
    """The layout of a seed, built for the example of two packages.

    ``NIX_SEED_TEST_IMAGE`` names another one, such as a seed of one's own.
    """
    given = os.environ.get("NIX_SEED_TEST_IMAGE")
    return Path(given.removeprefix("oci:")) if given else built.layout("seed")


@pytest.fixture(scope="session")
def image(layout: Path) -> Image:
    return open_image(LayoutReference(str(layout)))


@pytest.fixture(scope="session")
def run_image() -> Image:
    """The image to ship of the same project: small, with a shell and hardly more."""
    return open_image(LayoutReference(str(built.layout("run"))))


@pytest.fixture(scope="session")
def root(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The seed unpacked, where bubblewrap keeps it too. It is shared: nobody writes to it."""
    return unpacked(image, tmp_path_factory.getbasetemp() / "cache" / "roots")


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@pytest.fixture(scope="session")
def podman_here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[engines.Started]:
    """One podman for all: it takes longest over a seed's layers, and takes them once."""
    with engines.podman(tmp_path_factory.mktemp("podman")) as running:
        yield running


@pytest.fixture(scope="session", params=ENGINES)
def started(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, dict[str, str]]]:
    """Each engine in turn, started where it needs a daemon, with the environment it needs."""
    if request.param == "podman":
        yield "podman", dict(request.getfixturevalue("podman_here").env)
        return
    with engines.started(request.param, tmp_path_factory.mktemp(request.param)) as given:
        yield given


@pytest.fixture
def engine(
    started: tuple[str, dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    name, environment = started
    cache = tmp_path_factory.getbasetemp() / "cache"
    with _environment(environment):
        yield choose_engine(name, cache)


@pytest.fixture
def flake(tmp_path: Path) -> Path:
    """A flake in a git repository: two packages, one from the other, that need only /bin/sh."""
    source = tmp_path / "project with spaces, and: more"
    source.mkdir()
    (source / "flake.nix").write_text(FLAKE)
    (source / "words").write_text("first words\n")
    for command in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", *command], cwd=source, check=True)
    return source


FLAKE = """
{
  outputs = { self }:
    let
      make = name: script: derivation {
        inherit name;
        system = "x86_64-linux";
        builder = "/bin/sh";
        PATH = "/usr/bin:/bin";
        args = [ "-e" "-c" script ];
      };
      library = make "library" "mkdir $out; cat ${./words} > $out/words";
      program = make "program" "mkdir $out; ln -s ${library}/words $out/linked; id -u > $out/uid";
    in
    {
      packages.x86_64-linux = { inherit library; default = program; };
      apps.x86_64-linux.default = { type = "app"; program = "${program}/linked"; };
      checks.x86_64-linux.words = make "words-check" "cat ${library}/words > $out";
    };
}
"""
