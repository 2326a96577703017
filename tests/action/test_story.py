"""A day in the life of a user, played by act: every sentence of the story is a step of its own.

The project is a small flake for two systems. Its workflow is what ``nix-seed init`` writes. The
first push runs on a machine that has the network (a store in which everything can be built); every
later event on a fresh one, whose Nix store is empty: what it builds, it builds with a seed.
"""

from __future__ import annotations

import base64
import json
import re
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
from support.github import REPOSITORY
from support.seeds import Ran, edit, nix_seed
from support.steps import ROOT

pytestmark = [
    pytest.mark.interop,
    pytest.mark.timeout(3600),  # seven programs may have to be built first
    # The authority that Fulcio makes up is of the country "USA".
    pytest.mark.filterwarnings("ignore:Attribute's length must be:UserWarning"),
]

SYSTEMS = ("aarch64-linux", "x86_64-linux")
# What a maintainer adds to the workflow: the build itself, cut off from every network.
_BUILD = """\
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
    """A namespace in which this machine is a new one: its Nix store is empty.

    Installing Nix leaves a store that was opened once. Two jobs that both open one for the first
    time can meet: the one that comes second finds a link there that it was about to make.
    """
    store = place.root / f"nix-{place.runs}"
    store.mkdir()
    install = f'mount --bind "{store}" /nix && nix-store --init && exec "$@"'
    return ("unshare", "--mount", "--propagation", "private", "sh", "-c", install, "sh")


def read(seed: str) -> dict[str, Any]:
    """What the registry shows anyone under a reference."""
    command = ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{seed}"]
    shown: dict[str, Any] = json.loads(subprocess.check_output(command))
    return shown


@pytest.fixture(scope="module")
def initialised(place: Forge) -> Path:
    """The maintainer runs ``nix-seed init``, says yes, and commits what it wrote.

    Then the files are pointed at this forge: its registry, its Sigstore, its issuer of tokens. On
    GitHub they stay as they are.
    """
    add = ["git", "-C", str(place.project), "remote", "add", "origin"]
    subprocess.run([*add, f"https://github.com/{REPOSITORY}"], check=True)
    systems = [word for system in SYSTEMS for word in ("--system", system)]
    ran = nix_seed("init", place.project, *systems, "--yes", cache=place.root / "cache")
    assert ran.code == 0, ran.err
    workflow = place.project / ".github/workflows/seed.yml"
    host = f"registry: {place.registry.host}"
    sigstore = f"sigstore: {place.root / 'sigstore.json'}"
    replace(workflow, "      systems:", f"      {host}\n      {sigstore}\n      systems:")
    replace(workflow, "          registry_token:", f"          {host}\n          registry_token:")
    workflow.write_text(workflow.read_text() + _BUILD)
    policy = place.project / "trust.toml"
    issuer = place.sigstore.workflows.url
    replace(policy, "https://token.actions.githubusercontent.com", issuer, times=2)
    text = policy.read_text()
    before, after = text.index("# Sigstore's public log"), text.index("# Who releases")
    policy.write_text(text[:before] + log_of(place) + text[after:])
    (place.project / "trusted_root.json").write_bytes(place.sigstore.trusted_root())
    commit(place.project, "Add seeds")
    return workflow


def log_of(place: Forge) -> str:
    key = place.sigstore.log_key
    return f"""\
[[logs]]
id = "rekor"
kind = "rekor-v2"
origin = "{key.name}"
url = "{place.sigstore.log_url}"
key = "{base64.b64encode(key.der).decode()}"

"""


def replace(file: Path, old: str, new: str, *, times: int = 1) -> None:
    text = file.read_text()
    assert text.count(old) == times, text
    file.write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def first(place: Forge, initialised: Path) -> Step:
    """The maintainer pushes."""
    return play(place, "push")


def test_the_first_push_builds_a_seed_for_every_system(first: Step) -> None:
    first.outcome.check()
    for system in SYSTEMS:
        job = first.outcome.job(f"seed ({system})")
        assert "\nseed       built\n" in job.said
        assert "Proved: all 2 outputs can be built in it with no network." in job.summary


def test_the_first_push_publishes_and_promotes(place: Forge, first: Step) -> None:
    assert "\npromoted\n" in first.outcome.job("promote").said
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


def test_anyone_can_verify_what_was_published(place: Forge, first: Step) -> None:
    """By the policy in the repository: Fulcio's certificate, Rekor's proof, and the promotion."""
    sha = commit_of(place)
    ran = verify(place, f"{place.seed}:latest", "--commit", sha)
    assert ran.code == 0, ran.out + ran.err
    assert "promoted by github under root sha256:" in ran.out
    other = verify(place, f"{place.seed}:latest", "--commit", "0" * 40)
    assert other.code == 1, other.out + other.err


def test_plain_docker_builds_in_the_seed_with_no_network(place: Forge, first: Step) -> None:
    """A job's container, and no tool of ours: the runner pulls the image and starts steps in it."""
    inside = place.root / "inside.yml"
    inside.write_text(_INSIDE.format(seed=place.seed))
    said = place.push(workflow=str(inside)).check().job("inside").said
    devices = [line.partition(":")[0].strip() for line in said.splitlines()[2:] if ":" in line]
    assert devices[0] == "lo"
    assert "eth0" not in devices
    assert "building '/nix/store/" in said
    assert "\nHello, world!\n" in said


def test_the_recipe_for_forgejo_builds_in_the_seed(place: Forge, first: Step) -> None:
    """By act, from which the runners of Forgejo and Gitea come; the forge is a directory."""
    text = (ROOT / "examples/forgejo/build.yml").read_text()
    options = f"options: --volume {place.project}:/origin:ro"
    text = re.sub(r"image: \S+", f"image: {place.seed}:latest\n      {options}", text)
    env = {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "url.file:///origin.insteadOf",
        "GIT_CONFIG_VALUE_0": f"https://github.com/{REPOSITORY}",
    }
    recipe = place.root / "forgejo.yml"
    recipe.write_text(text.replace("    steps:", f"    env: {json.dumps(env)}\n    steps:"))
    job = place.push(workflow=str(recipe)).check().job("build")
    assert job.steps == {"Check out": "success", "Build": "success"}


@pytest.fixture(scope="module")
def source_only(place: Forge, first: Step) -> Step:
    """A commit that changes the project's code alone; the machine is a new one."""
    edit(place.project, "Makefile", "Hello", "Good morning")
    edit(place.project, "src/greeting.c", "Hello", "Good morning")
    return play(place, "push", prefix=fresh(place))


def test_a_commit_of_source_finds_its_seed_and_builds_none(source_only: Step) -> None:
    source_only.outcome.check()
    for system in SYSTEMS:
        said = source_only.outcome.job(f"seed ({system})").said
        assert "\nseed       there already: nothing to build\n" in said
    assert max(source_only.after.since(source_only.before).values(), default=0) < 10_000
    assert source_only.after.tags["latest"] == source_only.before.tags["latest"]


def test_a_commit_of_source_builds_offline_in_its_seed(source_only: Step) -> None:
    """The machine had an empty store: whatever the build needed came in the seed."""
    builds = [job for job in source_only.outcome.jobs if job.name.startswith("build ")]
    for build in builds:
        assert build.steps["nix flake check"] == "success"
        assert "\nGood morning, world!\n" in build.said
        assert "It fits: no network is needed" in build.summary
    # Both jobs are on this one machine: whichever comes first fills its store for the other.
    brought = [re.search(r"\| new \| (\d+) store paths \|", job.summary) for job in builds]
    counts = sorted(int(found[1]) for found in brought if found)
    assert counts[0] == 0
    assert 100 < counts[1] < 200
    assert len(counts) == len(SYSTEMS)


@pytest.fixture(scope="module")
def dependency(place: Forge, source_only: Step) -> Step:
    """A commit that adds a dependency; the seeds are built where they can be."""
    edit(place.project, "hello.nix", _BEFORE, f"{_BEFORE} buildInputs = [ pkgs.openssl ];")
    return play(place, "push")


def test_a_new_dependency_builds_and_promotes_a_new_seed(place: Forge, dependency: Step) -> None:
    dependency.outcome.check()
    for system in SYSTEMS:
        assert "\nseed       built\n" in dependency.outcome.job(f"seed ({system})").said
    assert dependency.after.tags["latest"] == dependency.after.tags[commit_of(place)]
    assert dependency.after.tags["latest"] != dependency.before.tags["latest"]
    ran = verify(place, f"{place.seed}:latest", "--commit", commit_of(place))
    assert ran.code == 0, ran.out + ran.err


def test_a_new_dependency_sends_only_what_changed(
    place: Forge, first: Step, dependency: Step
) -> None:
    """What the registry got, in bytes, is what of the new images it lacked, and no more."""
    new = dependency.after.since(dependency.before)
    lacked = 0
    for system in SYSTEMS:
        image = read(f"{place.seed}:{commit_of(place)}-{system}")
        layers = {layer["digest"]: layer["size"] for layer in image["layers"]}
        sent = {digest: size for digest, size in layers.items() if digest in new}
        assert len(sent) <= 4 < len(layers)
        lacked += sum(sent.values())
    # Beside the layers: configurations, manifests, attestations, two bills of materials a system.
    assert lacked <= dependency.uploaded < lacked + 1_500_000
    assert dependency.uploaded < first.uploaded / 10


@pytest.fixture(scope="module")
def from_a_fork(place: Forge, dependency: Step) -> Step:
    """A pull request from a fork, whose jobs have a token that may only read; a new machine."""
    edit(place.project, "Makefile", "Good morning", "Bonjour")
    edit(place.project, "src/greeting.c", "Good morning", "Bonjour")
    return play(place, "pull_request", prefix=fresh(place))


def test_a_forks_pull_request_is_green_with_no_secrets(from_a_fork: Step) -> None:
    from_a_fork.outcome.check()
    said = from_a_fork.outcome.said
    assert "::notice title=Nothing is published::a pull request from stranger/project" in said
    assert "::error" not in said
    build = from_a_fork.outcome.job("build (ubuntu-24.04)")
    assert "\nBonjour, world!\n" in build.said
    assert "It fits: no network is needed" in build.summary


def test_a_forks_pull_request_writes_nothing(from_a_fork: Step) -> None:
    assert from_a_fork.writes == 0
    assert from_a_fork.after == from_a_fork.before


@pytest.fixture(scope="module")
def too_trusted(place: Forge, from_a_fork: Step) -> Step:
    """A pull request that wants another seed, and is given all that a push is given."""
    edit(place.project, "hello.nix", "pkgs.openssl", "pkgs.openssl pkgs.curl")
    return play(place, "pull_request", trusted=True)


def test_a_pull_request_never_publishes_whatever_it_is_given(too_trusted: Step) -> None:
    too_trusted.outcome.check()
    for system in SYSTEMS:
        assert "\nseed       built\n" in too_trusted.outcome.job(f"seed ({system})").said
    assert too_trusted.writes == 0
    assert too_trusted.after == too_trusted.before


@pytest.fixture(scope="module")
def broken(place: Forge, too_trusted: Step) -> Step:
    """A commit that adds what cannot be built for one of the systems."""
    edit(place.project, "hello.nix", "pkgs.openssl", f"pkgs.openssl {_FRAGILE}")
    return play(place, "push")


def test_a_failing_system_blocks_latest(place: Forge, broken: Step) -> None:
    broken.outcome.check(green=False)
    # act gives all jobs of a matrix the worst result; on GitHub this one would be green.
    assert broken.outcome.job("seed (x86_64-linux)").steps["./.nix-seed"] == "success"
    assert f"{commit_of(place)}-x86_64-linux" in broken.after.tags
    assert commit_of(place) not in broken.after.tags
    assert broken.after.tags["latest"] == broken.before.tags["latest"]


def test_a_failing_system_is_named(broken: Step) -> None:
    promote = broken.outcome.job("promote")
    assert promote.result == "failure"
    assert "has no seed for aarch64-linux: nothing is promoted" in promote.said
    assert "no luck on ARM64" in broken.outcome.job("seed (aarch64-linux)").said


def commit_of(place: Forge) -> str:
    command = ["git", "-C", str(place.project), "rev-parse", "HEAD"]
    return subprocess.check_output(command, text=True).strip()


def verify(place: Forge, *arguments: str) -> Ran:
    policy = place.project / "trust.toml"
    state = place.root / "state"
    how = ("--policy", policy, "--state", state)
    return nix_seed("verify", *arguments, *how, cache=place.root / "cache")
