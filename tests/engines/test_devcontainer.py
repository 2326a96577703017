"""A seed is a devcontainer: the specification's own program starts it, by podman."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from support import built, engines, quick
from support.programs import need

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples/devcontainer/devcontainer.json"
VERSION = "0.89.0"


def devcontainer() -> Path:
    """Return the specification's program, from npm, or skip the test by name."""

    def install(path: Path) -> None:
        need("npm")
        command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(path)]
        done = subprocess.run(
            [*command, f"@devcontainers/cli@{VERSION}"], capture_output=True, check=False
        )
        if done.returncode != 0:
            pytest.skip("needs npm to reach its registry, for the package @devcontainers/cli")

    return quick.once(f"devcontainer-{VERSION}", install) / "node_modules/.bin/devcontainer"


def test_the_guide_shows_the_example() -> None:
    guide = (ROOT / "docs/howto/shell.md").read_text()
    [shown] = [part.split("```")[0] for part in guide.split("```json\n")[1:]]
    assert json.loads(shown) == json.loads(EXAMPLE.read_text())


def test_up_and_build(podman_here: engines.Started, tmp_path: Path) -> None:
    program = devcontainer()
    image = json.loads(EXAMPLE.read_text())["image"]
    project = built.fresh_project(tmp_path / "project")
    (project / ".devcontainer").mkdir()
    shutil.copy(EXAMPLE, project / ".devcontainer")
    podman = ["podman", *shlex.split(podman_here.env["NIX_SEED_PODMAN_ARGS"])]
    run = podman_here.env["NIX_SEED_PODMAN_RUN_ARGS"]
    found = subprocess.check_output(
        [*podman, "pull", "-q", f"oci:{built.layout('seed')}"], text=True
    ).strip()
    subprocess.run([*podman, "tag", found, image], check=True)
    wrapper = tmp_path / "podman-here"
    # What this machine needs to start containers at all, and nothing else.
    wrapper.write_text(
        f'#!/bin/sh\nif [ "$1" = run ]; then shift; exec {shlex.join(podman)} run {run} '
        f'--network none "$@"; fi\nexec {shlex.join(podman)} "$@"\n'
    )
    wrapper.chmod(0o755)
    common = ["--docker-path", str(wrapper), "--workspace-folder", str(project)]
    env = os.environ | {"HOME": str(tmp_path)}
    try:
        up = subprocess.run(
            [program, "up", *common], env=env, capture_output=True, text=True, check=False
        )
        assert up.returncode == 0, up.stdout + up.stderr
        assert json.loads(up.stdout.splitlines()[-1])["outcome"] == "success"
        done = subprocess.run(
            [program, "exec", *common, "sh", "-c", "pwd && nix build && result/bin/greet x y"],
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.startswith("/src")
    finally:
        subprocess.run([*podman, "rm", "--all", "--force"], check=True, capture_output=True)
