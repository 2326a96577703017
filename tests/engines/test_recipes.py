"""Recipes for other places to build: checked by the schemas that there are, and run in a seed.

What starts the container elsewhere is podman here: image, working directory and command are those
of the recipe.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from nix_seed.core.digests import Digest, NarHash
from nix_seed.registry.rules.lock import LockedImage, SeedLock
from support import built, engines, quick
from support.programs import need
from support.steps import load, parse
from support.trust import World

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
EXAMPLES = ROOT / "examples"
UV = shutil.which("uv", path=f"{BIN}{os.pathsep}{os.environ['PATH']}")


@dataclass(frozen=True)
class Recipe:
    """What a place starts: *command* in *workdir*; *clones* where it fetches the sources itself."""

    image: str
    command: list[str]
    workdir: str = "/src"
    env: dict[str, str] = field(default_factory=dict)
    clones: bool = False


def kubernetes() -> Recipe:
    [container] = load(EXAMPLES / "kubernetes/job.yaml")["spec"]["template"]["spec"]["containers"]
    env = {"SOURCE": "file:///origin", "REVISION": "main"}
    assert {each["name"] for each in container["env"]} == set(env)
    command = [*container["command"], *container["args"]]
    return Recipe(container["image"], command, "/src", env, clones=True)


def tekton() -> Recipe:
    spec = load(EXAMPLES / "tekton/task.yaml")["spec"]
    [step] = spec["steps"]
    defaults = {each["name"]: each["default"] for each in spec["params"]}
    assert step["image"] == "$(params.seed)"
    script = step["script"]
    assert "$(" not in script, "whoever gives the parameter would write the script"
    return Recipe(
        defaults["seed"],
        ["/bin/sh", "-c", script],
        step["workingDir"],
        {"INSTALLABLE": defaults["installable"]},
    )


def buildkite() -> Recipe:
    [step] = load(EXAMPLES / "buildkite/pipeline.yml")["steps"]
    [plugin] = step["plugins"]
    [how] = plugin.values()
    return Recipe(how["image"], [*how["shell"], step["command"]], how["workdir"])


def jenkins() -> Recipe:
    text = (EXAMPLES / "jenkins/Jenkinsfile").read_text()
    [image], [step] = re.findall(r"image '(.+)'", text), re.findall(r"sh '(.+)'", text)
    return Recipe(image, ["/bin/sh", "-xe", "-c", step])


def forgejo() -> Recipe:
    job = load(EXAMPLES / "forgejo/build.yml")["jobs"]["build"]
    lines = "\n".join(step["run"] for step in job["steps"])
    env = {"SERVER": "file://", "REPOSITORY": "origin", "REVISION": "main"}
    command = ["bash", "-e", "-o", "pipefail", "-c", lines]
    return Recipe(job["container"]["image"], command, "/work", env, clones=True)


RECIPES = {each.__name__: each for each in (kubernetes, tekton, buildkite, jenkins, forgejo)}


def check(*command: str | Path, **how: Any) -> str:
    done: subprocess.CompletedProcess[str] = subprocess.run(
        command, capture_output=True, text=True, check=False, **how
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tool(*command: str | Path, **how: Any) -> str:
    """Run a program of a Python package, in an environment of its own."""
    if UV is None:
        pytest.skip("needs uv: pip install uv")
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [UV, "tool", "run", *command], capture_output=True, text=True, check=False, **how
    )
    if re.search(r"Failed to fetch|error sending request|No solution found", done.stderr):
        pytest.skip(f"needs a package index within reach, for {command[0]}")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def podman(podman_here: engines.Started) -> list[str]:
    """The command that starts a container, and the seed as ``seed`` in podman's store."""
    program = ["podman", *shlex.split(podman_here.env["NIX_SEED_PODMAN_ARGS"])]
    image = check(*program, "pull", "-q", f"oci:{built.layout('seed')}").strip()
    check(*program, "tag", image, "localhost/seed")
    more = shlex.split(podman_here.env["NIX_SEED_PODMAN_RUN_ARGS"])
    return [*program, "run", "--rm", "--network", "none", *more]


@pytest.mark.parametrize("name", RECIPES)
def test_it_builds_in_the_seed(name: str, podman: list[str], tmp_path: Path) -> None:
    recipe = RECIPES[name]()
    assert re.fullmatch(r"ghcr\.io/owner/repo-seed@sha256:[0-9a-f]{64}", recipe.image)
    project = built.fresh_project(tmp_path / "project")
    check("git", "-C", project, "checkout", "-q", "-B", "main")
    where, link = ("/origin", "") if recipe.clones else (recipe.workdir, "result")
    (tmp_path / "work").mkdir()
    command = [*podman, "-v", f"{project}:{where}"]
    # Where the sources are not put there already, the place is an empty directory.
    command += ["-v", f"{tmp_path}/work:{recipe.workdir}"] if recipe.clones else []
    command += ["-w", recipe.workdir]
    for key, value in recipe.env.items():
        command += ["-e", f"{key}={value}"]
    shown = f"{shlex.join(recipe.command)} && {recipe.workdir}/result/bin/greet hello you"
    out = check(*command, "--entrypoint", "", "localhost/seed", "/bin/sh", "-euc", shown)
    assert out.strip(), "the program that was built says something"
    assert not link or (project / link).is_symlink()


def test_kubernetes_schema() -> None:
    tool("kubernetes-validate", "--strict", EXAMPLES / "kubernetes/job.yaml")


@pytest.mark.parametrize(
    ("schema", "name"),
    [
        ("vendor.buildkite", "examples/buildkite/pipeline.yml"),
        ("vendor.github-workflows", "examples/forgejo/build.yml"),
        ("vendor.renovate", "renovate/seed-lock.json"),
    ],
)
def test_schema(schema: str, name: str) -> None:
    check(BIN / "check-jsonschema", "--builtin-schema", schema, ROOT / name)


def test_gitlab_component(tmp_path: Path) -> None:
    """Its inputs are put in as GitLab does, and what comes out is a pipeline."""
    text = (ROOT / "templates/seed.yml").read_text()
    head, _, body = text.partition("\n---\n")
    inputs = parse(head)["spec"]["inputs"]
    assert set(re.findall(r"\$\[\[ inputs\.([\w-]+) \]\]", body)) == set(inputs)
    for name, each in inputs.items():
        assert set(each) <= {"description", "default", "options", "regex", "type"}, name
        body = body.replace(f"$[[ inputs.{name} ]]", str(each["default"]))
    file = tmp_path / ".gitlab-ci.yml"
    file.write_text(body)
    check(BIN / "check-jsonschema", "--builtin-schema", "vendor.gitlab-ci", file)
    # The same commands as in the whole pipeline, which tests/action runs.
    whole = load(EXAMPLES / "gitlab/.gitlab-ci.yml")
    jobs = parse(body)
    assert jobs["nix-seed"]["script"] == whole["seed"]["script"]
    assert jobs["nix-seed-promote"]["script"] == whole["promote"]["script"]


def test_renovate_finds_the_lock() -> None:
    preset = json.loads((ROOT / "renovate/seed-lock.json").read_text())
    [manager] = preset["customManagers"]
    [pattern] = manager["matchStrings"]
    digest = Digest("ab" * 32)
    locked = LockedImage(digest, NarHash.parse("sha256-" + "A" * 43 + "="))
    text = SeedLock("ghcr.io/owner/seed", {"x86_64-linux": locked}).dump().decode()
    found = re.search(pattern.replace("(?<", "(?P<"), text)
    assert found is not None
    assert found["depName"] == "ghcr.io/owner/seed"
    assert found["currentDigest"] == str(digest)
    [named] = manager["managerFilePatterns"]
    assert re.search(named.strip("/").replace("\\/", "/"), "sub/seed.lock")


def of_npm(package: str, program: str) -> Path:
    """Return a *program* of an npm *package*, whose install scripts are not run."""

    def install(path: Path) -> None:
        need("npm")
        command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"]
        done = subprocess.run(
            [*command, "--prefix", path, package], capture_output=True, check=False
        )
        if done.returncode != 0:
            pytest.skip(f"needs npm to reach its registry, for {package}")

    name = re.sub(r"\W+", "-", package)
    return quick.once(name, install) / "node_modules/.bin" / program


@pytest.mark.interop
def test_tekton_lints_the_task(tmp_path: Path) -> None:
    program = of_npm("@ibm/tekton-lint@1.1.0", "tekton-lint")
    task = EXAMPLES / "tekton/task.yaml"
    assert check(program, task).strip() == ""
    wrong = tmp_path / "task.yaml"
    wrong.write_text(task.read_text().replace("params.seed", "params.other"))
    done = subprocess.run([program, wrong], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Undefined param 'other'" in done.stdout


@pytest.mark.interop
def test_renovate_takes_the_preset() -> None:
    program = of_npm("renovate@44", "renovate-config-validator")
    said = check(program, "--no-global", ROOT / "renovate/seed-lock.json")
    assert "Config validated successfully against 1 file(s)" in said


@pytest.mark.interop
def test_pre_commit_checks_the_policy(tmp_path: Path) -> None:
    repository = tmp_path / "project"
    check("git", "init", "-q", repository)
    sample = World(tmp_path / "world").write_policy().read_text()
    (repository / "trust.toml").write_text(sample)
    check("git", "add", ".", cwd=repository)
    hook = ("pre-commit", "try-repo", str(ROOT), "nix-seed-policy", "--all-files")
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    env["PRE_COMMIT_HOME"] = str(tmp_path / "kept")
    assert "Passed" in tool(*hook, cwd=repository, env=env)
    (repository / "trust.toml").write_text(re.sub("threshold = .", "threshold = 9", sample))
    check("git", "add", ".", cwd=repository)
    assert UV is not None
    done = subprocess.run(
        [UV, "tool", "run", *hook], cwd=repository, env=env, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "trust.toml, line" in done.stdout
