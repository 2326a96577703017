from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from nix_seed.cli.command import progress
from nix_seed.core.events import Stage, tell
from nix_seed.core.files import cache_directory
from nix_seed.core.words import human_size, plural


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (99_949, "99.9 kB"),
        (99_950, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (12_345_678, "12.3 MB"),
        (4_000_000_000, "4.0 GB"),
        (5e15, "5000.0 TB"),
    ],
)
def test_sizes_are_short(size: float, text: str) -> None:
    assert human_size(size) == text


@given(st.integers(0, 10**15 - 1))
def test_sizes_are_near_the_truth(size: int) -> None:
    number, unit = human_size(size).split()
    assert re.fullmatch(r"\d{1,3}(\.\d)?|\d{4}\.\d", number)
    factor = 1000 ** ["bytes", "kB", "MB", "GB", "TB"].index(unit)
    assert abs(float(number) * factor - size) <= max(size * 0.05, 0)


def test_one_is_singular() -> None:
    assert [plural(number, "layer") for number in (0, 1, 2)] == ["0 layers", "1 layer", "2 layers"]


def test_the_cache_lies_where_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIX_SEED_CACHE", "/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert cache_directory() == Path("/a")
    monkeypatch.setenv("NIX_SEED_CACHE", "")
    assert cache_directory() == Path("/b/nix-seed")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/h")
    assert cache_directory() == Path("/h/.cache/nix-seed")


def test_a_log_holds_a_line_a_stage(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(quiet=False):
        tell(Stage("a", "doing a"))
        tell("something small")
    with progress(quiet=True):
        tell(Stage("b", "doing b"))
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "nix-seed: doing a\n")
