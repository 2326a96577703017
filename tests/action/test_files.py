"""The action's files by themselves: their schemas, linters, pins, and what they promise."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from nix_seed.cli.setup.ci import command
from nix_seed.cli.setup.ci_machine import KEPT_FROM_CHILDREN
from nix_seed.setup.init import render_ci
from support.goprograms import installed
from support.pythons import OTHERS
from support.steps import ROOT, load, parse

ACTIONS = ["action.yml", "use/action.yml", "use/served/action.yml", "promote/action.yml"]
WORKFLOWS = [
    ".github/workflows/release.yml",
    ".github/workflows/site.yml",
    ".github/workflows/seed.yml",
    "examples/github/seed.yml",
    "examples/github/container.yml",
]
FILES = ACTIONS + WORKFLOWS
OURS = "0compute/nix-seed"
BIN = Path(sys.executable).parent


def steps_of(name: str) -> list[dict[str, Any]]:
    value = load(ROOT / name)
    if "runs" in value:
        return list(value["runs"]["steps"])
    return [step for job in value["jobs"].values() for step in job.get("steps", [])]


def uses_of(name: str) -> list[str]:
    value = load(ROOT / name)
    called = [job["uses"] for job in value.get("jobs", {}).values() if "uses" in job]
    return called + [step["uses"] for step in steps_of(name) if "uses" in step]


def check(*command: str | Path) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


SCHEMAS = {
    "vendor.github-actions": ACTIONS,
    "vendor.github-workflows": WORKFLOWS,
    "vendor.gitlab-ci": ["examples/gitlab/.gitlab-ci.yml"],
}


@pytest.mark.parametrize("kind", SCHEMAS)
def test_schema(kind: str) -> None:
    """It names each file that is wrong, and takes a second to start."""
    check(BIN / "check-jsonschema", "--builtin-schema", kind, *SCHEMAS[kind])


def test_zizmor_finds_nothing() -> None:
    config = ROOT / ".github/zizmor.yml"
    check(BIN / "zizmor", "--offline", "--persona=auditor", "--config", config, *FILES)


@pytest.mark.interop
@pytest.mark.parametrize("name", WORKFLOWS)
def test_actionlint_finds_nothing(name: str) -> None:
    # It does not know the job's own workflow yet; shellcheck is there or not by chance.
    known = 'property "workflow_(sha|repository)" is not defined'
    check(installed("actionlint"), "-shellcheck=", "-pyflakes=", "-ignore", known, name)


@pytest.mark.parametrize("name", FILES)
def test_what_is_anothers_is_pinned_by_its_commit(name: str) -> None:
    text = (ROOT / name).read_text()
    for used in uses_of(name):
        if used.startswith(("./", f"{OURS}/")):
            continue
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", used), used
        assert re.search(rf"uses: {re.escape(used)} # v\d+\.\d+\.\d+$", text, re.MULTILINE), used


@pytest.mark.parametrize("name", FILES)
def test_what_is_ours_is_named_by_this_release(name: str) -> None:
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    for used in uses_of(name):
        if used.startswith(f"{OURS}/"):
            assert used.endswith(f"@v{version[1]}"), used
    for named in re.findall(r"job\.workflow_sha \|\| '(.+?)'", (ROOT / name).read_text()):
        assert named == f"v{version[1]}"


@pytest.mark.parametrize("name", FILES)
def test_scripts_hold_no_expression(name: str) -> None:
    for step in steps_of(name):
        assert "${{" not in step.get("run", ""), "whoever writes the value would write the script"


@pytest.mark.parametrize("name", ACTIONS)
def test_every_input_is_passed_on_and_told_of(name: str) -> None:
    action = load(ROOT / name)
    passed = [str(value) for step in steps_of(name) for value in step.get("env", {}).values()]
    for key, each in action.get("inputs", {}).items():
        assert f"${{{{ inputs.{key} }}}}" in passed, key
        assert each["description"], key
        assert each["required"] is False, f"{key}: nothing has to be said"
    for key, each in action.get("outputs", {}).items():
        assert each["value"].startswith("${{ steps."), key


@pytest.mark.parametrize("name", ACTIONS)
def test_every_variable_is_an_option(name: str) -> None:
    """An input that the command does not know would be passed over in silence."""
    for step in steps_of(name):
        found = re.search(r"ci (\w+)", step.get("run", ""))
        if found is None:
            continue
        own = command.get_command(click.Context(command), found[1])
        assert own is not None
        known = {each.envvar for each in own.params} | {"SEED_REGISTRY_TOKEN", *KEPT_FROM_CHILDREN}
        known |= {"NIX_SEED_SETUP_SECONDS", "NIX_SEED_PYTHON"}  # the launcher's
        assert set(step.get("env", {})) <= known


@pytest.mark.parametrize("name", ACTIONS)
def test_nothing_is_installed_beside_a_secret(name: str) -> None:
    """The launcher sets itself up in a step of its own, which is given nothing."""
    first = steps_of(name)[0]
    assert re.search(r'/bin/nix-seed" ci setup( --only)?$', first["run"].strip())
    assert "env" not in first


def test_the_reusable_workflow_offers_all_that_its_actions_take() -> None:
    workflow = load(ROOT / ".github/workflows/seed.yml")
    offered = {**workflow["on"]["workflow_call"]["inputs"]}
    offered |= workflow["on"]["workflow_call"]["secrets"]
    for job, name, own in (
        # The tags are the index's; the matrix says which system.
        ("seed", "action.yml", {"tags": None, "system": "${{ matrix.system }}"}),
        (
            "promote",
            "promote/action.yml",
            {"commit": None, "source_token": None, "result": "${{ needs.seed.result }}"},
        ),
    ):
        given = workflow["jobs"][job]["steps"][-1]["with"]
        for key in load(ROOT / name)["inputs"]:
            if key in own:
                assert given.get(key) == own[key], key
            else:
                assert key in offered, key
                assert key in given[key], key


def test_the_reusable_workflow_takes_secret_lines_for_nix() -> None:
    """An input of such a workflow may hold no secret: GitHub knows no ``secrets`` there."""
    workflow = load(ROOT / ".github/workflows/seed.yml")
    assert workflow["on"]["workflow_call"]["secrets"]["nix_conf"]["required"] is False
    given = workflow["jobs"]["seed"]["steps"][-1]["with"]["nix_conf"]
    assert given.splitlines() == ["${{ inputs.nix_conf }}", "${{ secrets.nix_conf }}"]


def test_promotions_of_different_things_do_not_wait_for_each_other() -> None:
    job = load(ROOT / ".github/workflows/seed.yml")["jobs"]["promote"]
    for name in ("registry", "image", "flake", "seed_attr"):
        assert f"${{{{ inputs.{name} }}}}" in job["concurrency"]["group"]
    assert job["concurrency"]["cancel-in-progress"] is False


@pytest.mark.parametrize("where", ["the example", "init"])
def test_every_commit_of_a_branch_has_a_run(where: str) -> None:
    """Of several runs that wait in one group GitHub keeps the newest alone."""
    rendered = render_ci("github", ref="v1", branch="main", systems=["x86_64-linux"], directory="")
    value = load(ROOT / "examples/github/seed.yml") if where == "the example" else parse(rendered)
    group = value["concurrency"]["group"]
    assert "github.event_name == 'pull_request' && github.ref || github.sha }}" in group
    assert (
        value["concurrency"]["cancel-in-progress"] == "${{ github.event_name == 'pull_request' }}"
    )


def documented(heading: str) -> set[str]:
    """The inputs that the tables of docs/ci.md name."""
    text = (ROOT / "docs/ci.md").read_text()
    cells = re.findall(r"^\| (`[^|]+`) \|", text[text.index(heading) :], re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


@pytest.mark.parametrize("name", ACTIONS)
def test_every_input_and_output_is_documented(name: str) -> None:
    action, text = load(ROOT / name), (ROOT / "docs/ci.md").read_text()
    for key in action.get("inputs", {}):
        assert key in documented("### The actions"), key
    for key in action.get("outputs", {}):
        assert f"`{key}`" in text, key


def test_the_documents_workflows_are_workflows(tmp_path: Path) -> None:
    text = (ROOT / "docs/ci.md").read_text()
    blocks = re.findall(r"^```yaml workflow\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 2
    files = [tmp_path / f"{number}.yml" for number in range(2)]
    for file, block in zip(files, blocks, strict=True):
        file.write_text(block)
        for used in re.findall(r"uses: (actions/\S+)", block):
            assert used in (ROOT / ".github/workflows/seed.yml").read_text()
    check(BIN / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", *files)


def test_the_reusable_workflow_has_least_permissions() -> None:
    workflow = load(ROOT / ".github/workflows/seed.yml")
    assert workflow["permissions"] == {}
    wanted = {"contents": "read", "packages": "write", "id-token": "write"}
    assert {name: job["permissions"] for name, job in workflow["jobs"].items()} == {
        "seed": wanted,
        "promote": wanted,
    }
    assert all(
        step["with"]["persist-credentials"] is False
        for step in steps_of(".github/workflows/seed.yml")
        if step.get("uses", "").startswith("actions/checkout")
    )


def test_the_reusable_workflow_knows_four_systems() -> None:
    inputs = load(ROOT / ".github/workflows/seed.yml")["on"]["workflow_call"]["inputs"]
    systems = json.loads(inputs["systems"]["default"])
    assert sorted(systems) == sorted(json.loads(inputs["runners"]["default"]))
    assert json.loads(inputs["runners"]["default"]) == {
        "x86_64-linux": "ubuntu-24.04",
        "aarch64-linux": "ubuntu-24.04-arm",
        "aarch64-darwin": "macos-15",
        "x86_64-darwin": "macos-15-intel",
    }


def test_no_digest_travels_by_a_matrix_output() -> None:
    seed = load(ROOT / ".github/workflows/seed.yml")["jobs"]["seed"]
    assert "outputs" not in seed, "of a matrix, the last job's outputs win"


def test_what_is_installed_is_what_is_locked() -> None:
    """``bin/requirements.txt`` is ``uv.lock``, for those without uv."""
    path = os.pathsep.join([str(BIN), os.environ["PATH"]])
    if shutil.which("uv", path=path) is None:
        pytest.skip("needs uv: pip install uv")
    done = subprocess.run(
        [ROOT / "tools/export-requirements"],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (ROOT / "bin/requirements.txt").read_text() == done.stdout, (
        "make it again: make bin/requirements.txt"
    )


@pytest.mark.parametrize("name", ["action.yml", "use/action.yml"])
def test_no_build_finds_the_token_that_installing_nix_leaves(name: str) -> None:
    """``cachix/install-nix-action`` writes it into nix.conf, and takes no input not to."""
    steps = steps_of(name)
    [number] = [n for n, step in enumerate(steps) if "install-nix-action" in step.get("uses", "")]
    after = steps[number + 1]
    assert after["run"].strip().endswith('bin/drop-access-tokens"')
    assert after["if"] == steps[number]["if"]


def test_what_is_not_a_token_stays_in_nix_conf(tmp_path: Path) -> None:
    conf = tmp_path / "nix.conf"
    kept = "max-jobs = auto\n# access-tokens are elsewhere\nexperimental-features = nix-command\n"
    own = " access-tokens = github.com=secret\nextra-access-tokens=github.com=secret\n"
    conf.write_text(f"{kept}{own}trusted-users = root\n")
    conf.chmod(0o644)
    for _ in range(2):
        subprocess.run([ROOT / "bin/drop-access-tokens", conf], check=True)
        assert conf.read_text() == f"{kept}trusted-users = root\n"
    assert [each.name for each in tmp_path.iterdir()] == ["nix.conf"], "no copy holds it"
    subprocess.run([ROOT / "bin/drop-access-tokens", tmp_path / "absent"], check=True)


@pytest.mark.parametrize("name", ["bin/nix-seed", "bin/publish", "bin/drop-access-tokens"])
def test_scripts_are_plain_posix(name: str) -> None:
    path = ROOT / name
    assert path.stat().st_mode & 0o111
    check("dash", "-n", path)


def test_a_file_is_made_for_each_python_that_the_launcher_takes() -> None:
    taken = r"\(3, (\d+)\) <= sys\.version_info < \(3, (\d+)\)"
    found = {
        match
        for name in ("nix-seed", "launch.py")
        for match in re.findall(taken, (ROOT / "bin" / name).read_text())
    }
    [(least, beyond)] = found
    minors = range(int(least), int(beyond))
    release = (ROOT / ".github/workflows/release.yml").read_text()
    assert f"for minor in {' '.join(map(str, minors))}; do" in release
    assert {f"3.{minor}" for minor in minors} == {"3.11", *OTHERS}
