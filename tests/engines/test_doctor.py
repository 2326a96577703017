"""A real seed keeps its whole contract, and as a job's container of GitHub's runner as well."""

from __future__ import annotations

from pathlib import Path

from nix_seed.registry.image import Image
from nix_seed.setup.doctor_image import GITHUB, check_image, kind_of
from nix_seed.setup.rules.contract import checks_for
from nix_seed.setup.rules.diagnosis import Health, exit_code
from nix_seed.use.engines.base import Engine


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
