"""kill -9 at random moments of push and pull: nothing broken shows, and the next run goes on.

``NIX_SEED_TEST_KILLS`` sets how many times (10 each way by default, 100 in a long run).
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nix_seed.formats.oci.reference import Reference
from nix_seed.registry.credentials import Credential, Keyring
from nix_seed.registry.layout import Layout
from nix_seed.registry.layout_store import LayoutStore
from nix_seed.registry.open import Stores
from nix_seed.registry.transfer import collect
from support.images import check_image
from support.programs import first_line
from support.registries import PASSWORD, USER, docker_registry
from support.seed_images import layer, seed_image

KILLS = int(os.environ.get("NIX_SEED_TEST_KILLS", "20")) // 2
SIZE = 3_000_000
LAYERS = 10

WORK = """
import sys, time
from nix_seed.core.events import listening
from nix_seed.registry.credentials import Credential, Keyring
from nix_seed.registry import transfer as pull, open as stores
from nix_seed.image import push
from nix_seed.formats.oci.reference import parse_reference
given = Keyring(given=Credential("the test", sys.argv[4], sys.argv[5]))
work = {"push": push.push, "pull": pull.pull}[sys.argv[1]]
print("ready", flush=True)
# A chunk that takes a while: on loopback a kill would hardly ever find one on its way.
with listening(lambda event: time.sleep(0.004)):
    work(stores.Stores(given, jobs=3), *map(parse_reference, sys.argv[2:4]))
print("done", flush=True)
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with docker_registry(tmp_path_factory.mktemp("registry"), password=False) as running:
        yield running.host


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image of random layers, in the layout's directory."""
    directory = tmp_path_factory.mktemp("image") / "layout"
    tiers = [("packages", *layer(f"l{number}", SIZE)) for number in range(LAYERS)]
    seed_image(directory, "demo", layers=tiers)
    return directory


def start(*arguments: str) -> subprocess.Popen[str]:
    """Begin the work and return once its imports are behind it."""
    command = [sys.executable, "-c", WORK, *arguments, USER, PASSWORD]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert first_line(process) == "ready\n"
    return process


def finish(process: subprocess.Popen[str]) -> float:
    """Let it run to its end; return how long that took, in seconds."""
    started = time.monotonic()
    out, err = process.communicate(timeout=120)
    assert (out, process.returncode) == ("done\n", 0), err
    return time.monotonic() - started


def kill(process: subprocess.Popen[str], after: float) -> bool:
    """Kill it; False if it was faster."""
    time.sleep(after)
    running = process.poll() is None
    process.kill()
    process.communicate()
    return running


@pytest.mark.fsync
def test_push(host: str, image: Path) -> None:
    stores, choice = Stores(Keyring(given=Credential("test", USER, PASSWORD))), random.Random(1)
    full = finish(start("push", f"oci:{image}", f"{host}/kill/measured:v1"))
    killed = 0
    for number in range(KILLS):
        target = Reference(host, f"kill/push{number}", "v1")
        after = choice.uniform(0, full)
        if kill(start("push", f"oci:{image}", str(target)), after):
            killed += 1
        else:
            full = after  # the machine was busier when that was measured
        repository = stores.repository(target)
        tagged = repository.get_manifest("v1")
        if tagged is not None:
            everything = collect(repository, tagged)
            assert all(repository.has_blob(blob.digest) for blob in everything.blobs)
        if number % 5 == 0:
            finish(start("push", f"oci:{image}", str(target)))
            done = repository.get_manifest("v1")
            assert done is not None
            for blob in collect(repository, done).blobs:
                assert sum(map(len, repository.open_blob(blob))) == blob.size
    assert killed >= KILLS // 2, "most of the kills must find the work under way"


@pytest.mark.fsync
def test_pull(host: str, image: Path, tmp_path: Path) -> None:
    choice = random.Random(2)
    source = f"{host}/kill/pull:v1"
    finish(start("push", f"oci:{image}", source))
    longest = finish(start("pull", source, f"oci:{tmp_path / 'measured'}")) / 2
    into, killed, resumed = tmp_path / "layout", 0, 0
    for _ in range(KILLS):
        # The same layout until it is whole: each run goes on with what the killed ones left.
        whole_work, after = not into.exists(), choice.uniform(0, longest)
        running = kill(start("pull", source, f"oci:{into}"), after)
        killed += running
        resumed += check_unfinished(into)
        if not running:
            shutil.rmtree(into)
            longest = after if whole_work else longest
    finish(start("pull", source, f"oci:{into}"))
    layout = Layout.open(into)
    check_image(layout, layout.listing().named["v1"])
    there = {path.name for path in (into / "blobs/sha256").iterdir()}
    assert there == {path.name for path in (image / "blobs/sha256").iterdir()}
    assert LayoutStore(layout).list_tags() == ("v1",)
    assert killed >= 1
    assert resumed >= 1, "some kill must have left an unfinished blob"


def check_unfinished(into: Path) -> int:
    """Check what a killed pull left: what has a name is whole. Return how many have none yet."""
    blobs = into / "blobs/sha256"
    unfinished = 0
    for path in blobs.iterdir() if blobs.is_dir() else ():
        if path.name.startswith("."):
            unfinished += 1
        else:
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    if (into / "index.json").exists():
        layout = Layout.open(into)
        for listed in layout.index().manifests:
            check_image(layout, listed)
    return unfinished
