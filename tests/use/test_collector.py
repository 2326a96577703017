"""Nix's garbage collector waits for a hydration; and what else workers share over a fork."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest

from nix_seed.formats.oci.reference import LayoutReference, Reference, parse_reference
from nix_seed.image.push import push
from nix_seed.image.read.tar import _sum
from nix_seed.registry.open import Stores
from nix_seed.use.hydrate import hydrate
from nix_seed.use.store import uncollected, valid_paths
from support.distribution import nix_env
from support.hydration import make_seed
from support.nars import NarFile
from support.programs import need
from support.registries import docker_registry

RANDOM = random.Random(11)


def test_a_collection_waits_until_all_is_registered(tmp_path: Path) -> None:
    need("nix-store")
    reference, spec = make_seed(tmp_path / "seed", [{"a": NarFile(b"a")}, {"b": NarFile(b"b")}])
    root = tmp_path / "root"
    hydrate(Stores(), parse_reference(reference), root, system="x86_64-linux")
    stray = root / "nix/store" / ("0" * 32 + "-placed-and-not-registered")
    stray.write_bytes(b"")
    with uncollected(root):
        # It looks for roots in every process it sees, and fails on a file of one in a deep tree.
        alone = ["unshare", "--map-root-user", "--pid", "--fork", "--mount-proc"]
        collector = subprocess.Popen(
            [*alone, "nix-store", "--store", str(root), "--gc"],
            env=nix_env(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        with pytest.raises(subprocess.TimeoutExpired):
            collector.wait(1.5)
        assert stray.exists()
        assert valid_paths(root) == set(spec.paths)
    said, _ = collector.communicate(timeout=60)
    assert collector.returncode == 0, said.decode()
    assert not stray.exists(), "the collector does collect, once it may"
    assert valid_paths(root) == frozenset()


def test_workers_share_one_login_and_no_connection(tmp_path: Path) -> None:
    groups = [{f"p{n}": NarFile(RANDOM.randbytes(200_000))} for n in range(6)]
    reference, spec = make_seed(tmp_path / "seed", groups)
    with docker_registry(tmp_path / "registry", password=False) as registry:
        stores, pushed = Stores(), Reference(registry.host, "a/seed", "latest")
        push(Stores(), LayoutReference.parse(reference), pushed)
        for name in ("first", "second"):  # the parent's own connection is of use afterwards
            done = hydrate(stores, pushed, tmp_path / name, system="x86_64-linux", jobs=3)
            assert set(done.added) == set(spec.paths)
        assert len(stores._sessions) == 1


@pytest.mark.parametrize("size", [0, 1, 124, 148, 232, 256])
def test_header_sums_are_exact(size: int) -> None:
    for data in (bytes(size), b"\xff" * size, os.urandom(size)):
        assert _sum(data) == sum(data)
