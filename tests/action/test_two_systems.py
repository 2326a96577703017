"""Systems of which one's machine cannot evaluate the other: each job knows what it can."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nix_seed.logs.embedded import EmbeddedLog
from support.distribution import NIX_SETTINGS, commit
from support.registries import docker_registry
from support.runner import REPOSITORY, Runner, command, git
from support.seeds import edit, write_project
from support.steps import Result

HERE, THERE = "x86_64-linux", "aarch64-linux"
# What Nix calls import from derivation: the version is known when this has been built.
_OUTPUTS = f"""
      packages = builtins.listToAttrs (map (name: {{ inherit name; value.default =
        let
          pkgs = nixpkgs.legacyPackages.${{name}};
          level = pkgs.runCommand "patch-level" {{ }} "cp ${{./patch-level}} $out";
        in
        pkgs.runCommand "greeting-1.${{builtins.readFile level}}" {{ tools = [ ]; }} "echo > $out";
      }}) [ "{HERE}" "{THERE}" ]);
"""


@dataclass(frozen=True)
class Place:
    runner: Runner
    key: str

    def seed(self, system: str) -> Result:
        """Run the job of *system* on a machine of that system."""
        settings = NIX_SETTINGS | ({"extra-platforms": THERE} if system == THERE else {})
        config = "".join(f"{name} = {value}\n" for name, value in settings.items())
        done = self.runner.run(".", self.inputs | {"system": system}, env={"NIX_CONFIG": config})
        assert done.code == 0, done.log
        return done

    def promote(self) -> Result:
        inputs = {key: value for key, value in self.inputs.items() if key != "prove"}
        done = self.runner.run("promote", inputs)
        assert done.code == 0, done.log
        return done

    @property
    def inputs(self) -> dict[str, str]:
        return {"registry_token": "t", "signing": "key", "key": self.key, "prove": "false"}


@pytest.fixture(scope="module")
def place(distribution: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Both systems have their seeds, and the commit is promoted."""
    root = tmp_path_factory.mktemp("systems")
    project = write_project(root / "project", distribution, _OUTPUTS, {"patch-level": "0"})
    git(project, "remote", "add", "origin", f"https://github.com/{REPOSITORY}")
    subprocess.run([command(root), "key", "generate", root / "ci"], check=True)
    EmbeddedLog.create(root / "log", "log.example/ci")
    who = f"ci={root / 'ci.pub'}"
    init = [str(command(root)), "policy", "init", "trust.toml", "--key", who, "--promoter", who]
    init += ["--log", str(root / "log"), "--source", f"https://github.com/{REPOSITORY}"]
    subprocess.run([*init, "--system", HERE, "--system", THERE], cwd=project, check=True)
    commit(project, "Trust the CI")
    with docker_registry(root / "registry", password=False) as registry:
        found = Place(Runner(root, project, registry), (root / "ci").read_text())
        for system in (HERE, THERE):
            found.seed(system)
        assert found.promote().outputs["promoted"] == "true"
        yield found


def test_a_commit_of_source_where_the_other_system_cannot_be_evaluated(place: Place) -> None:
    """Who cannot tell that all is released says his word; who can, saves it."""
    before = place.runner.tags()["latest"]
    # One that no run before has built on this machine.
    (place.runner.project / "patch-level").write_text(secrets.token_hex(8))
    commit(place.runner.project, "Patch")
    here = place.seed(HERE)
    assert here.outputs["built"] == "true"
    assert any(
        f"the flake cannot be evaluated for {THERE} on this machine" in notice
        for notice in here.commands("notice")
    )
    there = place.seed(THERE)
    assert there.outputs["built"] == "false"
    done = place.promote()
    assert done.outputs["digest"] == before == place.runner.tags()["latest"]


def test_one_systems_change_needs_the_word_of_all(place: Place) -> None:
    """Its own image is released; the other's is not: it takes both to release this commit."""
    changed = f'tools = if pkgs.system == "{THERE}" then [ pkgs.openssl ] else [ ];'
    (place.runner.project / "patch-level").write_text("0")
    edit(place.runner.project, "flake.nix", "tools = [ ];", changed)
    for system in (HERE, THERE):
        assert place.seed(system).outputs["built"] == "true"
    done = place.promote()
    assert done.outputs["promoted"] == "true"
    assert place.runner.tags()["latest"] == done.outputs["digest"]


@pytest.fixture(scope="module")
def half_seeded(place: Place) -> Iterator[Place]:
    """The commit before is promoted; of this one, which needs more, one system is seeded."""
    edit(place.runner.project, "flake.nix", "tools = if", "more = pkgs.gnumake; tools = if")
    assert place.seed(HERE).outputs["built"] == "true"
    yield place
    place.runner.clean()


FORK = {"pull_request": {"head": {"repo": {"full_name": "stranger/Project"}}}}


@pytest.mark.parametrize(("event", "payload"), [("push", None), ("pull_request", FORK)])
def test_a_seed_that_is_not_promoted_yet_fails_no_job(
    half_seeded: Place, event: str, payload: Any
) -> None:
    """The seed before it is used, which is; whatever lacks is fetched."""
    used = half_seeded.runner.fresh().run("use", event=event, payload=payload)
    assert used.code == 0, used.log
    assert (used.outputs["found"], used.outputs["exact"]) == ("true", "false")
    assert used.outputs["verified"] == "true"
    parent = git(half_seeded.runner.project, "rev-parse", "HEAD^")
    tags = half_seeded.runner.tags()
    assert used.outputs["digest"] == tags[f"{parent}-{HERE}"]
    [notice] = used.commands("notice")
    assert notice.count("it is not promoted yet (no promotion record of") == 1
    assert tags[f"{half_seeded.runner.commit}-{HERE}"] in notice


def test_a_seed_named_that_is_not_promoted_yet_is_refused(half_seeded: Place) -> None:
    """Who wants just this one gets no other in its place."""
    digest = half_seeded.runner.tags()[f"{half_seeded.runner.commit}-{HERE}"]
    named = {"reference": f"{half_seeded.runner.seeds}@{digest}"}
    failed = half_seeded.runner.fresh().run("use", named)
    assert failed.code == 1
    assert "it is not promoted yet" in failed.commands("error")[0]
