"""Twenty packages, one changed: real Nix, old and new, on a fresh store in front of a registry."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from nix_seed.formats.oci.reference import Reference
from nix_seed.outputs.clean import clean_outputs
from nix_seed.outputs.kept import forget_newest
from nix_seed.registry.open import Stores
from support.distribution import commit, nix
from support.engines import debian_nix
from support.faults import Fault, fault_proxy
from support.output_world import NUMBERS, Twenty, built_names, changed, taken_names, twenty
from support.registries import docker_registry
from support.seeds import remove_tree

ALL = sorted(f"p{number}" for number in NUMBERS)


@pytest.fixture(scope="module")
def world() -> Twenty:
    return twenty()


@pytest.fixture(scope="module")
def kept(world: Twenty, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry's repository with all that was built of the project."""
    with docker_registry(tmp_path_factory.mktemp("registry"), password=False) as running:
        target = f"{running.host}/twenty"
        done = world.push(target)
        assert done.code == 0, done.err
        assert sorted(path[44:] for path in json.loads(done.out)["pushed"]) == ALL
        yield target


@pytest.fixture
def store(world: Twenty, tmp_path: Path) -> Iterator[Path]:
    where = tmp_path / "fresh"
    yield world.fresh_store(where)
    remove_tree(where)


@pytest.mark.parametrize("suite", ["the system's", "trixie", "sid"])
def test_only_what_changed_is_built(
    suite: str, world: Twenty, kept: str, store: Path, tmp_path: Path
) -> None:
    project = changed(world.project, tmp_path / "clone", "p3")
    bin_dir = None if suite == "the system's" else debian_nix(suite)
    with world.serving(kept, tmp_path / "served") as served:
        done = served.build(f"{project}#p20", store, bin_dir)
    assert done.returncode == 0, done.stderr
    assert built_names(done.stderr) == ["p20", "p3"]
    assert taken_names(done.stderr) == sorted({*ALL} - {"p3", "p20"})
    told = (tmp_path / "served").read_text()
    assert told.count("taken: /nix/store/") == 18
    assert "on the word of alice" in told


def test_pushing_again_sends_nothing(world: Twenty, kept: str) -> None:
    done = world.push(kept)
    said = json.loads(done.out)
    assert (said["pushed"], said["sent"], said["statements"]) == ([], 0, [])
    assert sorted(path[44:] for path in said["known"]) == ALL


def test_what_a_commit_left_as_it_was_is_said_of_that_commit_too(
    world: Twenty, kept: str, tmp_path: Path
) -> None:
    project = changed(world.project, tmp_path / "clone", "p2")
    nix("build", "--no-link", f"{project}#p20")
    done = world.push(kept, "--flake", project)
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert sorted(path[44:] for path in said["pushed"]) == ["p2", "p20"]
    assert (len(said["known"]), len(said["statements"])) == (18, 1)
    (project / "README").write_text("nothing is built of this\n")
    commit(project, "Say something")
    later = json.loads(world.push(kept, "--flake", project).out)
    assert (later["pushed"], len(later["known"]), len(later["statements"])) == ([], 20, 1)
    how: list[str | Path] = ["--from", kept, "--policy", world.policy, "--json"]
    for each in (said, later):
        checked = world.run("outputs", "check", each["commit"], *how)
        assert sorted(out["path"][44:] for out in json.loads(checked.out)["outputs"]) == ALL


def test_a_dirty_tree_is_not_pushed(world: Twenty, kept: str, tmp_path: Path) -> None:
    project = changed(world.project, tmp_path / "clone")
    (project / "src/p1").write_text("not committed\n")
    done = world.push(kept, "--flake", project)
    assert done.code == 2
    assert "stays in this machine's store, and is not pushed" in done.err
    assert "src/p1" in done.err


def test_without_its_registry_nix_builds_and_the_server_says_why(
    world: Twenty, store: Path, tmp_path: Path
) -> None:
    with world.serving("127.0.0.1:9/gone", tmp_path / "served") as served:
        done = served.build(f"{world.project}#p2", store)
    assert done.returncode == 0, done.stderr
    assert built_names(done.stderr) == ["p2"]
    assert "not taken: " in (tmp_path / "served").read_text()
    assert "127.0.0.1:9" in (tmp_path / "served").read_text()


def test_a_registry_that_refuses_halfway_stops_no_build(
    world: Twenty, store: Path, tmp_path: Path
) -> None:
    """The first blob is the builder's word; from then on the token is good for nothing."""
    with (
        docker_registry(tmp_path / "registry", password=False) as running,
        fault_proxy(running.host) as proxy,
    ):
        target = f"{proxy.host}/twenty"
        pushed = world.push(target)
        assert pushed.code == 0, pushed.err
        # Else so small a NAR came with its commit's document.
        forget_newest(Stores().open(Reference.parse(target)))
        proxy.faults.append(Fault("GET", "/blobs/", times=None, skip=1, status=403))
        with world.serving(target, tmp_path / "served") as served:
            done = served.build(f"{world.project}#p4", store)
    assert done.returncode == 0, done.stderr
    assert (built_names(done.stderr), taken_names(done.stderr)) == (["p4"], ["p4"])
    assert "on the word of" not in (tmp_path / "served").read_text()
    assert "403" in (tmp_path / "served").read_text()


def test_another_policy_takes_nothing(
    world: Twenty, kept: str, store: Path, tmp_path: Path
) -> None:
    policy = tmp_path / "trust.toml"
    text = world.policy.read_text()
    made = world.run("key", "generate", tmp_path / "other.key")
    assert made.code == 0, made.err
    public = (tmp_path / "other.pub").read_text()
    start, end = text.index("-----BEGIN"), text.index('"""\n[[logs]]')
    policy.write_text(text[:start] + public + text[end:])
    with world.serving(kept, tmp_path / "served", "--policy", policy) as served:
        done = served.build(f"{world.project}#p2", store)
    assert built_names(done.stderr) == ["p2"]
    assert "p2: no builder of the policy has said" in (tmp_path / "served").read_text()


def test_none_serves_nothing(world: Twenty, kept: str, tmp_path: Path) -> None:
    policy = tmp_path / "trust.toml"
    policy.write_text(world.policy.read_text().replace('outputs = "own"', 'outputs = "none"'))
    done = world.run("outputs", "serve", kept, "--policy", policy)
    assert done.code == 2
    assert "outputs is none" in done.err


def test_a_layout_on_disk_serves_as_well(world: Twenty, store: Path, tmp_path: Path) -> None:
    target = f"oci:{tmp_path / 'kept'}"
    pushed = world.push(target)
    assert pushed.code == 0, pushed.err
    with world.serving(target, tmp_path / "served") as served:
        done = served.build(f"{world.project}#p20", store)
        summary = tmp_path / "summary.md"
        env = {"NIX_SEED_SERVED": served.url, "GITHUB_ACTIONS": "true"}
        env |= {"GITHUB_STEP_SUMMARY": str(summary)}
        told = world.run("ci", "served", env=env)
    assert done.returncode == 0, done.stderr
    assert built_names(done.stderr) == []
    taken = taken_names(done.stderr)
    assert "p20" in taken
    # A job's last step says what the others took.
    assert told.code == 0, told.err
    assert f"{len(taken)} outputs taken, " in told.out
    assert f"{len(taken)} outputs taken, " in summary.read_text()
    for gone in (served.url, "http://example.org:80", "http://127.0.0.1:99999", ""):
        told = world.run("ci", "served", env=env | {"NIX_SEED_SERVED": gone})
        assert told.code == 0, told.err
        assert "no kept outputs were served in this job" in told.out


def test_a_machine_without_git_or_a_commit_is_told(world: Twenty, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    subprocess.run(["git", "init", "-q", str(tmp_path / "bare")], check=True)
    done = world.push(f"oci:{tmp_path / 'kept'}", "--flake", tmp_path / "bare")
    assert done.code == 2
    assert not (tmp_path / "kept").exists()


def test_old_outputs_are_cleaned_from_a_registry(world: Twenty, tmp_path: Path) -> None:
    with docker_registry(tmp_path / "registry", password=False) as running:
        target = f"{running.host}/cleaned"
        assert world.push(target).code == 0
        ran = world.run("outputs", "clean", target, "--json")
        assert json.loads(ran.out)["kept"] == 20, ran.err
        time.sleep(1.1)
        store = Stores().open(Reference.parse(target))
        assert clean_outputs(store, datetime.now(UTC)).dropped == 20
        again = world.push(target)
        said = json.loads(again.out)
        # Its blobs are there until the registry collects them.
        assert (len(said["pushed"]), again.code) == (20, 0), again.err
