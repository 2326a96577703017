"""Where images are unpacked, to be executed: nobody else can write there, or it is elsewhere."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from nix_seed.cli.options import unpacking_cache
from nix_seed.core.errors import CouldNotCheck
from nix_seed.image.read.unpack import check_private, private_cache

OWN = (
    Path("/var/cache/nix-seed")
    if os.geteuid() == 0
    else Path(tempfile.gettempdir(), f"nix-seed-{os.geteuid()}")
)


def job_home(home: Path) -> Path:
    """Make a job container's HOME: another user's where we are root, and open to all."""
    home.mkdir(exist_ok=True)
    home.chmod(0o777)
    if os.geteuid() == 0:
        os.chown(home, 1001, 1001)
    return home


@pytest.mark.parametrize("there", ["", ".cache", ".cache/nix-seed"])
def test_a_home_of_another_user_is_left_for_a_place_of_ones_own(
    there: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = job_home(tmp_path / "home")
    (home / there).mkdir(parents=True, exist_ok=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("NIX_SEED_CACHE", raising=False)
    assert unpacking_cache() == OWN
    assert f"others can write to {home}/.cache/nix-seed: images are unpacked in {OWN}" in (
        capsys.readouterr().err
    )


def test_a_home_of_ones_own_stays(tmp_path: Path) -> None:
    assert private_cache(tmp_path / "home/.cache/nix-seed") == tmp_path / "home/.cache/nix-seed"


def test_what_is_named_is_taken_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = job_home(tmp_path / "home")
    monkeypatch.setenv("NIX_SEED_CACHE", str(home))
    assert unpacking_cache() == home
    with pytest.raises(CouldNotCheck, match="where unpacked images are kept"):
        check_private(home)


def test_a_place_of_ones_own_that_others_made_is_refused(tmp_path: Path) -> None:
    """Whoever guesses the name in a directory that is everybody's gains nothing."""
    planted = tmp_path / "nix-seed-0"
    planted.mkdir()
    planted.chmod(0o777)
    with pytest.raises(CouldNotCheck, match="can be written to by others"):
        check_private(planted)
