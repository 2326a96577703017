"""A real seed keeps its whole contract, and as a job's container of GitHub's runner as well."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from nix_seed.registry.layout import Image
from nix_seed.setup.doctor_image import GITHUB, check_image, kind_of
from nix_seed.setup.rules.diagnosis import Health, checks_for, exit_code
from nix_seed.use.engines.base import Engine
from nix_seed.use.engines.containers import extra, why_no_start


def test_a_seed_is_well(
    engine: Engine, image: Image, root: Path, started: tuple[str, dict[str, str]]
) -> None:
    ways = [engine.name, GITHUB] if engine.name == "docker" else [engine.name]
    found = list(check_image(image, root.parent.parent, ways))
    assert [each for each in found if each.outcome is not Health.FINE] == []
    assert exit_code(found) == 0
    assert len(found) == len(ways) * len(checks_for("seed", image.architecture))
    assert {each.area for each in found} == set(ways)


def test_an_image_to_ship_is_asked_for_less(engine: Engine, run_image: Image, root: Path) -> None:
    assert kind_of(run_image) == "run"
    found = list(check_image(run_image, root.parent.parent, [engine.name]))
    assert exit_code(found) == 0
    assert len(found) == len(checks_for("run", run_image.architecture))


def test_an_engine_is_asked_to_start_a_container(
    engine: Engine, started: tuple[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    if engine.name == "bwrap":
        assert engine.unavailable() is None, "which makes a namespace"
        return
    assert why_no_start(engine.name) is None
    kept = images(engine.name)
    monkeypatch.setenv(f"NIX_SEED_{engine.name.upper()}_RUN_ARGS", "--no-such-option")
    assert "it starts no container: " in (why_no_start(engine.name) or "")
    assert images(engine.name) == kept, "what was tried with is removed"


def images(program: str) -> set[str]:
    """What it has, in no order."""
    command = [program, *extra(program), "images", "--all", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stdout.split())
