"""A real flake's seed: hydrated whole and in part from a real registry, then built offline."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nix_seed.core.errors import InputError
from nix_seed.formats.oci.reference import LayoutReference, Reference
from nix_seed.image.push import push
from nix_seed.registry.open import Stores
from nix_seed.use.hydrate import Hydrated, hydrate
from support import built
from support.distribution import make_project, nix_env
from support.engines import need_root
from support.hydration import verify
from support.registries import docker_registry
from support.seeds import build, nix_seed

pytestmark = pytest.mark.usefixtures("nix_settings")


@pytest.fixture(scope="module")
def project(distribution: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project("two-packages", tmp_path_factory.mktemp("project") / "p", distribution)


@pytest.fixture(scope="module")
def seed(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reference]:
    """The seed of the project, in docker-registry."""
    directory = tmp_path_factory.mktemp("seed")
    layout = directory / "image"
    build(project, "-o", layout, "--tag", "seed", cache=built.layers(directory / "cache"))
    with docker_registry(directory / "registry", password=False) as running:
        target = Reference(running.host, "demo/seed", "v1")
        push(Stores(), LayoutReference(str(layout)), target)
        yield target


@pytest.fixture(scope="module")
def whole(seed: Reference, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Hydrated]:
    """A store with all of the seed, which may be built in."""
    root = tmp_path_factory.mktemp("whole")
    return root, hydrate(Stores(), seed, root)


def build_offline(root: Path, project: Path, *outputs: str) -> list[str]:
    """Build with no network in the store below *root*, and return what was built there."""
    need_root()
    done = subprocess.run(
        ["unshare", "--net", "nix", "--store", str(root), "build", "--offline", "--no-link", "-v"]
        + [f"{project}#{output}" for output in outputs],
        env=nix_env(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith("building '/nix/store")]


def test_all_of_it(whole: tuple[Path, Hydrated], project: Path) -> None:
    root, done = whole
    assert done.nix is not None
    assert os.access(done.nix / "nix", os.X_OK)
    verify(root)
    built = build_offline(root, project, "default", "checks.x86_64-linux.greet")
    assert 2 <= len(built) <= 4, built


def test_only_what_an_output_needs(
    tmp_path: Path, seed: Reference, project: Path, whole: tuple[Path, Hydrated]
) -> None:
    part = hydrate(Stores(), seed, tmp_path / "part", outputs=[f"{project}#packages.libgreet"])
    assert set(part.added) < set(whole[1].added)
    assert part.fetched < whole[1].fetched
    verify(tmp_path / "part")
    assert len(build_offline(tmp_path / "part", project, "libgreet")) == 1
    more = hydrate(Stores(), seed, tmp_path / "part", outputs=[f"{project}#checks"])
    assert set(more.skipped) >= set(part.added)
    assert build_offline(tmp_path / "part", project, "checks.x86_64-linux.greet")
    verify(tmp_path / "part")


def test_an_output_that_is_not_there(tmp_path: Path, seed: Reference, project: Path) -> None:
    with pytest.raises(InputError, match=r"the flake has no output checks\.nothing") as caught:
        hydrate(Stores(), seed, tmp_path, outputs=[f"{project}#checks.nothing"])
    assert "checks.greet" in (caught.value.hint or "")
    # Evaluation reads the flake's inputs. Nothing else was fetched for a name that is wrong.
    store = tmp_path / "nix/store"
    assert list(store.iterdir())
    assert not list(store.glob("*/bin")), "neither a shell nor a compiler"


def test_a_darwin_image_into_a_root(tmp_path: Path, project: Path) -> None:
    """macOS' store paths are unpacked as a Mac would, for Nix to verify with its case hack."""
    layout = tmp_path / "image"
    darwin = ["--system", "x86_64-darwin"]
    ran = nix_seed(
        "build", project, *darwin, "-o", layout, "--no-prove",
        cache=tmp_path / "cache",
        env=nix_env(extra_platforms="x86_64-darwin"),
    )  # fmt: skip
    assert ran.code == 0, ran.err
    reference = LayoutReference(str(layout))
    root = tmp_path / "root"
    done = hydrate(Stores(), reference, root, system="x86_64-darwin", case_hack=True)
    assert done.added
    verify(root, use_case_hack="true")
    # Linux's headers have names that differ only in case: xt_MARK.h and xt_mark.h.
    assert list((root / "nix/store").rglob("xt_*~nix~case~hack~1"))
