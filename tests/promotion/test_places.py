"""Promotion in real registries, in real logs, and by several promoters at once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import count
from pathlib import Path

import pytest

from nix_seed.clients.registry.client import Registry
from nix_seed.clients.registry.credentials import Keyring
from support.real_logs import logged_by, published
from support.registries import Running, docker_registry, referrers_registry
from support.rekor import rekor_v1, rekor_v2
from support.releases import ARM, ReleaseWorld
from support.trust import COMMIT

NUMBERS = count()


def check_release(world: ReleaseWorld) -> None:
    """Promote, see that it verifies every way, and that a second time changes nothing."""
    world.attest_all()
    done = world.promote("rita", "latest")
    assert done.state == "promoted"
    assert world.promote("sam", "latest").state == "already promoted"
    for what in (
        [str(COMMIT), "--from", world.repository],
        [str(COMMIT), "--from", world.repository, "--system", ARM],
        [f"{world.repository}:latest"],
        [f"{world.repository}:arm"],
    ):
        ended = world.verify(*what)
        assert ended.code == 0, ended.printed


@pytest.fixture(
    params=[
        pytest.param(docker_registry, id="fallback tags"),
        pytest.param(referrers_registry, id="referrers", marks=pytest.mark.interop),
    ]
)
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Running]:
    start: Callable[..., AbstractContextManager[Running]] = request.param
    options = {"password": False} if start is docker_registry else {}
    with start(tmp_path, **options) as found:
        yield found


def test_in_a_registry(running: Running, tmp_path: Path) -> None:
    registry = Registry(running.host, keyring=Keyring())
    check_release(ReleaseWorld(tmp_path / "world", registry.repository("released/seed")))


def test_two_promoters_at_once_end_with_one_record(tmp_path: Path) -> None:
    world = ReleaseWorld(tmp_path / "world")
    world.attest_all()
    policy = world.write_policy()
    both = [
        subprocess.Popen(
            [
                sys.executable, "-m", "nix_seed", "promote", str(COMMIT), "--to", world.repository,
                "--policy", str(policy), "--key", str(world.root / f"{name}.key"), "--tag",
                "latest", "--state", str(tmp_path / name),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"NIX_SEED_CACHE": str(tmp_path / "cache")},
        )
        for name in ("rita", "sam")
    ]  # fmt: skip
    for process in both:
        printed, _ = process.communicate(timeout=120)
        assert process.returncode == 0, printed
    ended = world.verify(f"{world.repository}:latest")
    assert ended.code == 0, ended.printed
    assert "one root for this commit among 1 found" in ended.printed


@pytest.mark.interop
@pytest.mark.timeout(900)
def test_in_rekor_v2(tmp_path: Path) -> None:
    with rekor_v2(tmp_path / "rekor") as log, published(log.url, log.storage) as url:
        world = ReleaseWorld(tmp_path / "world")
        logged_by(world, "rekor-v2", log.trusted.origin, log.trusted.key, url)
        check_release(world)


@pytest.mark.interop
@pytest.mark.timeout(900)
def test_in_rekor_v1(tmp_path: Path) -> None:
    with rekor_v1(tmp_path / "rekor") as (url, key):
        world = ReleaseWorld(tmp_path / "world")
        logged_by(world, "rekor-v1", key.name, key, url)
        check_release(world)
