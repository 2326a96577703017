"""The example with a compiler, a debugger and a Python, on ARM64 (`make arm64`: it takes long)."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from support import engines, quick
from support.distribution import make_project
from support.seeds import build, edit, nix_seed

SYSTEM = "aarch64-linux"
pytestmark = [pytest.mark.arm64, pytest.mark.timeout(3600)]
COMMANDS = """
set -e
uname -m
nix build --out-link result .#greet
./result/bin/greet Hello offline
nix run . -- Hello app
nix build .#checks.aarch64-linux.greet && echo checked
nix develop --command sh -c 'cc -dumpmachine; gdb --batch -ex "python print(1 + 1)"'
"""


@pytest.fixture(scope="module")
def example(both: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project("two-packages", tmp_path_factory.mktemp("example") / "project", both)


@pytest.fixture(scope="module")
def seed(example: Path) -> Path:
    layout = example.parent / "seed"
    build(example, "--system", SYSTEM, "-o", layout, "--prove", cache=quick.root() / "cache")
    return layout


@pytest.fixture(scope="module", params=["bwrap", "podman", "docker"])
def started(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Mapping[str, str]]]:
    with engines.started(request.param, tmp_path_factory.mktemp(request.param)) as given:
        yield given


def test_c_is_compiled_checked_and_debugged_offline(
    started: tuple[str, Mapping[str, str]], example: Path, seed: Path, tmp_path: Path
) -> None:
    engine, environment = started
    project = tmp_path / "project"
    subprocess.run(["git", "clone", "-q", str(example), str(project)], check=True)
    edit(project, "libgreet/greet.c", '"%s, %s!"', '"%s, %s?"')
    edit(project, "nix/test_greet.py", "Hello, Nix!", "Hello, Nix?")
    ran = nix_seed(
        "run", "--engine", engine, "--image", f"oci:{seed}", "--flake", project,
        "--out", tmp_path / "out", "--", "sh", "-c", COMMANDS,
        cache=quick.root() / "cache",
        env=environment,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert ran.out.splitlines()[:6] == [
        "aarch64", "Hello, offline?", "Hello, app?", "checked", "aarch64-linux-gnu", "2",
    ]  # fmt: skip
