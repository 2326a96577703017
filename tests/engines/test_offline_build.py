"""What a seed is for: source that changed after it was made, built inside with no network."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from support import built, engines
from support.seeds import edit, nix_seed

COMMANDS = """
set -e
nix build --out-link result .#greet
./result/bin/greet Hello offline
nix run . -- Hello app
nix flake check 2>/dev/null && echo checked
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Both packages of the example changed, as a developer would, after the seed was made."""
    project = built.fresh_project(tmp_path / "project")
    edit(project, "libgreet/greet.c", '"%s, %s!"', '"%s, %s?"')
    edit(project, "greet/main.c", "usage:", "how to use it:")
    edit(project, "nix/test_greet.py", "Hello, Nix!", "Hello, Nix?")
    return project


def test_a_changed_source_is_built(
    started: tuple[str, dict[str, str]], layout: Path, project: Path, tmp_path: Path
) -> None:
    engine, environment = started
    host = tmp_path / "host"
    where = ["--engine", engine, "--image", f"oci:{layout}", "--flake", f"{project}"]
    ran = nix_seed(
        "run", "--json", *where, "--store", host, "--", "sh", "-c", COMMANDS,
        cache=built.workshop() / "cache",
        env=environment,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    said, brace, rest = ran.out.partition("{")
    assert said.splitlines() == ["Hello, offline?", "Hello, app?", "checked"]
    value = json.loads(brace + rest)
    assert str(project / "result") in value["links"]
    names = {Path(path).name[33:] for path in value["paths"]}
    assert {"greet-1.0", "libgreet-1.0"} <= names
    sys.stdout.write(f"{engine}: {json.dumps(value['seconds'])}\n")


def test_the_shell_is_there(layout: Path, project: Path, tmp_path: Path) -> None:
    engines.need("bwrap", "bubblewrap")
    tools = "cc --version >/dev/null && gdb --version >/dev/null && echo shell"
    ran = nix_seed(
        "run", "--image", f"oci:{layout}", "--flake", project, "--out", tmp_path / "out",
        "--", "nix", "develop", "--command", "sh", "-c", tools,
        cache=built.workshop() / "cache",
    )  # fmt: skip
    assert (ran.code, ran.out) == (0, "shell\n"), ran.err


def test_it_is_complete(started: tuple[str, dict[str, str]], layout: Path, project: Path) -> None:
    engine, environment = started
    ran = nix_seed(
        "prove", "--engine", engine, "--image", f"oci:{layout}", "--flake", project,
        cache=built.workshop() / "cache",
        env=environment,
    )  # fmt: skip
    assert (ran.code, ran.out) == (0, "complete: all 6 outputs can be built offline\n"), ran.err
