"""A flake that lies below the top, named by ``seed_attr``: every step means the same directory."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nix_seed.logs.embedded import EmbeddedLog
from support import built
from support.distribution import commit
from support.registries import docker_registry
from support.runner import REPOSITORY, Runner, command, git
from support.steps import Result


@pytest.fixture(scope="module")
def runner(distribution: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """``sub`` holds the flake and the policy, by which it is promoted."""
    root = tmp_path_factory.mktemp("sub")
    project = built.small_project(root / "project", distribution)
    (project / "sub").mkdir()
    for path in git(project, "ls-files").splitlines():
        (project / "sub" / path).parent.mkdir(parents=True, exist_ok=True)
        git(project, "mv", path, f"sub/{path}")
    git(project, "remote", "add", "origin", f"https://github.com/{REPOSITORY}")
    subprocess.run([command(root), "key", "generate", root / "ci"], check=True)
    EmbeddedLog.create(root / "log", "log.example/ci")
    who = f"ci={root / 'ci.pub'}"
    init = [str(command(root)), "policy", "init", "trust.toml", "--key", who, "--promoter", who]
    init += ["--log", str(root / "log"), "--source", f"https://github.com/{REPOSITORY}"]
    subprocess.run([*init, "--system", "x86_64-linux"], cwd=project / "sub", check=True)
    commit(project, "Move the flake")
    with docker_registry(root / "registry", password=False) as registry:
        yield Runner(root, project, registry)


@pytest.fixture(autouse=True)
def _thrown_away(runner: Runner) -> Iterator[None]:
    yield
    runner.clean()


def signed(runner: Runner) -> dict[str, str]:
    key = (runner.root / "ci").read_text()
    return {"registry_token": "t", "signing": "key", "key": key, "seed_attr": "sub#seed"}


def check(result: Result) -> Result:
    assert result.code == 0, result.log
    return result


def test_its_policy_is_everyones(runner: Runner) -> None:
    seeded = check(runner.run(".", signed(runner) | {"prove": "false"}))
    assert "| builder | <code>ci</code> |" in seeded.summary, "as the policy calls who signs"
    promoted = check(runner.run("promote", signed(runner)))
    assert "\npromoted\n" in promoted.log
    used = check(runner.fresh().run("use", {"seed_attr": "sub#seed"}))
    assert (used.outputs["exact"], used.outputs["verified"]) == ("true", "true")
