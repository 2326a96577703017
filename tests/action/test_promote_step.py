"""``promote/action.yml``: all systems or none, by the policy where there is one."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nix_seed.logs.embedded import EmbeddedLog
from support import built
from support.distribution import commit
from support.registries import docker_registry
from support.runner import REPOSITORY, Runner, command, git
from support.seeds import edit
from support.steps import Result

FORK: dict[str, Any] = {"pull_request": {"head": {"repo": {"full_name": "stranger/Project"}}}}


@dataclass(frozen=True)
class Place:
    runner: Runner
    key: str

    def seed(self, **more: str) -> Result:
        return check(self.runner.run(".", {"prove": "false"} | self._inputs(more)))

    def promote(self, **more: Any) -> Result:
        how = {name: more.pop(name) for name in ("event", "payload", "env", "sha") if name in more}
        return self.runner.run("promote", self._inputs(more), **how)

    def _inputs(self, more: dict[str, str]) -> dict[str, str]:
        return {"registry_token": "t0ken", "signing": "key", "key": self.key} | more


@pytest.fixture(scope="module")
def place(distribution: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    root = tmp_path_factory.mktemp("promote")
    project = built.small_project(root / "project", distribution)
    git(project, "remote", "add", "origin", f"https://github.com/{REPOSITORY}")
    subprocess.run([command(root), "key", "generate", root / "ci"], check=True)
    with docker_registry(root / "registry", password=False) as registry:
        yield Place(Runner(root, project, registry), (root / "ci").read_text())


def check(result: Result) -> Result:
    assert result.code == 0, result.log
    return result


@pytest.fixture(autouse=True)
def _thrown_away(place: Place) -> Iterator[None]:
    yield
    place.runner.clean()


@pytest.fixture(scope="module")
def seeded(place: Place) -> Place:
    """One of two systems has its seed, and there is no policy."""
    place.seed()
    return place


def test_a_system_that_lacks_is_named_and_blocks_all(seeded: Place) -> None:
    before = seeded.runner.tags()
    failed = seeded.promote(systems='["x86_64-linux", "aarch64-linux", "aarch64-darwin"]')
    assert failed.code == 1
    [error] = failed.commands("error")
    assert "has no seed for aarch64-darwin, aarch64-linux: nothing is promoted" in error
    assert "latest stays where it is" in error
    assert seeded.runner.tags() == before
    assert "latest" not in before
    assert failed.outputs["promoted"] == ""
    assert "aarch64-darwin, aarch64-linux" in failed.summary


def test_all_systems_make_an_index(seeded: Place) -> None:
    done = check(seeded.promote(systems="x86_64-linux"))
    tags = seeded.runner.tags()
    assert tags["latest"] == tags[seeded.runner.commit] == done.outputs["digest"]
    assert done.outputs["promoted"] == "true"
    assert done.outputs["reference"] == f"{seeded.runner.seeds}@{done.outputs['digest']}"
    assert "the index over all systems is published" in done.summary
    assert "### The same on your machine" in done.summary
    commit, image = seeded.runner.commit, tags[f"{seeded.runner.commit}-x86_64-linux"]
    index = f"nix-seed index {seeded.runner.seeds}:{commit} {seeded.runner.seeds}@{image}"
    assert f"{index} --tag latest\n" in done.summary


@pytest.mark.parametrize("result", ["failure", "cancelled", "skipped"])
def test_a_job_that_failed_blocks_all(seeded: Place, result: str) -> None:
    """Though all tags are there, of an earlier run for one."""
    before = seeded.runner.writes()
    failed = seeded.promote(systems="x86_64-linux", result=result)
    assert failed.code == 1
    [error] = failed.commands("error")
    assert f"the jobs that make them came to {result}: nothing is promoted" in error
    named = seeded.promote(systems="x86_64-linux aarch64-linux", result=result)
    assert "has no seed for aarch64-linux" in named.commands("error")[0]
    assert seeded.runner.writes() == before


@pytest.mark.parametrize(
    ("event", "payload"), [("pull_request", FORK), ("pull_request_target", FORK), ("issues", {})]
)
def test_what_is_not_merged_promotes_nothing(seeded: Place, event: str, payload: Any) -> None:
    before = seeded.runner.writes()
    done = check(seeded.promote(systems="x86_64-linux", event=event, payload=payload))
    assert done.outputs["promoted"] == "false"
    assert "Nothing is promoted" in done.commands("notice")[0]
    assert seeded.runner.writes() == before


def test_another_branch_leaves_latest(seeded: Place) -> None:
    edit(seeded.runner.project, "greeting", "Hello, ", "Hello; ")
    seeded.seed(layers="50")
    latest = seeded.runner.tags()["latest"]
    env = {"GITHUB_REF": "refs/heads/feature"}
    done = check(seeded.promote(systems="x86_64-linux", tags="feature latest", env=env))
    tags = seeded.runner.tags()
    assert tags["latest"] == latest
    assert tags["feature"] == done.outputs["digest"] == tags[seeded.runner.commit] != latest
    assert "latest: only the default branch moves it" in done.commands("notice")[0]


def next_commit(place: Place) -> str:
    """Commit what is no matter of a seed; return the commit before."""
    before = place.runner.commit
    (place.runner.project / "notes").write_text(before)
    commit(place.runner.project, "Note")
    return before


def test_latest_never_goes_back(seeded: Place) -> None:
    """An old run is run again, or ends after a newer one."""
    seeded.seed()
    old = next_commit(seeded)
    seeded.seed(layers="44")
    new = check(seeded.promote(systems="x86_64-linux")).outputs["digest"]
    assert seeded.runner.tags()["latest"] == new
    done = check(seeded.promote(systems="x86_64-linux", tags="old latest", sha=old))
    tags = seeded.runner.tags()
    assert tags["latest"] == new
    assert tags["old"] == tags[old] == done.outputs["digest"] != new
    [notice] = done.commands("notice")
    assert f"latest: {seeded.runner.commit}, which came after {old}, is promoted already" in notice


def test_latest_moves_while_nothing_newer_is_promoted(seeded: Place) -> None:
    """The branch has gone on; the newest commit's job has not ended, or failed."""
    commit, image = seeded.runner.commit, {"systems": "x86_64-linux", "image": "owner/busy"}
    seeded.seed(image="owner/busy")
    next_commit(seeded)
    done = check(seeded.promote(**image, sha=commit))
    assert seeded.runner.tags("owner/busy")["latest"] == done.outputs["digest"]


def test_latest_stays_where_nobody_can_ask(seeded: Place) -> None:
    seeded.seed(image="owner/unasked")
    env = {"GIT_CONFIG_KEY_0": f"url.{seeded.runner.root}/nowhere.insteadOf"}
    done = check(seeded.promote(systems="x86_64-linux", image="owner/unasked", env=env))
    tags = seeded.runner.tags("owner/unasked")
    assert "latest" not in tags
    assert tags[seeded.runner.commit] == done.outputs["digest"]
    assert "latest: origin could not be asked" in done.commands("notice")[0]


def test_a_commit_is_tagged_by_its_own_promotion(seeded: Place) -> None:
    other = "c" * 40
    inputs = {"systems": "x86_64-linux", "image": "owner/unasked", "tags": other}
    done = check(seeded.promote(**inputs))
    assert other not in seeded.runner.tags("owner/unasked")
    assert f"{other}: a commit is tagged by its own promotion alone" in done.commands("notice")[0]


def test_nobody_says_which_systems(seeded: Place) -> None:
    failed = seeded.promote()
    assert failed.code == 2
    assert "no systems are named that make a release" in failed.commands("error")[0]


@pytest.fixture(scope="module")
def trusted(place: Place) -> Place:
    """The same repository, in its own registry's name, with a policy: builder, promoter, log."""
    runner = place.runner
    log = runner.root / "log"
    EmbeddedLog.create(log, "log.example/ci")
    key = f"ci={runner.root / 'ci.pub'}"
    init = [
        str(command(runner.root)),
        "policy",
        "init",
        "trust.toml",
        "--key",
        key,
        "--promoter",
        key,
    ]
    init += ["--log", str(log), "--source", f"https://github.com/{REPOSITORY}"]
    subprocess.run([*init, "--system", "x86_64-linux"], cwd=runner.project, check=True)
    commit(runner.project, "Trust this CI")
    return place


IMAGE = {"image": "owner/trusted-seed"}


@pytest.fixture(scope="module")
def promoted(trusted: Place) -> Result:
    trusted.seed(**IMAGE)
    return check(trusted.promote(**IMAGE))


def tags(place: Place) -> dict[str, str]:
    return place.runner.tags(IMAGE["image"])


def test_a_policy_promotes(trusted: Place, promoted: Result) -> None:
    assert promoted.outputs["promoted"] == "true"
    assert tags(trusted)["latest"] == promoted.outputs["digest"]
    reference = f"{trusted.runner.registry.host}/{IMAGE['image']}"
    assert "### Verification" in promoted.summary
    assert "verdict: VERIFIED" in promoted.summary
    commit = trusted.runner.commit
    again = f"nix-seed promote {commit} --to {reference} --key FILE --tag latest\n"
    assert f"git checkout {commit}\n{again}" in promoted.summary
    verify = [
        str(command(trusted.runner.root)),
        "verify",
        trusted.runner.commit,
        "--from",
        reference,
    ]
    done = subprocess.run(
        verify, cwd=trusted.runner.project, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_verified_seed_is_used(trusted: Place, promoted: Result) -> None:
    used = trusted.runner.fresh().run("use", IMAGE)
    assert used.code == 0, used.log
    assert (used.outputs["found"], used.outputs["verified"]) == ("true", "true")
    assert "### Verification" in used.summary
    assert "verdict: VERIFIED" in used.summary


def test_a_commit_of_source_only_needs_no_promotion(trusted: Place, promoted: Result) -> None:
    edit(trusted.runner.project, "greeting", "Hello; ", "Hello: ")
    found = trusted.seed(**IMAGE)
    assert found.outputs["built"] == "false"
    done = check(trusted.promote(**IMAGE))
    assert done.outputs["promoted"] == "false"
    assert done.outputs["digest"] == promoted.outputs["digest"]
    assert "there is nothing new to promote" in done.commands("notice")[0]
    assert "verdict: VERIFIED" in done.summary
    used = trusted.runner.fresh().run("use", IMAGE)
    assert used.code == 0, used.log
    assert (used.outputs["exact"], used.outputs["verified"]) == ("true", "true")


def test_a_commit_of_source_only_gets_its_tags(trusted: Place, promoted: Result) -> None:
    """They name the last release; its own tag would say that somebody promoted this commit."""
    done = check(trusted.promote(**IMAGE, tags="v1.2 latest"))
    found = tags(trusted)
    assert found["v1.2"] == found["latest"] == done.outputs["digest"] == promoted.outputs["digest"]
    assert trusted.runner.commit not in found
    assert "latest now name that release" in done.commands("notice")[0]
    reference = f"{trusted.runner.registry.host}/{IMAGE['image']}"
    for command_line in (
        ["verify", f"{reference}:v1.2"],
        ["audit", "--from", reference, "--no-state"],
    ):
        ran = [str(command(trusted.runner.root)), *command_line]
        out = subprocess.run(
            ran, cwd=trusted.runner.project, capture_output=True, text=True, check=False
        )
        assert out.returncode == 0, out.stdout + out.stderr


def test_another_recipe_is_attested_and_promoted_anew(trusted: Place, promoted: Result) -> None:
    text = "# what a recipe is made of has changed\n"
    flake = trusted.runner.project / "flake.nix"
    flake.write_text(
        flake.read_text().replace("packages = [ pkgs.gnumake ];", "packages = [ ];") + text
    )
    commit(trusted.runner.project, "Make no more")
    made = trusted.seed(**IMAGE)
    assert made.outputs["built"] == "true"
    done = check(trusted.promote(**IMAGE))
    assert done.outputs["digest"] != promoted.outputs["digest"]
    assert tags(trusted)["latest"] == done.outputs["digest"]


def test_going_back_is_a_release_like_any_other(trusted: Place, promoted: Result) -> None:
    """The image of the old recipe is there, and was promoted once; for this commit nobody spoke."""
    project = trusted.runner.project
    git(project, "-c", "user.name=T", "-c", "user.email=t@localhost", "revert", "--no-edit", "HEAD")
    made = trusted.seed(**IMAGE)
    assert made.outputs["built"] == "true", "its builder says so for this commit as well"
    done = check(trusted.promote(**IMAGE))
    # Its index says of which commit it is: another than the first one's, over the same images.
    assert tags(trusted)["latest"] == done.outputs["digest"] != promoted.outputs["digest"]


def test_who_may_not_promote(trusted: Place) -> None:
    subprocess.run(
        [command(trusted.runner.root), "key", "generate", trusted.runner.root / "x"], check=True
    )
    stranger = (trusted.runner.root / "x").read_text()
    edit(trusted.runner.project, "flake.nix", "packages = [ pkgs.gnumake ];", "packages = [ ];")
    trusted.seed(**IMAGE)
    before = tags(trusted)
    failed = trusted.promote(**IMAGE, key=stranger)
    assert failed.code == 2
    assert "may not promote" in failed.commands("error")[0]
    assert tags(trusted) == before
