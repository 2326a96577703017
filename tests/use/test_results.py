"""What a hostile command leaves must not reach the host: links in its tar, and among its links."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nix_seed.core.errors import CheckedFalse
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.use.results import Link, _extract, _link, clear_results, hold
from support.layouts import directory, file, symlink, tar

NAME = f"{'0' * 31}a-x"
IMAGE: Any = SimpleNamespace(name="the image")


@pytest.mark.parametrize("place", ["nix", "nix/store"])
def test_a_link_in_the_results_leads_to_no_store_of_the_hosts(place: str, tmp_path: Path) -> None:
    host = tmp_path / "host/nix/store"
    (host / NAME).mkdir(parents=True)
    leads = [directory("nix"), symlink("nix/store", str(host))]
    if place == "nix":
        leads = [symlink("nix", str(host.parent))]
    archive = tmp_path / "export.tar"
    archive.write_bytes(tar(leads))
    (tmp_path / "out").mkdir()
    with pytest.raises(CheckedFalse, match="have a link, or nothing, where their nix/store"):
        _extract(archive, tmp_path / "out", [StorePath(NAME)], IMAGE)
    assert (host / NAME).is_dir(), "the host's own path is where it was"


def test_results_are_moved_as_they_are(tmp_path: Path) -> None:
    archive = tmp_path / "export.tar"
    top = [directory("nix"), directory("nix/store"), directory(f"nix/store/{NAME}")]
    archive.write_bytes(tar([*top, file(f"nix/store/{NAME}/f", b"x")]))
    out = tmp_path / "out"
    out.mkdir()
    _extract(archive, out, [StorePath(NAME)], IMAGE)
    moved = out / "nix/store" / NAME
    assert (moved / "f").read_bytes() == b"x"
    assert moved.stat().st_mode & 0o777 == 0o555
    assert os.listdir(out) == ["nix"]


@pytest.mark.parametrize("dry", [True, False])
def test_results_stay_while_a_link_leads_to_them(dry: bool, tmp_path: Path) -> None:
    place, link = tmp_path / "results", tmp_path / "project/result"
    store = place / "nix/store"
    for name in (NAME, f"{'1' * 32}-y"):
        (store / name).mkdir(parents=True)
        (store / name).chmod(0o555)
    link.parent.mkdir()
    link.symlink_to(store / NAME)
    hold(place, [Link(link, str(store / NAME))])
    later = time.time() + 60
    assert clear_results(place, later - 3600) == ()
    assert clear_results(place, later, dry=dry) == (f"{'1' * 32}-y",)
    assert len(os.listdir(store)) == 1 + dry
    link.unlink()
    gone = clear_results(place, later, dry=dry)
    assert gone[:1] == (NAME,)
    assert len(os.listdir(store)) == 2 * dry


@pytest.mark.parametrize("place", [".git/hooks/pre-commit", "sub/.GIT/config", "../x", "/etc/x"])
def test_no_link_is_made_where_it_would_be_run(place: str, tmp_path: Path) -> None:
    (tmp_path / ".git/hooks").mkdir(parents=True)
    with pytest.raises(CheckedFalse, match="the container asked for a link"):
        _link(tmp_path, f"{place}\t/nix/store/{NAME}")
