"""Which words name an image, and which a flake: the commands that take either must not guess."""

from __future__ import annotations

from pathlib import Path

import pytest

from nix_seed.cli.options import image_named
from nix_seed.core.errors import InputError


@pytest.mark.parametrize(
    "text",
    [
        "ghcr.io/owner/repo:tag",
        "ghcr.io/owner/repo",
        "localhost/x:y",
        "localhost:5000/x:y",
        "127.0.0.1:5000/demo/seed@sha256:" + "0" * 64,
        "[::1]:5000/x",
        "oci:some/dir:tag",
    ],
)
def test_images(text: str) -> None:
    assert str(image_named(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        ".",
        "./x",
        "../x.y/z",
        "/abs/x.y/z",
        "~/x.y/z",
        ".#seed",
        "github:owner/repo.nix",
        "github:Owner/Repo/v1.0",
        "git+https://forge.example/x.git?rev=0",
        "git+file:///x",
        "path:/x.y/z",
        "https://forge.example/x.tar.gz",
        "nixpkgs",
        "nixpkgs/nixos-23.05",
        "flake:nixpkgs/x.y",
        "forge.example/x#seed",
        "project",
    ],
)
def test_flakes(text: str) -> None:
    assert image_named(text) is None


def test_what_is_here_is_a_flake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert image_named("my.flakes/project") is not None
    (tmp_path / "my.flakes" / "project").mkdir(parents=True)
    assert image_named("my.flakes/project") is None


def test_an_image_with_a_slip_of_the_pen_is_told_as_one() -> None:
    with pytest.raises(InputError, match="has upper-case letters, which registries refuse"):
        image_named("ghcr.io/Owner/repo:tag")
