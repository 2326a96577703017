"""What commands say of counts: in words that fit none, one, some and all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nix_seed.cli.image.build import _licence_lines
from nix_seed.cli.release.attest import _lines
from nix_seed.cli.release.verify import _dissent_lines
from nix_seed.cli.setup.doctor import _lines as diagnosis_lines
from nix_seed.licences.rules.judge import UnknownLicence
from nix_seed.setup.rules.diagnosis import Diagnosis, Health
from support.specs import tiny_spec
from support.trust import World


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, None),
        (1, "licences   of 1 store path not known: "),
        (3, "licences   of 3 store paths not known: "),
    ],
)
def test_unknown_licences_stay_in_the_summary(number: int, words: str | None) -> None:
    spec = tiny_spec()
    unknown = tuple(UnknownLicence(path, "unknown") for path in sorted(spec.paths)[:number])
    lines = list(_licence_lines(replace(spec, unknown=unknown)))
    if words is None:
        assert lines == []
        return
    assert lines[0].startswith(words)
    assert all(each.path.name in lines[0] for each in unknown)
    assert lines[1].strip().startswith("it is not pushed to a public registry")


@pytest.mark.parametrize(
    ("differ", "words"),
    [((1,), "2 of 45 differ"), ((0, 44), "1, 45 of 45 differ"), (range(45), "all 45 differ")],
)
def test_layers_that_differ_are_counted_once(differ: Any, words: str) -> None:
    dissent = SimpleNamespace(
        claim=SimpleNamespace(predicate=SimpleNamespace(image_digest="d", layers=range(45))),
        about_roots=False,
        builder=SimpleNamespace(id="carol"),
        difference=SimpleNamespace(layers=[SimpleNamespace(position=at) for at in differ]),
    )
    lines = list(_dissent_lines(dissent, ()))  # type: ignore[arg-type]
    assert lines[1] == f"      layers   {words}"


def test_paths_of_unknown_origin_are_called_so(tmp_path: Path) -> None:
    said = World(tmp_path).says("alice")
    paths = replace(said.paths, unexplained=147)
    done = SimpleNamespace(predicate=replace(said, paths=paths), signer="key x", logs=())
    [line] = [each for each in _lines(done) if each.startswith("  paths")]  # type: ignore[arg-type]
    assert line.endswith("147 of unknown origin")
    assert "unexplained" not in line


@pytest.mark.parametrize(
    ("warnings", "words"), [(0, "1 fine"), (1, "1 fine, 1 warning"), (5, "1 fine, 5 warnings")]
)
def test_a_diagnosis_ends_with_a_count(warnings: int, words: str) -> None:
    fine = Diagnosis("nix", "version", Health.FINE, "2.34")
    found = [fine, *(replace(fine, outcome=Health.WARNING, fix="do so") for _ in range(warnings))]
    assert list(diagnosis_lines(found, verbose=False))[-1] == words
