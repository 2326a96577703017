"""What uses an image verifies it first, where the project has a policy."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from support.releases import Ended, ReleaseWorld
from support.trust import SYSTEM


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ReleaseWorld:
    world = ReleaseWorld.fresh(tmp_path / "world")
    world.write_policy()
    monkeypatch.chdir(world.root)
    monkeypatch.setenv("NIX_SEED_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("NIX_SEED_CACHE", str(tmp_path / "cache"))
    return world


def hydrate(world: ReleaseWorld, tag: str, root: Path, *more: str) -> Ended:
    reference = f"{world.repository}:{tag}"
    return world.run("hydrate", reference, "--root", str(root), "--system", SYSTEM, *more)


def test_lock_pins_only_what_verifies(world: ReleaseWorld) -> None:
    world.attest_all()
    refused = world.run("lock", f"{world.repository}:seed")
    assert refused.code == 1
    assert "no promotion record of" in refused.printed
    assert not (world.root / "seed.lock").exists()
    world.promote("rita", "latest")
    done = world.run("lock", f"{world.repository}:latest")
    assert done.code == 0, done.printed
    assert "verified by trust.toml: " in done.printed
    assert str(world.arm.descriptor.digest) in (world.root / "seed.lock").read_text()


def test_no_verify_says_loudly_what_was_skipped(world: ReleaseWorld) -> None:
    done = world.run("lock", f"{world.repository}:seed", "--no-verify")
    assert done.code == 0
    assert "WARNING" in done.printed
    assert "neither that builders agree on it was checked, nor that it was promoted" in done.printed


def test_without_a_policy_nothing_is_asked(world: ReleaseWorld) -> None:
    (world.root / "trust.toml").unlink()
    done = world.run("lock", f"{world.repository}:seed")
    assert done.code == 0
    assert "erified" not in done.printed


def test_a_policy_that_is_named_must_be_there(world: ReleaseWorld) -> None:
    done = world.run("lock", f"{world.repository}:seed", "--policy", "nowhere.toml")
    assert done.code == 2
    assert "there is no policy at nowhere.toml" in done.printed


def test_hydrate_takes_the_promoted_image_of_its_system(
    world: ReleaseWorld, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    world.attest_all()
    assert hydrate(world, "seed", root).code == 1
    assert not root.exists()
    world.promote("rita", "latest")
    done = hydrate(world, "latest", root)
    assert done.code == 0, done.printed
    assert sorted(path.name.partition("-")[2] for path in (root / "nix/store").iterdir()) == [
        "gcc-12.2.0",
        "glibc-2.36",
    ]


def test_a_tag_moved_by_hand_is_refused(world: ReleaseWorld, tmp_path: Path) -> None:
    world.attest_all()
    world.promote("rita", "latest")
    found = world.store.get_manifest("tampered")
    assert found is not None
    world.store.put_manifest(found.body, found.descriptor.media_type, "latest")
    done = hydrate(world, "latest", tmp_path / "root")
    assert done.code == 1
    assert "does not verify" in done.printed


def test_a_digest_is_verified_once_a_day(world: ReleaseWorld, tmp_path: Path) -> None:
    world.attest_all()
    world.promote("rita", "latest")
    reference = f"{world.repository}@{world.image.descriptor.digest}"
    root = str(tmp_path / "root")
    first = world.run("hydrate", reference, "--root", root, "--system", SYSTEM)
    assert first.code == 0, first.printed
    assert "promoted by rita" in first.printed
    again = world.run("hydrate", reference, "--root", root, "--system", SYSTEM)
    assert again.code == 0
    assert "verified within the last day" in again.printed
    world.head["epoch"] = "2"
    world.write_policy()
    assert world.run("hydrate", reference, "--root", root, "--system", SYSTEM).code == 1


def test_a_log_that_is_gone_leaves_it_unchecked(world: ReleaseWorld, tmp_path: Path) -> None:
    world.attest_all()
    world.promote("rita", "latest")
    shutil.rmtree(world.root / "log")
    done = hydrate(world, "latest", tmp_path / "root")
    assert done.code == 3, done.printed
    assert "could not be verified" in done.printed


def test_run_refuses_before_it_starts_anything(world: ReleaseWorld) -> None:
    world.attest_all()
    reference = f"{world.repository}:seed"
    done = world.run("run", "--image", reference, "--flake", ".", "--", "touch", "started")
    assert done.code == 1
    assert "does not verify: no promotion record" in done.printed
    assert not (world.root / "started").exists()


def test_the_wrong_system_is_no_way_round(world: ReleaseWorld, tmp_path: Path) -> None:
    world.attest_all()
    world.promote("rita", "latest")
    reference = f"{world.repository}:latest"
    done = world.run(
        "hydrate", reference, "--root", str(tmp_path / "root"), "--system", "riscv64-linux"
    )
    assert done.code == 2
    assert "has no images for riscv64-linux" in done.printed
