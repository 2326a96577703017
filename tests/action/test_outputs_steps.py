"""The input ``outputs`` of both actions: one job keeps what it builds, the next takes it."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from support.distribution import commit
from support.registries import docker_registry
from support.runner import REPOSITORY, Runner, command, git
from support.seeds import edit, write_project
from support.steps import Result

FORK: dict[str, Any] = {"pull_request": {"head": {"repo": {"full_name": "stranger/Project"}}}}
_RUNS = itertools.count(100, 100)  # each runner's own numbers
# One package of another, without a compiler: its seed is made and laid out in half the time.
_OUTPUTS = """
      packages.${system} = rec {
        libgreet = pkgs.runCommand "libgreet" { src = ./libgreet; } "mkdir $out; cp $src/* $out/";
        default = pkgs.runCommand "greet" { src = ./greet; inherit libgreet; } ''
          mkdir -p $out/bin
          { echo "#!/bin/sh"; cat $libgreet/greet.sh $src/main.sh; } >$out/bin/greet
          chmod +x $out/bin/greet
          sh $out/bin/greet Hello World
        '';
      };
"""
_FILES = {
    "libgreet/greet.sh": 'greet() { echo "$1, $2!"; }\n',
    "greet/main.sh": 'greet "$@" # main\n',
}
_BUILD = "nix build --print-build-logs && ./result/bin/greet Hello World"


@dataclass(frozen=True)
class Kept:
    """A repository with a policy, whose job has kept its outputs; *inputs* are the job's."""

    runner: Runner
    inputs: dict[str, str]
    first: Result


@pytest.fixture(scope="module")
def kept(distribution: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    root = tmp_path_factory.mktemp("outputs")
    project = write_project(root / "project", distribution, _OUTPUTS, _FILES)
    git(project, "remote", "add", "origin", f"https://github.com/{REPOSITORY}")
    program, key = str(command(root)), root / "ci"
    subprocess.run([program, "key", "generate", key], check=True)
    init = [program, "policy", "init", "trust.toml", "--key", f"ci={key}.pub"]
    subprocess.run([*init, "--system", "x86_64-linux"], cwd=project, check=True)
    commit(project, "Trust the CI")
    with docker_registry(root / "registry", password=False) as registry:
        runner = Runner(root, project, registry)
        inputs = {"registry_token": "t", "signing": "key", "key": key.read_text()}
        inputs |= {"prove": "false", "outputs": "true"}
        yield Kept(runner, inputs, runner.run(".", inputs))


@pytest.fixture(autouse=True)
def _thrown_away(kept: Kept) -> Iterator[None]:
    yield
    kept.runner.clean()


def other(runner: Runner, where: Path) -> Runner:
    """The same repository, in a checkout to be changed at will."""
    subprocess.run(["git", "clone", "-q", str(runner.project), str(where)], check=True)
    return replace(runner, project=where, runs=next(_RUNS))


def paths(runner: Runner) -> set[str]:
    """The tags of what is kept."""
    return {tag for tag in runner.tags() if tag.startswith("out-")}


def test_a_push_keeps_what_it_builds(kept: Kept) -> None:
    first = kept.first
    assert first.code == 0, first.log
    assert first.outputs["published"] == "true"
    assert len(paths(kept.runner)) >= 2
    assert "### Outputs" in first.summary
    assert "| taken | 0 outputs |" in first.summary
    assert "libgreet" in first.summary
    assert first.commands("warning") == []


def test_the_next_commit_builds_only_what_it_changes(kept: Kept, tmp_path: Path) -> None:
    changed = other(kept.runner, tmp_path / "project")
    edit(changed.project, "greet/main.sh", "# main", "# changed")
    before = paths(kept.runner)
    done = changed.run(".", kept.inputs)
    assert done.code == 0, done.log
    assert done.outputs["built"] == "false", "the seed is what it was"
    assert "| taken | 1 output | " in done.summary
    assert " s saved |" in done.summary
    assert len(paths(kept.runner) - before) >= 1


def test_a_later_step_takes_and_does_not_build(kept: Kept) -> None:
    machine = kept.runner.fresh()
    used = machine.run("use", {"outputs": "true"})
    assert used.code == 0, used.log
    assert used.outputs["exact"] == "true"
    assert "Nix takes what the project built before" in used.summary
    before = kept.runner.writes()
    built = machine.shell(used, _BUILD)
    assert built.returncode == 0, built.stderr
    assert "building '/nix/store/" not in built.stderr
    assert "from 'http://127.0.0.1:" in built.stderr
    assert "Hello, World!" in built.stdout
    assert kept.runner.writes() == before


def test_a_forks_pull_request_reads_and_never_writes(kept: Kept, tmp_path: Path) -> None:
    changed = other(kept.runner, tmp_path / "project")
    edit(changed.project, "greet/main.sh", "# main", "# a fork's")
    before = kept.runner.writes()
    made = changed.run(".", kept.inputs, event="pull_request", payload=FORK)
    assert made.code == 0, made.log
    assert "### Outputs" not in made.summary
    machine = changed.fresh()
    used = machine.run("use", {"outputs": "true"}, event="pull_request", payload=FORK)
    assert used.code == 0, used.log
    built = machine.shell(used, _BUILD)
    assert built.returncode == 0, built.stderr
    assert built.stderr.count("building '/nix/store/") == 1, "its own change alone"
    assert "from 'http://127.0.0.1:" in built.stderr
    assert kept.runner.writes() == before


def test_without_a_policy_nothing_is_taken_or_kept(kept: Kept, tmp_path: Path) -> None:
    bare = other(kept.runner, tmp_path / "project")
    git(bare.project, "rm", "-q", "trust.toml")
    commit(bare.project, "Trust nobody")
    inputs = kept.inputs | {"image": "owner/bare", "builder": "ci"}
    made = bare.run(".", inputs)
    assert made.code == 0, made.log
    [notice] = made.commands("notice")
    assert "Outputs are not kept" in notice
    assert "no trust.toml" in notice
    used = bare.fresh().run("use", {"outputs": "true", "image": "owner/bare"})
    assert used.code == 0, used.log
    assert any("Outputs are not taken" in each for each in used.commands("notice"))
    assert "127.0.0.1" not in used.variables["NIX_CONFIG"]


def test_what_does_not_build_is_a_warning(kept: Kept, tmp_path: Path) -> None:
    broken = other(kept.runner, tmp_path / "project")
    edit(broken.project, "greet/main.sh", "# main", "; false")
    before = paths(kept.runner)
    done = broken.run(".", kept.inputs)
    assert done.code == 0, done.log
    [warning] = done.commands("warning")
    assert "Outputs are not kept" in warning
    assert "nothing of them is signed" in warning
    assert paths(kept.runner) == before


@pytest.mark.parametrize("action", [".", "use"])
def test_what_is_no_switch_is_refused(kept: Kept, action: str) -> None:
    inputs = {"outputs": "maybe"} | ({"registry_token": "t"} if action == "." else {})
    failed = kept.runner.run(action, inputs)
    assert failed.code == 2
    assert "outputs is 'maybe'" in failed.commands("error")[0]
