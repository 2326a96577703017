"""A store that is mounted while it fills: what Nix says of it, and what is left when things die.

``NIX_SEED_TESTS_KILLS`` sets how many times its processes are killed (6 by default).
"""

import hashlib
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nix_seed.formats.oci.reference import parse_reference
from nix_seed.image.push import push
from nix_seed.image.rules.spec import Spec
from nix_seed.registry.open import Stores
from nix_seed.use.mount.linux import is_mounted
from nix_seed.use.mount.owed import read_owed, state_directory
from nix_seed.use.mount.store import is_served
from nix_seed.use.store import check_path, valid_paths
from support.distribution import nix_env
from support.faults import Fault, fault_proxy
from support.hydration import layers_of, make_seed, names_in, put_seed, verify
from support.mounts import need_fuse
from support.nars import Directory, NarFile, Symlink, Tree
from support.programs import need
from support.registries import docker_registry
from support.trees import AWKWARD

KILLS = int(os.environ.get("NIX_SEED_TESTS_KILLS", "6"))
RANDOM = random.Random(int(os.environ.get("NIX_SEED_TESTS_SEED", "23")))


def tree(number: int) -> Tree:
    files = {
        b"%d" % n: NarFile(RANDOM.randbytes(RANDOM.choice([10, 2000, 300_000]))) for n in range(12)
    }
    return Directory({b"data": Directory(dict(files)), b"n": NarFile(b"%d" % number)})


@pytest.fixture(scope="module")
def seed(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Spec]:
    groups: list[dict[str, Tree]] = [
        {f"l{layer}-p{n}": tree(layer * 5 + n) for n in range(5)} for layer in range(6)
    ]
    groups.append({"awkward": AWKWARD, "link": Symlink(b"/nix/store")})
    groups.append({"large": Directory({b"large": NarFile(RANDOM.randbytes(9 << 20))})})
    return make_seed(tmp_path_factory.mktemp("seed"), groups)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A root below which things are mounted; whatever a failing test leaves is taken away."""
    need_fuse()
    need("nix-store")
    path = tmp_path / "root"
    path.mkdir()
    yield path
    kill(path)
    for place in (path / "nix/store", state_directory(path) / "lower"):
        while is_mounted(place):
            subprocess.run(["umount", "-l", str(place)], check=True)


def nix_seed(*arguments: str | Path, code: int = 0) -> str:
    command = [sys.executable, "-m", "nix_seed", *map(str, arguments)]
    done = subprocess.run(command, env=nix_env(), capture_output=True, text=True, check=False)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done.stdout if "--json" in arguments else done.stdout + done.stderr


def mount(reference: str, root: Path, *more: str, code: int = 0) -> str:
    arguments = ["--root", str(root), "--system", "x86_64-linux", "--no-verify", *more]
    return nix_seed("mount", reference, *arguments, code=code)


def processes(root: Path) -> list[int]:
    """The processes that a mount below *root* left behind: those named by its command line."""
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = each.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"mount" in words and os.fsencode(root) in words:
            found.append(int(each.parent.name))
    return sorted(found)


def kill(root: Path) -> None:
    for number in processes(root):
        os.kill(number, signal.SIGKILL)
    while processes(root):
        time.sleep(0.01)


def wait_for(condition: object, seconds: float = 60.0) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def check_whole(root: Path, spec: Spec) -> None:
    """The store is an ordinary one with every path in it, and nothing is mounted."""
    assert not is_mounted(root / "nix/store")
    assert not state_directory(root).exists()
    assert valid_paths(root) == set(spec.paths)
    assert names_in(root) == {path.base_name for path in spec.paths}
    fd = os.open(root / "nix/store", os.O_RDONLY)
    try:
        for info in spec.paths.values():
            assert check_path(info, fd, case_hack=False), info.path
    finally:
        os.close(fd)
    verify(root)


def test_valid_at_once_and_whole_later(seed: tuple[str, Spec], root: Path) -> None:
    reference, spec = seed
    said = json.loads(mount(reference, root, "--json"))
    assert {Path(path).name for path in said["added"]} == {p.base_name for p in spec.paths}
    assert valid_paths(root) == set(spec.paths)
    verify(root)
    wait_for(lambda: not state_directory(root).exists())
    check_whole(root, spec)
    wait_for(lambda: not processes(root))
    again = json.loads(mount(reference, root, "--json"))
    assert again["added"] == []
    check_whole(root, spec)


def test_kept_until_it_is_told_to_leave(seed: tuple[str, Spec], root: Path, tmp_path: Path) -> None:
    reference, spec = seed
    mount(reference, root, "--keep")
    verify(root)
    time.sleep(0.5)
    assert is_served(root)
    assert is_mounted(root / "nix/store")
    assert json.loads(mount(reference, root, "--json"))["added"] == []
    other, _ = make_seed(tmp_path / "other", [{"another": NarFile(b"another")}])
    assert "is mounted, and filling" in mount(other, root, code=2)
    new = tmp_path / "new"
    new.write_text("made meanwhile")
    command = ["nix-store", "--store", str(root)]
    env = nix_env()
    made = subprocess.run(
        [*command, "--add", str(new)], env=env, capture_output=True, text=True, check=True
    ).stdout.strip()
    gone = next(path for path in spec.paths if path.name == "large")
    subprocess.run(
        [*command, "--delete", str(gone)], env=env, capture_output=True, text=True, check=True
    )
    # Who has something open reads on, whatever is unmounted meanwhile.
    awkward = next(path for path in spec.paths if path.name == "l0-p0")
    content = (root / str(awkward).lstrip("/") / "n").read_bytes()
    with (root / str(awkward).lstrip("/") / "n").open("rb") as file:
        assert "ordinary store" in nix_seed("unmount", "--root", root)
        assert file.read() == content
    wait_for(lambda: not processes(root))
    assert not is_mounted(root / "nix/store")
    wanted = {path.base_name for path in spec.paths} - {gone.base_name} | {Path(made).name}
    assert names_in(root) == wanted
    assert (root / made.lstrip("/")).read_text() == "made meanwhile"
    verify(root)


def test_reading_all_of_it_takes_little_memory(root: Path, tmp_path: Path) -> None:
    """Far more is read, by many at once, than the process that serves it may keep."""
    block = RANDOM.randbytes(1 << 19)
    groups = [
        {f"l{n}": Directory({b"%d" % m: NarFile((block + bytes([n, m])) * 30) for m in range(3)})}
        for n in range(6)
    ]
    reference, spec = make_seed(tmp_path / "seed", groups)
    assert sum(info.nar_size for info in spec.paths.values()) > 250 << 20
    mount(reference, root, "--keep")
    files = [path for path in (root / "nix/store").rglob("*") if path.is_file()]
    readers = [
        subprocess.Popen(["cat", *part], stdout=subprocess.DEVNULL) for part in (files, files[::-1])
    ]
    assert [reader.wait() for reader in readers] == [0, 0]
    most = {number: resident(number) for number in processes(root)}
    assert len(most) == 2
    assert max(most.values()) < 100 << 20, most


def resident(process: int) -> int:
    """The most bytes that *process* has had in memory."""
    text = Path(f"/proc/{process}/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0]) << 10


def test_who_uses_the_mount_keeps_it(seed: tuple[str, Spec], root: Path) -> None:
    """A process that stands in the mount, and reads by its directory, after the mount left."""
    reference, spec = seed
    mount(reference, root, "--keep")
    path = next(path for path in spec.paths if path.name == "large")
    reads, writes = os.pipe()
    reader = subprocess.Popen(
        ["sh", "-c", "read go && sha256sum < large"],
        cwd=root / str(path).lstrip("/"),
        stdin=reads,
        stdout=subprocess.PIPE,
        text=True,
    )
    os.close(reads)
    nix_seed("unmount", "--root", root)
    os.write(writes, b"go\n")
    os.close(writes)
    said, _ = reader.communicate(timeout=60)
    wanted = hashlib.sha256((root / str(path).lstrip("/") / "large").read_bytes()).hexdigest()
    assert said.split()[0] == wanted
    wait_for(lambda: not processes(root))
    check_whole(root, spec)


def test_a_store_that_had_paths_before(seed: tuple[str, Spec], root: Path) -> None:
    reference, spec = seed
    nix_seed("hydrate", reference, "--root", root, "--system", "x86_64-linux", "--no-verify")
    lost = [path for path in spec.paths if path.name in ("large", "link")]
    command = ["nix-store", "--store", str(root), "--delete", *map(str, reversed(lost))]
    subprocess.run(command, env=nix_env(), capture_output=True, check=True)
    # Nobody's, and in the way: it is not valid.
    (root / str(lost[0]).lstrip("/")).mkdir()
    (root / str(lost[0]).lstrip("/") / "litter").touch()
    said = json.loads(mount(reference, root, "--json", "--complete"))
    assert set(said["added"]) == set(map(str, lost))
    assert said["whole"] is True
    check_whole(root, spec)


def test_a_users_store_stays_the_users(seed: tuple[str, Spec], root: Path, tmp_path: Path) -> None:
    """As on a runner, where root mounts by sudo, and builds are an ordinary user's."""
    reference, spec = seed
    user = 65534
    # What pytest lends is closed to others, and whoever works there must reach it.
    with (
        tempfile.TemporaryDirectory() as name,
        docker_registry(tmp_path / "r", password=False) as r,
    ):
        os.chmod(name, 0o755)
        theirs = Path(name) / "root"
        (theirs / "nix").mkdir(parents=True)
        os.chown(theirs / "nix", user, -1)
        there = f"{r.host}/seed:tag"
        push(Stores(), parse_reference(reference), parse_reference(there))  # type: ignore[arg-type]
        as_user = ["setpriv", f"--reuid={user}", "--clear-groups"]
        try:
            mount(there, theirs, "--keep")
            seen = {path.lstat().st_uid for path in (theirs / "nix/store").rglob("*")}
            assert seen == {user}
            new = subprocess.run(
                [*as_user, "nix-store", "--store", str(theirs), "--add", __file__],
                env=nix_env() | {"HOME": "/nonexistent"},
                capture_output=True,
                text=True,
                check=True,
            ).stdout.strip()
            nix_seed("unmount", "--root", theirs)
            wait_for(lambda: not processes(theirs))
            everything = [theirs / "nix", *(theirs / "nix").rglob("*")]
            assert {path.lstat().st_uid for path in everything} == {user}
            assert names_in(theirs) == {p.base_name for p in spec.paths} | {Path(new).name}
            check = [*as_user, "nix-store", "--store", str(theirs), "--verify", "--check-contents"]
            subprocess.run(check, env=nix_env() | {"HOME": "/nonexistent"}, check=True)
        finally:
            kill(theirs)
            for place in (theirs / "nix/store", state_directory(theirs) / "lower"):
                while is_mounted(place):
                    subprocess.run(["umount", "-l", str(place)], check=True)


def test_when_the_server_dies_the_store_still_fills(seed: tuple[str, Spec], root: Path) -> None:
    """And where the kernel asks again, who reads meanwhile notices nothing."""
    reference, spec = seed
    true = digests(start_reading(Path(reference.removeprefix("oci:")).parent / "root"))
    asks_again = tuple(map(int, platform.release().split("-")[0].split(".")[:2])) >= (6, 9)
    killed = 0
    for _ in range(KILLS):
        mount(reference, root)
        readers = [start_reading(root) for _ in range(3)]
        time.sleep(RANDOM.uniform(0, 0.3))
        living = processes(root)
        if len(living) == 2:
            os.kill(living[0], signal.SIGKILL)
            killed += 1
        for reader in readers:
            found = digests(reader)
            assert found == true if asks_again else found <= true
        wait_for(lambda: not state_directory(root).exists())
        check_whole(root, spec)
        wait_for(lambda: not processes(root))
        shutil.rmtree(root / "nix")
    assert killed > 0


def start_reading(root: Path) -> subprocess.Popen[bytes]:
    """Read every file below *root* as a build does that knows of no mount; a digest a line."""
    command = ["sh", "-c", "cd nix/store && exec find . -type f -exec sha256sum {} +"]
    return subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def digests(reader: subprocess.Popen[bytes]) -> set[bytes]:
    """Return the lines that *reader* came to the end of."""
    said, _ = reader.communicate(timeout=60)
    return set(said.split(b"\n")[:-1])


def test_killed_at_random_moments(seed: tuple[str, Spec], root: Path) -> None:
    reference, spec = seed
    true = digests(start_reading(Path(reference.removeprefix("oci:")).parent / "root"))
    unfinished = read = 0
    for _ in range(KILLS):
        mount(reference, root)
        reader = start_reading(root)
        time.sleep(RANDOM.uniform(0, 1.2))
        for victim in RANDOM.sample((lambda: kill(root), reader.kill), RANDOM.choice((1, 2))):
            victim()
        kill(root)
        found = digests(reader)
        assert found <= true, "a wrong byte"
        read += len(found)
        if state_directory(root).exists():
            unfinished += 1
            # What is not there is not called valid, whatever Nix's database says.
            # (Of a mount that died, nothing is there; ``Path.exists`` raises for it.)
            there = {path for path in spec.paths if os.path.exists(f"{root}{path}")}
            assert valid_paths(root) >= there - read_owed(root)
        # A process that was killed lets go of its lock a moment after it lost its name.
        wait_for(lambda: not is_served(root))
        arguments = ["--root", str(root), "--system", "x86_64-linux", "--no-verify"]
        nix_seed("hydrate", reference, *arguments)
        check_whole(root, spec)
        shutil.rmtree(root / "nix")
    assert unfinished > 0, "every mount was whole before it was killed"
    assert read > 0, "nothing was read before"


def test_a_registry_that_dies_midway(seed: tuple[str, Spec], root: Path, tmp_path: Path) -> None:
    reference, spec = seed
    true = digests(start_reading(Path(reference.removeprefix("oci:")).parent / "root"))
    with docker_registry(tmp_path / "registry", password=False) as running:
        there = parse_reference(f"{running.host}/seed:tag")
        push(Stores(), parse_reference(reference), there)  # type: ignore[arg-type]
        with fault_proxy(running.host) as proxy:
            # Its last layer comes whole; of the others, only the first few ranges.
            blobs = r"/blobs/"
            # For some seconds: who reads meanwhile waits, and is told nothing.
            proxy.set(Fault("GET", blobs, times=None, skip=4, status=503))
            mount(f"{proxy.host}/seed:tag", root)
            reader = start_reading(root)
            time.sleep(2)
            assert reader.poll() is None
            proxy.set()
            assert digests(reader) == true
            wait_for(lambda: not state_directory(root).exists())
            check_whole(root, spec)
            shutil.rmtree(root / "nix")
            proxy.set(Fault("GET", blobs, times=None, skip=4, status=404))
            name = f"{proxy.host}/seed:tag"
            said = mount(name, root, "--complete", code=3)
            assert "was not filled to its end" in said
            proxy.set()
            arguments = ["--root", str(root), "--system", "x86_64-linux", "--no-verify"]
            nix_seed("hydrate", name, *arguments)
    check_whole(root, spec)


def test_a_registry_without_ranges_is_not_mounted(
    seed: tuple[str, Spec], root: Path, tmp_path: Path
) -> None:
    with docker_registry(tmp_path / "registry", password=False) as running:
        push(Stores(), parse_reference(seed[0]), parse_reference(f"{running.host}/seed:tag"))  # type: ignore[arg-type]
        with fault_proxy(running.host) as proxy:
            proxy.set(Fault("GET", r"/blobs/", times=None, ignore_range=True))
            said = mount(f"{proxy.host}/seed:tag", root, code=3)
    assert "gives no parts of blobs" in said
    assert not (root / "nix").exists() or not names_in(root)


def test_an_image_of_format_1_is_not_mounted_and_unpacks(
    seed: tuple[str, Spec], root: Path, tmp_path: Path
) -> None:
    reference, spec = seed
    old = replace(spec, format=1)
    store = Path(reference.removeprefix("oci:").removesuffix(":seed")).parent / "root"
    made = put_seed(tmp_path / "old", old, layers_of(old, store))
    assert "has no table of contents" in mount(made, root, code=3)
    arguments = ["--root", str(root), "--system", "x86_64-linux", "--no-verify"]
    nix_seed("hydrate", made, *arguments)
    check_whole(root, spec)


def test_a_store_that_is_a_mount_already_is_unpacked(seed: tuple[str, Spec], root: Path) -> None:
    """Nix's daemon looks at such a store from a namespace of its own, and would not see ours."""
    reference, _ = seed
    store = root / "nix/store"
    store.mkdir(parents=True)
    subprocess.run(["mount", "--bind", str(store), str(store)], check=True)
    try:
        assert "is a mount already" in mount(reference, root, code=3)
        assert names_in(root) == set()
        assert not state_directory(root).exists()
    finally:
        subprocess.run(["umount", str(store)], check=True)


# Machines that say only when it is tried that they cannot: what comes before nix-seed there.
ELSEWHERE = {
    # A container's root: no right to mount.
    "lower: Operation not permitted": (
        'exec setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin -- "$@"'
    ),
    # The device is there, and its cgroup forbids it, or the module is not loaded.
    "/dev/fuse cannot be opened": (
        'mknod "$0/fuse" c 240 77 && mount --bind "$0/fuse" /dev/fuse && exec "$@"'
    ),
    # A container's own file system is an overlay, to which no further one may write.
    "the store cannot be mounted: ": (
        'mkdir "$0/u" "$0/w" && mount -t overlay overlay -o '
        '"lowerdir=$0/root,upperdir=$0/u,workdir=$0/w" "$0/root" && exec "$@"'
    ),
}


@pytest.mark.parametrize("problem", ELSEWHERE)
def test_who_finds_out_too_late_unpacks(
    seed: tuple[str, Spec], root: Path, tmp_path: Path, problem: str
) -> None:
    reference, spec = seed
    own = f"{sys.executable} -m nix_seed"
    options = f"{reference} --root {root} --system x86_64-linux --no-verify"
    script = f"{own} mount {options}; echo $?; {own} hydrate {options} && cp -a {root} {root}.out"
    space = [need("unshare"), "--mount", "--propagation", "private", "sh", "-c"]
    command = [*space, ELSEWHERE[problem], str(tmp_path), "sh", "-c", script]
    done = subprocess.run(command, env=nix_env(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert problem in done.stderr, done.stderr[:2000]
    assert "hint: unpack it: nix-seed hydrate " in done.stderr
    assert done.stdout.startswith("3\n")
    check_whole(root.with_name("root.out"), spec)


@pytest.mark.parametrize("lie", ["frames", "paths", "layers", "bytes"])
def test_a_table_that_disagrees_with_the_image(
    seed: tuple[str, Spec], root: Path, tmp_path: Path, lie: str
) -> None:
    from support.hydration import contents_of

    reference, spec = seed
    store = Path(reference.removeprefix("oci:").removesuffix(":seed")).parent / "root"
    contents = contents_of(spec, store)
    if lie == "frames":
        contents[0], contents[1] = contents[1], contents[0]
    elif lie == "paths":
        groups = list(spec.layers)
        first = contents[0].replace(groups[0].paths[0].base_name.encode(), b"0" * 32 + b"-x", 1)
        contents[0] = first
    elif lie == "layers":
        contents.pop()
    else:
        contents[0] = contents[0][:-1]
    made = put_seed(tmp_path / "lie", spec, layers_of(spec, store), contents=contents)
    assert "the table of contents of" in mount(made, root, code=1)
    assert not is_mounted(root / "nix/store")
    # What is unpacked is proved by NAR hashes, and `verify --deep` names the table.
    nix_seed("hydrate", made, "--root", root, "--system", "x86_64-linux", "--no-verify")
    check_whole(root, spec)
