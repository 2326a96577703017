"""A day in the life of a user, played by act: every sentence of the story is a step of its own.

The project is a small flake for two systems. Its workflow is what ``nix-seed init`` writes. The
first push runs on a machine that has the network (a store in which everything can be built); every
later event on a fresh one, whose Nix store is empty: what it builds, it builds with a seed.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.act import Outcome
from support.distribution import commit, make_project
from support.engines import need_root
from support.forge import Forge, Stored, forge
from support.seeds import edit

pytestmark = [
    pytest.mark.interop,
    pytest.mark.timeout(3600),  # seven programs may have to be built first
    # The authority that Fulcio makes up is of the country "USA".
    pytest.mark.filterwarnings("ignore:Attribute's length must be:UserWarning"),
]

SYSTEMS = ("aarch64-linux", "x86_64-linux")
_WORKFLOW = """\
name: Seed
on: [push, pull_request]
permissions: {{}}
jobs:
  seed:
    uses: 0compute/nix-seed/.github/workflows/seed.yml@v0.1.0
    permissions: {{contents: read, packages: write, id-token: write}}
    with:
      systems: '["x86_64-linux", "aarch64-linux"]'
      registry: {host}
      sigstore: {sigstore}
  build:
    needs: seed
    if: ${{{{ !cancelled() }}}}
    runs-on: ubuntu-24.04
    steps:
      - uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1
      - uses: 0compute/nix-seed/use@v0.1.0
        id: use
        with:
          registry: {host}
      - run: unshare --net nix build --print-build-logs
      - run: ./result/bin/hello
"""
_INSIDE = """\
name: In the seed
on: push
permissions: {{}}
jobs:
  inside:
    runs-on: ubuntu-24.04
    container:
      image: {seed}:latest
    steps:
      - uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1
      - run: cat /proc/net/dev
      - run: nix build --print-build-logs
      - run: ./result/bin/hello
"""
_BEFORE = "doCheck = true;"
_FRAGILE = """(pkgs.runCommand "fragile" { } (
    if pkgs.system == "aarch64-linux" then "echo no luck on ARM64; exit 1" else "mkdir $out"))"""


@pytest.fixture(scope="module")
def place(distribution: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    need_root()
    root = tmp_path_factory.mktemp("story")
    project = make_project("hello", root / "project", distribution)
    with forge(root, project) as running:
        yield running


@dataclass(frozen=True)
class Step:
    """One event: what it came to, and what the registry held before and after it."""

    outcome: Outcome
    before: Stored
    after: Stored
    writes: int

    @property
    def uploaded(self) -> int:
        """How many bytes of blobs came to lie in the registry."""
        return sum(self.after.since(self.before).values())


def play(place: Forge, name: str, **how: object) -> Step:
    before, writes = place.stored(), place.writes()
    outcome: Outcome = getattr(place, name)(**how)
    return Step(outcome, before, place.stored(), place.writes() - writes)


def fresh(place: Forge) -> tuple[str, ...]:
    """A namespace in which this machine is a new one: its Nix store is empty."""
    store = place.root / f"nix-{place.runs}"
    store.mkdir()
    mount = f'mount --bind "{store}" /nix && exec "$@"'
    return ("unshare", "--mount", "--propagation", "private", "sh", "-c", mount, "sh")


def read(seed: str) -> dict[str, Any]:
    """What the registry shows anyone under a reference."""
    command = ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{seed}"]
    shown: dict[str, Any] = json.loads(subprocess.check_output(command))
    return shown


@pytest.fixture(scope="module")
def first(place: Forge) -> Step:
    """The maintainer adds the workflow, and pushes."""
    workflows = place.project / ".github/workflows"
    workflows.mkdir(parents=True)
    where = {"host": place.registry.host, "sigstore": place.root / "sigstore.json"}
    (workflows / "seed.yml").write_text(_WORKFLOW.format(**where))
    commit(place.project, "Add the workflow")
    return play(place, "push")


def test_the_first_push_builds_a_seed_for_every_system(first: Step) -> None:
    first.outcome.check()
    for system in SYSTEMS:
        assert first.outcome.job(f"seed ({system})").result == "success"


def test_the_first_push_publishes_and_promotes(place: Forge, first: Step) -> None:
    index = read(f"{place.seed}:latest")
    assert index["mediaType"] == "application/vnd.oci.image.index.v1+json"
    assert sorted(child["platform"]["architecture"] for child in index["manifests"]) == [
        "amd64",
        "arm64",
    ]
    sha = commit_of(place)
    assert first.after.tags[sha] == first.after.tags["latest"]
    for system in SYSTEMS:
        assert f"{sha}-{system}" in first.after.tags


def test_plain_docker_builds_in_the_seed_with_no_network(place: Forge, first: Step) -> None:
    """A job's container, with no tool of ours: the runner pulls the image and starts steps in it."""
    inside = place.root / "inside"
    inside.mkdir()
    (inside / "inside.yml").write_text(_INSIDE.format(seed=place.seed))
    outcome = place.push(workflow=str(inside / "inside.yml")).check()
    said = outcome.job("inside").said
    assert [line.split(":")[0].strip() for line in said.splitlines() if ": " in line][:1] == ["lo"]
    assert "building '/nix/store/" in said
    assert "Hello" in said


@pytest.fixture(scope="module")
def source_only(place: Forge, first: Step) -> Step:
    """A commit that changes the project's code alone; the machine is a new one."""
    edit(place.project, "Makefile", "Hello", "Good morning")
    edit(place.project, "src/greeting.c", "Hello", "Good morning")
    return play(place, "push", prefix=fresh(place))


def test_a_commit_of_source_builds_no_seed(source_only: Step) -> None:
    source_only.outcome.check()
    assert source_only.uploaded < 10_000, "an index and attestations are small"


def test_a_commit_of_source_builds_offline_in_its_seed(source_only: Step) -> None:
    said = source_only.outcome.job("build").said
    assert "Good morning" in said


@pytest.fixture(scope="module")
def dependency(place: Forge, source_only: Step) -> Step:
    """A commit that adds a dependency; the seeds are built where they can be."""
    edit(place.project, "hello.nix", _BEFORE, f"{_BEFORE} buildInputs = [ pkgs.openssl ];")
    return play(place, "push")


def test_a_new_dependency_builds_new_seeds(dependency: Step, first: Step) -> None:
    dependency.outcome.check()
    assert dependency.after.tags["latest"] != first.after.tags["latest"]


def test_a_new_dependency_sends_only_what_changed(dependency: Step, first: Step) -> None:
    assert 0 < dependency.uploaded < first.uploaded / 4


@pytest.fixture(scope="module")
def from_a_fork(place: Forge, dependency: Step) -> Step:
    """A pull request from a fork, whose jobs have a token that may only read; a new machine."""
    return play(place, "pull_request", prefix=fresh(place))


def test_a_forks_pull_request_is_green(from_a_fork: Step) -> None:
    from_a_fork.outcome.check()


def test_a_forks_pull_request_writes_nothing(from_a_fork: Step) -> None:
    assert from_a_fork.writes == 0
    assert from_a_fork.after == from_a_fork.before


@pytest.fixture(scope="module")
def broken(place: Forge, from_a_fork: Step) -> Step:
    """A commit that adds what cannot be built for one of the systems."""
    edit(place.project, "hello.nix", "pkgs.openssl", f"pkgs.openssl {_FRAGILE}")
    return play(place, "push")


def test_a_failing_system_blocks_latest(broken: Step) -> None:
    broken.outcome.check(green=False)
    assert broken.after.tags["latest"] == broken.before.tags["latest"]


def test_a_failing_system_is_named(broken: Step) -> None:
    assert "aarch64-linux" in broken.outcome.job("promote").said


def commit_of(place: Forge) -> str:
    command = ["git", "-C", str(place.project), "rev-parse", "HEAD"]
    return subprocess.check_output(command, text=True).strip()
