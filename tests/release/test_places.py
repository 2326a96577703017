"""Promotion in real registries, in real logs, and by several promoters at once."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import count
from pathlib import Path

import pytest

from nix_seed.core import canonical_json
from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck
from nix_seed.formats.intoto.bundle import Bundle
from nix_seed.formats.intoto.statement import BuildPredicate, Source
from nix_seed.logs.embedded import EmbeddedLog
from nix_seed.registry.credentials import Keyring
from support.real_logs import logged_by, published
from support.registries import Running, docker_registry, referrers_registry
from support.rekor import rekor_v1, rekor_v2
from support.releases import ARM, ReleaseWorld
from support.repositories import Registry
from support.trust import COMMIT, OTHER_COMMIT, SOURCE

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
    world = ReleaseWorld.fresh(tmp_path / "world")
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
        world = ReleaseWorld.fresh(tmp_path / "world")
        logged_by(world, "rekor-v2", log.trusted.origin, log.trusted.key, url)
        check_release(world)


@pytest.mark.interop
@pytest.mark.timeout(900)
def test_in_rekor_v1(tmp_path: Path) -> None:
    with rekor_v1(tmp_path / "rekor") as (url, key):
        world = ReleaseWorld.fresh(tmp_path / "world")
        logged_by(world, "rekor-v1", key.name, key, url)
        check_release(world)
        hidden_dissent(world)


def hidden_dissent(world: ReleaseWorld) -> None:
    """The registry shows nothing of what carol says; the log's index does."""
    world.attest_all(commit=OTHER_COMMIT)
    dissent = dissent_of(world, "carol")
    wait_for_index(world, OTHER_COMMIT.key.raw, 5)
    size = world.log.checkpoint().head.size
    words = f"carol signed something about {OTHER_COMMIT}, which is entry "
    world.attach(with_broken_signature(dissent), world.other, OTHER_COMMIT)
    # Her words, signed by another builder, are a forgery to whoever counts: they show nothing.
    forged = world.sign(words_of(world, "carol"), "bob").bundle
    world.attach(forged, world.other, OTHER_COMMIT)
    with pytest.raises(CouldNotCheck, match=words) as error:
        world.promote(commit=OTHER_COMMIT)
    assert "of the log rekor, and no repository shows it" in error.value.message
    assert "--evidence REF" in (error.value.hint or "")
    assert world.log.checkpoint().head.size == size

    world.builders["carol"]["revokedAt"] = "2020-01-01T00:00:00Z"
    assert world.promote("rita", commit=OTHER_COMMIT).state == "promoted"
    del world.builders["carol"]["revokedAt"]

    world.attach(dissent, world.other, OTHER_COMMIT)
    with pytest.raises(CheckedFalse, match="has no quorum") as refused:
        world.promote(commit=OTHER_COMMIT)
    assert "carol built something else" in (refused.value.detail or "")


def with_broken_signature(bundle: Bundle) -> bytes:
    value = json.loads(bundle.dump())
    signature = value["dsseEnvelope"]["signatures"][0]
    broken = bytearray(base64.b64decode(signature["sig"]))
    broken[-1] ^= 1
    signature["sig"] = base64.b64encode(bytes(broken)).decode()
    return canonical_json.dumps(value)


def dissent_of(world: ReleaseWorld, who: str) -> Bundle:
    """What *who* says of another image of the other commit, logged, and shown nowhere."""
    return world.bundle(world.sign(words_of(world, who)))


def words_of(world: ReleaseWorld, who: str) -> BuildPredicate:
    source = Source(SOURCE, OTHER_COMMIT, Digest.of(b"flake.lock"))
    return world.says(who, world.other, source=source)


def wait_for_index(world: ReleaseWorld, digest: bytes, number: int) -> None:
    """Rekor enters in its index only after it has answered."""
    deadline = time.monotonic() + 60
    while len(list(world.log.lookup(digest))) < number:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.interop
@pytest.mark.timeout(900)
def test_a_log_that_is_down_is_noticed(tmp_path: Path) -> None:
    """Its index cannot be asked; where another holds the evidence, that bars nobody."""
    world = ReleaseWorld.fresh(tmp_path / "world")
    with rekor_v1(tmp_path / "rekor") as (url, key):
        own = world.logs[0]
        logged_by(world, "rekor-v1", key.name, key, url)
    world.logs.append(own)
    world.log = EmbeddedLog.open(world.root / "log")
    world.attest_all()
    done = world.promote()
    assert done.state == "promoted"
    assert done.notices[0].startswith(f"what rekor holds of {COMMIT} is not known: ")
