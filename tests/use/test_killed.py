"""kill -9 at random moments of hydrate: the store stays valid, and the next run goes on.

``NIX_SEED_TESTS_KILLS`` sets how many times (20 by default, 100 in a long run).
"""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nix_seed.image.rules.spec import Spec
from nix_seed.use.store import valid_paths
from support.distribution import nix_env
from support.hydration import make_seed, names_in, verify
from support.nars import Directory, NarFile, Tree
from support.programs import need

KILLS = int(os.environ.get("NIX_SEED_TESTS_KILLS", "20"))
RANDOM = random.Random(7)


def tree(number: int) -> Tree:
    files = {
        b"%d" % n: NarFile(RANDOM.randbytes(RANDOM.choice([10, 2000, 300_000]))) for n in range(25)
    }
    return Directory({b"data": Directory(dict(files)), b"n": NarFile(b"%d" % number)})


@pytest.fixture(scope="module")
def seed(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Spec]:
    """Forty paths in eight layers, each referring to the one before."""
    groups = [{f"l{layer}-p{n}": tree(layer * 5 + n) for n in range(5)} for layer in range(8)]
    return make_seed(tmp_path_factory.mktemp("seed"), groups)


def start(reference: str, root: Path) -> subprocess.Popen[bytes]:
    arguments = ["hydrate", reference, "--root", str(root), "--system", "x86_64-linux"]
    return subprocess.Popen(
        [sys.executable, "-m", "nix_seed", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=nix_env(),
    )


def wait_for_workers(root: Path) -> None:
    """Workers hold the lock as long as they live: it is free only when all have ended."""
    path = root / "nix/var/nix/nix-seed.lock"
    if not path.exists():
        return
    with path.open("w") as lock:
        for _ in range(1200):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.05)
            else:
                return
    pytest.fail("workers live on after their parent was killed")


@pytest.mark.fsync
def test_killed_at_random_moments(tmp_path: Path, seed: tuple[str, Spec]) -> None:
    need("nix-store")
    reference, spec = seed
    root = tmp_path / "whole"
    begun = time.monotonic()
    assert start(reference, root).wait() == 0
    usual = time.monotonic() - begun
    root, killed, placed = tmp_path / "store", 0, 0
    for _ in range(KILLS):
        whole_work, after = not root.exists(), RANDOM.uniform(0.2, 1.1) * usual
        process = start(reference, root)
        time.sleep(after)
        process.kill()
        _, said = process.communicate()
        assert process.returncode in (0, -9), said.decode()
        wait_for_workers(root)
        killed += process.returncode == -9
        if process.returncode == 0 and whole_work:
            usual = min(usual, after)  # the machine was busier when that was measured
        if (root / "nix/var/nix/db/db.sqlite").exists():
            assert valid_paths(root) == set(spec.paths)
            verify(root)
        elif (root / "nix/store").exists():
            placed += bool(names_in(root))
        if process.returncode == 0 or RANDOM.random() < 0.2:
            _check_finishes(reference, root, spec)
            shutil.rmtree(root)
    assert killed > KILLS // 4
    assert placed > 0, "no run was killed between its first path and its end"
    _check_finishes(reference, root, spec)


def _check_finishes(reference: str, root: Path, spec: Spec) -> None:
    process = start(reference, root)
    _, said = process.communicate()
    assert process.returncode == 0, said.decode()
    assert valid_paths(root) == set(spec.paths)
    assert names_in(root) == {path.base_name for path in spec.paths}
    verify(root)


UNPACK = """
import sys
from pathlib import Path
from nix_seed.formats.oci.reference import LayoutReference
from nix_seed.image.read.unpack import Limits, unpack
from nix_seed.registry.layout import open_image
unpack(open_image(LayoutReference.parse(sys.argv[1])), Path(sys.argv[2]), Limits(workers=4))
"""


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_who_unpacks_ends_with_who_asked(
    tmp_path: Path, seed: tuple[str, Spec], sent: signal.Signals
) -> None:
    """They held the image's lock for ever, so that its next run waited for ever."""
    root = tmp_path / "root"
    command = [sys.executable, "-c", UNPACK, seed[0], str(root)]
    process = subprocess.Popen(command, start_new_session=True)
    while not list(tmp_path.glob(".partial-root/*/*")):
        assert process.poll() is None, "it ended before"
    process.send_signal(sent)
    assert process.wait() == -sent
    for _ in range(200):
        if not subprocess.run(["pgrep", "-s", str(process.pid)], capture_output=True).stdout:  # noqa: PLW1510
            return
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    pytest.fail("workers live on after their parent has ended")
