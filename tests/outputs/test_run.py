"""``nix-seed run`` takes what is kept and keeps what it builds, with no network but loopback."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from nix_seed.formats.nix.store_path import StorePath
from nix_seed.formats.oci.reference import LayoutReference, Reference
from nix_seed.image.push import push
from nix_seed.outputs.kept import find_kept
from nix_seed.registry.open import Stores
from support import engines
from support.distribution import nix_env
from support.engines import debian_nix
from support.mounts import need_fuse
from support.output_world import Twenty, built_names, changed, taken_names, twenty
from support.registries import docker_registry
from support.seeds import Ran, remove_tree


@pytest.fixture(scope="module")
def world() -> Twenty:
    engines.need("bwrap", "bubblewrap")
    return twenty()


@pytest.fixture(scope="module")
def registry(world: Twenty, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry with the seed, and all that was built of the project."""
    with docker_registry(tmp_path_factory.mktemp("registry"), password=False) as running:
        target = f"{running.host}/twenty"
        seed = LayoutReference(world.seed.removeprefix("oci:"))
        push(Stores(), seed, Reference.parse(f"{target}:seed"))
        done = world.push(target)
        assert done.code == 0, done.err
        yield target


def run(world: Twenty, project: Path, *arguments: str | Path, **env: str) -> Ran:
    where: list[str | Path] = ["--no-verify", "--policy", world.policy, "--flake", project]
    where += ["--store", project.parent / "host", "--key", world.key, "--json", *arguments]
    return world.run("run", *where, "--", "nix", "build", "-L", ".#p20", env=env)


def said(done: Ran) -> dict[str, Any]:
    assert done.code == 0, done.err
    value: dict[str, Any] = json.loads(done.out)
    return value


def test_only_what_changed_is_built_and_that_is_kept(
    world: Twenty, registry: str, tmp_path: Path
) -> None:
    project = changed(world.project, tmp_path / "project", "p7")
    seed = ["--image", world.seed, "--engine", "bwrap", "--keep", registry]
    done = run(world, project, *seed)
    assert built_names(done.err) == ["p20", "p7"]
    first = said(done)
    assert len(first["taken"]["paths"]) == 18
    # What was taken is nobody's own: of that nothing is said. What a run brought is not either.
    assert sorted(path[44:] for path in first["kept"]["pushed"]) == ["p20", "p7"]
    how: list[str | Path] = ["--flake", project, "--store", project.parent / "host"]
    how += ["--policy", world.policy, "--image", world.seed, "--key", world.key]
    later = world.run("outputs", "push", "--to", registry, *how)
    assert (later.code, later.err) == (0, ANY)
    assert "20 paths of this commit came into the store from elsewhere" in later.out
    store = Stores().open(Reference.parse(registry))
    for path in map(StorePath.parse, first["kept"]["pushed"]):
        # How long it took to build goes with it, for whoever takes it.
        [kept] = find_kept(store, path.hash_part).kept
        assert 0 < (kept.build_millis or 0) < 60_000
    again = run(world, changed(project, tmp_path / "other/project"), *seed)
    assert built_names(again.err) == []
    assert said(again)["taken"]["paths"]
    assert "p20" in taken_names(again.err)


def test_in_a_mounted_seed_too(world: Twenty, registry: str, tmp_path: Path) -> None:
    need_fuse()
    project = changed(world.project, tmp_path / "project", "p8")
    cache = str(tmp_path / "cache")
    done = run(
        world, project, "--image", f"{registry}:seed", "--outputs", registry, NIX_SEED_CACHE=cache
    )
    assert "unpacked, not mounted" not in done.err
    assert built_names(done.err) == ["p20", "p8"]
    assert said(done)["kept"] is None


@pytest.mark.parametrize("engine", ["podman", "docker"])
def test_in_a_container_too(engine: str, world: Twenty, registry: str, tmp_path: Path) -> None:
    """In a network that the engine made."""
    project = changed(world.project, tmp_path / "project", "p9")
    with engines.started(engine, tmp_path) as (name, env):
        how = ["--image", world.seed, "--engine", name, "--outputs", registry]
        done = run(world, project, *how, **env)
    assert built_names(done.err) == ["p10", "p20", "p9"]
    assert len(said(done)["taken"]["paths"]) == 17


@pytest.mark.parametrize("suite", ["the system's", "sid"])
def test_on_the_machine_itself_too(
    suite: str, world: Twenty, registry: str, tmp_path: Path
) -> None:
    """A fresh store, no network but the cache on loopback, and Nix 2.8 or the newest."""
    project = changed(world.project, tmp_path / "project", "p6")
    where: list[str | Path] = ["--policy", world.policy, "--flake", project]
    where += ["--outputs", registry]
    store = world.fresh_store(tmp_path / "fresh")
    env = {"NIX_CONFIG": nix_env(sandbox_paths="")["NIX_CONFIG"]}
    if suite != "the system's":
        env["PATH"] = f"{debian_nix(suite)}:{os.environ['PATH']}"
    build = ["nix", "build", "--store", str(store), "--no-link", "-L", ".#p20"]
    done = world.run("run", "--engine", "host", *where, "--", *build, env=env)
    assert done.code == 0, done.err
    assert built_names(done.err) == ["p20", "p6"]
    assert "18 outputs taken" in done.err
    assert "host: no network, " in done.err
    remove_tree(store)


def test_a_tree_with_changes_is_built_and_stays_here(
    world: Twenty, registry: str, tmp_path: Path
) -> None:
    project = changed(world.project, tmp_path / "project")
    (project / "src/p1").write_text("not committed\n")
    done = run(world, project, "--image", world.seed, "--keep", registry)
    assert built_names(done.err) == ["p1", "p20"]
    assert said(done)["kept"] is None
    assert "not kept: " in done.err
    assert "has changes that no commit holds" in done.err


def test_a_registry_that_is_gone_stops_nothing(world: Twenty, tmp_path: Path) -> None:
    project = changed(world.project, tmp_path / "project")
    done = run(world, project, "--image", world.seed, "--keep", "127.0.0.1:9/gone")
    assert len(built_names(done.err)) == 20
    # Nothing is kept; what was built is here, and is told.
    assert done.code == 3
    assert done.err.index("may not be kept: ") < done.err.index("building '")
    value = json.loads(done.out)
    assert value["kept"] is None
    assert list(value["links"]) == [str(project / "result")]
    assert any("127.0.0.1:9" in reason for reason in value["taken"]["reasons"])


@pytest.mark.parametrize(
    ("how", "code", "words"),
    [
        (["--key", "nosuch.key"], 2, "there is no key nosuch.key"),
        (["--builder", "bob"], 2, "alice, not bob"),
        (["--source", "https://other.example/x"], 2, "not from https://other.example/x"),
        (["--network"], 2, "--keep has no meaning with --network"),
        (["--out", "there"], 2, "--keep has no meaning with --out"),
        (["--keep", "oci:/proc/kept"], 3, "/proc/kept"),
    ],
)
def test_what_cannot_be_kept_is_refused_before_it_is_built(
    how: list[str], code: int, words: str, world: Twenty, tmp_path: Path
) -> None:
    project = changed(world.project, tmp_path / "project", "p3")
    done = run(world, project, "--image", world.seed, "--keep", f"oci:{tmp_path / 'kept'}", *how)
    assert (done.code, built_names(done.err)) == (code, [])
    assert words in done.out + done.err


def test_who_may_only_read_is_refused_before_it_is_built(world: Twenty, tmp_path: Path) -> None:
    project = changed(world.project, tmp_path / "project", "p3")
    with docker_registry(tmp_path / "registry") as running:
        done = run(world, project, "--image", world.seed, "--keep", f"{running.host}/kept")
    assert (done.code, built_names(done.err)) == (3, [])
    assert "log in with" in done.out


def test_without_a_policy_nothing_is_taken(world: Twenty, registry: str, tmp_path: Path) -> None:
    project = changed(world.project, tmp_path / "project")
    where: list[str | Path] = ["--image", world.seed, "--flake", project]
    where += ["--outputs", registry]
    done = world.run("run", *where, "--", "true")
    assert done.code == 2
    assert "nothing says whose outputs may be taken" in done.err
