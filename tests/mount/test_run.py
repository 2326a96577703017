"""Commands run in images that are mounted from a registry, as users run them."""

import contextlib
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from nix_seed.formats.nix.database import DATABASE, read_valid_paths
from nix_seed.formats.oci.manifest import Manifest, MediaType
from nix_seed.formats.oci.reference import LayoutReference, Reference
from nix_seed.image.push import push
from nix_seed.registry.open import Stores, fetch
from nix_seed.use.engines.mounted import mounted_engine
from nix_seed.use.mount.seed import keep_hint, open_mountable
from support import built
from support.distribution import nix_env
from support.engines import need
from support.faults import Fault, Proxy, fault_proxy
from support.mounts import need_fuse
from support.registries import docker_registry
from support.specs import addressed

KILLS = int(os.environ.get("NIX_SEED_TESTS_KILLS", "4"))
RANDOM = random.Random(17)
# The shell alone: a run image has no other programs.
LIST = 'cd /nix/store && for f in */* */*/* */*/*/*; do echo "$f"; done'
READ = """for f in /nix/store/*/bin/* /nix/store/*/lib/*; do
  test ! -f "$f" || x=$(< "$f") || exit 9
done 2>/dev/null"""


@dataclass(frozen=True)
class Scene:
    proxy: Proxy
    image: str
    reference: Reference
    source: Path

    def run(self, cache: Path, *command: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.command(cache, *command),
            env=self.env(cache),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done

    def command(self, cache: Path, *command: str) -> list[str]:
        own = [sys.executable, "-m", "nix_seed", "run", "--image", self.image]
        return [*own, "--flake", str(self.source), "--out", str(cache / "out"), *command]

    def env(self, cache: Path) -> dict[str, str]:
        return nix_env() | {"NIX_SEED_CACHE": str(cache), "HOME": str(cache)}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    need_fuse()
    need("bwrap", "bubblewrap")
    with docker_registry(tmp_path_factory.mktemp("registry"), password=False) as running:
        reference = Reference.parse(f"{running.host}/app:run")
        push(Stores(), LayoutReference(str(built.layout("run"))), reference)
        yield running.host


@pytest.fixture
def scene(registry: str, tmp_path: Path) -> Iterator[Scene]:
    source = tmp_path / "source"
    source.mkdir()
    with fault_proxy(registry) as proxy:
        name = f"{proxy.host}/app:run"
        yield Scene(proxy, name, Reference.parse(name), source)


def test_mounted_it_is_the_same_image(scene: Scene, tmp_path: Path) -> None:
    mounted = scene.run(tmp_path / "a", "--", "bash", "-c", f"{LIST}; {READ}")
    eager = scene.run(tmp_path / "b", "--eager", "--", "bash", "-c", f"{LIST}; {READ}")
    assert mounted.stdout == eager.stdout
    assert len(mounted.stdout.splitlines()) > 20
    assert "not mounted" not in mounted.stderr
    assert not (tmp_path / "a/roots").exists()
    assert (tmp_path / "b/roots").exists()
    assert scene.run(tmp_path / "a", "--", "bash", "-c", "exit 42", code=42)


def test_complete_leaves_nothing_to_fetch(scene: Scene, tmp_path: Path) -> None:
    scene.run(tmp_path / "a", "--complete", "--", "bash", "-c", ":")
    scene.proxy.seen.clear()
    scene.run(tmp_path / "a", "--", "bash", "-c", READ)
    # Which image it is, the list, and whether there are ranges: no part of a layer.
    blobs = [seen for seen in scene.proxy.seen if "/blobs/" in seen.path]
    assert [seen.headers.get("range") for seen in blobs] == ["bytes=0-0"]


def test_what_cannot_be_fetched_is_never_the_commands_fault(scene: Scene, tmp_path: Path) -> None:
    # Parts come with another byte, and whole layers do not.
    scene.proxy.set(Fault("GET", "/blobs/", times=None, ranged=True, flip=0))
    done = scene.run(tmp_path / "a", "--", "bash", "-c", f"{READ}; echo done")
    assert "could not be fetched" in done.stderr
    assert "unpacked, not mounted" in done.stderr
    assert done.stdout.splitlines()[-1] == "done"
    assert (tmp_path / "a/roots").exists()


def test_a_registry_without_ranges_is_unpacked(scene: Scene, tmp_path: Path) -> None:
    scene.proxy.set(Fault("GET", "/blobs/", times=None, ignore_range=True))
    done = scene.run(tmp_path / "a", "--", "bash", "-c", "echo done")
    assert "gives no parts of blobs" in done.stderr
    assert done.stdout == "done\n"


def test_killed_it_leaves_nothing(scene: Scene, tmp_path: Path) -> None:
    """Whichever of its processes is killed: what serves, bubblewrap, the command."""
    victims = set()
    for number in range(KILLS):
        process = subprocess.Popen(
            scene.command(
                tmp_path / "a", "--", "bash", "-c", f"echo begun; {READ}; read x; read y"
            ),
            env=scene.env(tmp_path / "a"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        all_of_it = [process.pid, *_below(process.pid)]
        assert len(all_of_it) >= 3
        victims.add(number % len(all_of_it))
        time.sleep(RANDOM.uniform(0, 0.2))
        os.kill(all_of_it[number % len(all_of_it)], signal.SIGKILL)
        assert process.wait(timeout=60) == (-9 if number % len(all_of_it) == 0 else 137)
    assert len(victims) >= 3
    for _ in range(200):
        left = [table for table in _mount_tables() if str(tmp_path) in table and "fuse" in table]
        if not left:
            break
        time.sleep(0.05)
    assert not left
    assert scene.run(tmp_path / "a", "--", "bash", "-c", "echo on").stdout == "on\n"
    # What the killed ones had laid out was removed by the one that came after them.
    assert [path.name for path in (tmp_path / "a/runs").iterdir()] == [".lock"]


def test_an_ordinary_user_mounts_too(scene: Scene) -> None:
    """By a user namespace; as root only until there is a device for everyone."""
    user = 65534
    with tempfile.TemporaryDirectory() as name:  # what pytest lends is closed to others
        home, source = Path(name), Path(name) / "source"
        source.mkdir()
        for each in (home, source):
            each.chmod(0o755)
            os.chown(each, user, user)
        script = (
            'mknod "$0/fuse" c 10 229 && chmod 666 "$0/fuse" && mount --bind "$0/fuse" /dev/fuse &&'
            f' exec setpriv --reuid={user} --regid={user} --clear-groups "$@"'
        )
        command = replace(scene, source=source).command(home, "--", "bash", "-c", f"{READ}; pwd")
        done = subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, name, *command],
            env=scene.env(home / "cache"),
            cwd=name,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "not mounted" not in done.stderr
        assert not (home / "cache/roots").exists()
        assert list((home / "cache/mounted").iterdir())


def _below(process: int) -> list[int]:
    found = []
    for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
        found += [int(child), *_below(int(child))]
    return found


def _mount_tables() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/mounts"):
        with contextlib.suppress(OSError):  # of a process that is ending
            yield path.read_text(errors="replace")


def test_what_was_read_is_recorded_and_fetched_first(scene: Scene, tmp_path: Path) -> None:
    source = Stores().open(scene.reference)
    root = fetch(source, scene.reference)
    assert open_mountable("x", root, source).first == ()
    done = scene.run(tmp_path / "a", "--record", "--", "bash", "-c", ":")
    assert f"sha256-{root.descriptor.digest.hex}.prefetch" in done.stderr
    seed = open_mountable("x", root, source)
    assert seed.first
    scene.run(tmp_path / "b", "--record", "--", "bash", "-c", READ)
    more = open_mountable("x", root, source).first
    assert set(more) > set(seed.first)


def test_a_list_that_is_none_or_anyones_costs_bytes_alone(scene: Scene, tmp_path: Path) -> None:
    source = Stores().open(scene.reference)
    root = fetch(source, scene.reference)
    seed = open_mountable("x", root, source)
    keep_hint(source, seed, [(0, 1)], {})
    for text in ("garbage", "999:999;0:0-5"):
        manifest = Manifest.parse(
            source.get_manifest(f"sha256-{root.descriptor.digest.hex}.prefetch").body,  # type: ignore[union-attr]
            "a list",
        )
        body = manifest.dump().replace(
            manifest.annotations["io.nix-seed.prefetch"].encode(), text.encode()
        )
        source.put_manifest(
            body, MediaType.MANIFEST, f"sha256-{root.descriptor.digest.hex}.prefetch"
        )
        done = scene.run(tmp_path / f"c{len(text)}", "--", "bash", "-c", f"{READ}; echo done")
        assert done.stdout == "done\n"
        assert "not mounted" not in done.stderr
        keep_hint(source, seed, [(0, 1)], {})


def test_what_evaluating_writes_is_there_for_the_command(scene: Scene, tmp_path: Path) -> None:
    """It is fetched once, with the image; a proof of the image does without."""
    reference = replace(scene.reference, repository="written")
    push(Stores(), LayoutReference(str(built.layout("run"))), reference)
    scene = replace(scene, image=str(reference), reference=reference)
    source = Stores().open(reference)
    root = fetch(source, reference)
    seed = open_mountable("x", root, source)
    text = f'Derive([("out","{min(seed.seed.spec.paths)}","","")],[],[],"any","/bin/sh",[],[])'
    name = addressed("text", hashlib.sha256(text.encode()).hexdigest(), "made.drv")
    keep_hint(source, seed, [(0, 1)], {name: text.encode()})
    looks = ("--", "bash", "-c", f"echo $(< /nix/store/{name})")
    assert scene.run(tmp_path / "a", *looks).stdout == f"{text}\n"
    databases = (tmp_path / "a/mounted").glob("*/root*/nix/var/nix/db/db.sqlite")
    assert f"/nix/store/{name}" in read_valid_paths(next(databases))
    scene.proxy.seen.clear()
    assert scene.run(tmp_path / "a", *looks).stdout == f"{text}\n"
    whole = [
        seen for seen in scene.proxy.seen if "/blobs/" in seen.path and "range" not in seen.headers
    ]
    assert whole == []
    with mounted_engine(tmp_path / "a", root, source, "x", fills=False) as (image, engine):
        proved = Path(engine.prepare(image))
    assert not (proved / "nix/store" / name).exists()
    assert f"/nix/store/{name}" not in read_valid_paths(proved / DATABASE)
