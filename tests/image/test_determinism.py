"""One image from whatever machine makes it: the same digest, everything else being different."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from support.distribution import make, make_project, nix_env
from support.engines import need_root, trixie_nix
from support.frames import ANEW
from support.seeds import build, copied_store, path_with, remove_tree, store_paths, write_project
from support.trees import let_others_reach

# Built again in every store that lacks it: a derivation of the recipe's own.
REBUILT = "-distribution-loader"


@pytest.fixture(scope="module")
def hello(distribution: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project("hello", tmp_path_factory.mktemp("project") / "hello", distribution)


@pytest.fixture(scope="module")
def seed(hello: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The seed of `hello`, from the machine's store, with nothing cached."""
    return build(hello, "--no-prove", cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def run_image(hello: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The much smaller image to ship."""
    return build(hello, "--kind", "run", cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture
def store(seed: dict[str, Any], tmp_path: Path) -> Iterator[Path]:
    """A store of its own with all the seed holds, but what the recipe itself has built."""
    kept = [path for path in store_paths(seed) if not path.endswith(REBUILT)]
    yield copied_store(tmp_path / "store", kept)
    remove_tree(tmp_path / "store")


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Compare part by part, so that a difference says where it lies."""
    for part in ("inputKey", "narHash"):
        assert one[part] == other[part]
    layers = [[layer[k] for k in ("tier", "paths", "diffId", "digest")] for layer in one["layers"]]
    assert layers == [
        [layer[k] for k in ("tier", "paths", "diffId", "digest")] for layer in other["layers"]
    ]
    assert one["digest"] == other["digest"]


def nothing_reused(image: Mapping[str, Any]) -> bool:
    return not any(layer["reused"] for layer in image["layers"])


SETTINGS: dict[str, tuple[Mapping[str, str], Sequence[str], Sequence[str]]] = {
    "umask 000": ({}, ["sh", "-c", 'umask 000; exec "$@"', "sh"], []),
    "umask 077": ({}, ["sh", "-c", 'umask 077; exec "$@"', "sh"], []),
    "locale C": ({"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0"}, [], []),
    "locale tr_TR": ({"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8", "LANGUAGE": "tr"}, [], []),
    "time zone": ({"TZ": "Pacific/Kiritimati"}, [], []),
    "1 thread": ({}, [], ["--threads", "1"]),
    "2 threads": ({}, [], ["--threads", "2"]),
    "8 threads": ({}, [], ["--threads", "8"]),
    "hash seed 0": ({"PYTHONHASHSEED": "0"}, [], []),
    "hash seed 4711": ({"PYTHONHASHSEED": "4711"}, [], []),
    "another time": ({"SOURCE_DATE_EPOCH": "1234567890"}, [], []),
    "other names": ({"HOME": "/var/empty", "USER": "somebody", "HOSTNAME": "elsewhere"}, [], []),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_one_image_under_every_setting(
    setting: str, hello: Path, run_image: dict[str, Any], tmp_path: Path
) -> None:
    given, prefix, arguments = SETTINGS[setting]
    env = {**given, **ANEW}
    again = build(hello, "--kind", "run", *arguments, cache=tmp_path, env=env, prefix=prefix)
    assert nothing_reused(again)
    same(again, run_image)


def test_one_seed_where_all_settings_differ_and_layers_are_cached(
    hello: Path, seed: dict[str, Any], tmp_path: Path
) -> None:
    env = ANEW | {"LC_ALL": "C", "TZ": "Asia/Kathmandu", "PYTHONHASHSEED": "1", "COLUMNS": "20"}
    prefix = ["sh", "-c", 'umask 077; exec "$@"', "sh"]
    cold = build(hello, "--threads", "3", cache=tmp_path, env=env, prefix=prefix)
    warm = build(hello, cache=tmp_path)
    assert nothing_reused(cold)
    assert all(layer["reused"] for layer in warm["layers"])
    same(cold, seed)
    same(warm, seed)


def test_one_image_from_a_store_that_was_built_from_nothing(
    distribution: Path, hello: Path, seed: dict[str, Any], tmp_path: Path
) -> None:
    """The base tier is made from Debian's files again; the rest of the seed is copied to it."""
    root = tmp_path / "store"
    script = 'mkdir -p $out/bin; echo "#!/bin/sh" > $out/bin/tool; chmod 555 $out/bin/tool'
    tool = f"packages.${{system}}.default = pkgs.runCommand \"tool\" {{ }} ''{script}'';"
    project = write_project(tmp_path / "tool", distribution, tool)
    here = build(project, "--kind", "run", cache=tmp_path / "cache-here")
    try:
        make("distribution", tmp_path / "again", "--store", root)
        env = nix_env(max_jobs="auto")
        there = build(project, "--kind", "run", "--store", root, cache=tmp_path / "cache", env=env)
        same(there, here)
        assert _inode(root, there) != _inode(Path("/"), here)
        copied_store(root, store_paths(seed))
        same(build(hello, "--store", root, cache=tmp_path / "cache-seed"), seed)
    finally:
        remove_tree(root)


def _inode(root: Path, image: Mapping[str, Any]) -> tuple[int, int]:
    libc = next(path for path in store_paths(image) if "-libc6-" in path)
    status = (root / libc.removeprefix("/")).stat()
    return status.st_dev, status.st_ino


def test_one_image_from_a_hard_linked_store(
    hello: Path, seed: dict[str, Any], store: Path, tmp_path: Path
) -> None:
    command = ["nix-store", "--store", str(store), "--optimise"]
    subprocess.run(command, check=True, capture_output=True, env=nix_env())
    files = (path for path in (store / "nix/store").rglob("*") if path.is_file())
    assert any(path.stat().st_nlink > 2 for path in files if not path.is_symlink())
    same(build(hello, "--store", store, cache=tmp_path / "cache"), seed)


def test_one_image_whatever_order_the_file_system_lists(
    hello: Path, seed: dict[str, Any], store: Path, tmp_path: Path
) -> None:
    """tmpfs lists the newest file first; a store is copied there in random order."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or shutil.disk_usage(memory).free < 2e9:
        pytest.skip("needs 2 GB of /dev/shm, a file system that lists files in another order")
    root = memory / f"nix-seed-test-{os.getpid()}"
    try:
        _copy_shuffled(store, root)
        paths = store_paths(seed)
        orders = [[_listed(base, path) for path in paths] for base in (root, store)]
        assert orders[0] != orders[1]
        same(build(hello, "--store", root, cache=tmp_path / "cache"), seed)
    finally:
        remove_tree(root)


def _listed(root: Path, path: str) -> list[str]:
    real = root / path.removeprefix("/")
    return os.listdir(real) if real.is_dir() else []


def _copy_shuffled(source: Path, target: Path) -> None:
    """Copy a tree, the entries of each directory in an order of chance."""
    if source.is_symlink() or not source.is_dir():
        shutil.copy2(source, target, follow_symlinks=False)
        return
    target.mkdir()
    entries = list(source.iterdir())
    random.Random(20).shuffle(entries)
    for entry in entries:
        _copy_shuffled(entry, target / entry.name)
    shutil.copystat(source, target)


def test_one_image_from_another_nix(
    hello: Path, seed: dict[str, Any], store: Path, tmp_path: Path
) -> None:
    """Debian trixie's Nix evaluates, builds what is missing, and lists the closure."""
    # Its default is a shell that only its own package brings.
    env = nix_env(sandbox_paths="") | path_with(trixie_nix())
    versions = {
        subprocess.run(["nix", "--version"], env=each, capture_output=True, check=True).stdout
        for each in (env, nix_env())
    }
    assert len(versions) == 2
    same(build(hello, "--store", store, cache=tmp_path / "cache", env=env), seed)


def test_one_image_from_an_unprivileged_user(
    hello: Path, seed: dict[str, Any], store: Path, tmp_path: Path
) -> None:
    """Somebody else, with a store and a checkout of their own, under a strict umask."""
    prefix = _as_nobody(tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    shutil.copytree(hello, home / "checkout", symlinks=True)
    subprocess.run(["chown", "-R", "65534:65534", str(home), str(store)], check=True)
    env = {"HOME": str(home), "USER": "nobody", "XDG_CACHE_HOME": str(home / ".cache")}
    image = build(home / "checkout", "--store", store, cache=home / "seeds", env=env, prefix=prefix)
    same(image, seed)
    loader = next((store / "nix/store").glob(f"*{REBUILT}"))
    index = home / "seeds/images/index.json"
    assert {loader.stat().st_uid, index.stat().st_uid} == {65534}
    assert json.loads(index.read_text())["manifests"][0]["digest"] == image["digest"]


def _as_nobody(directory: Path) -> list[str]:
    """Return what starts a program as another user, who may read but not write what is here."""
    need_root()
    if shutil.which("setpriv") is None:
        pytest.skip("needs setpriv: apt-get install util-linux")
    # Only so that this very Python and checkout are found, wherever they lie.
    reading = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *reading]
    let_others_reach(directory)
    if subprocess.run([*user, "unshare", "--user", "true"], check=False).returncode != 0:
        pytest.skip("needs user namespaces for unprivileged users, to build in a store of theirs")
    return ["sh", "-c", 'umask 077; exec "$@"', "sh", *user]
