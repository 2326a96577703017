"""What programs that nobody here wrote make of a seed: they unpack, list and check it."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from nix_seed.image.read.spec import read_spec
from nix_seed.registry.layout import Image
from nix_seed.use.engines.base import EXCHANGE, Engine, Job
from support import seeds
from support.apt import packages
from support.goprograms import installed


def said(command: Sequence[str | Path], **env: str) -> str:
    done = subprocess.run(
        command, env=os.environ | env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def tree(root: Path) -> dict[str, tuple[object, ...]]:
    """What is below *root*: modes, owners, times and contents, by path."""
    found: dict[str, tuple[object, ...]] = {}
    for parent, directories, files in os.walk(root):
        for name in directories + files:
            path = Path(parent, name)
            status = path.lstat()
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                content = ""
            # A directory's time is that of who wrote into it last.
            time = 0 if path.is_dir() and not path.is_symlink() else int(status.st_mtime)
            owner = (status.st_uid, status.st_gid)
            found[str(path.relative_to(root))] = (status.st_mode, owner, time, content)
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files to their owners")
def test_umoci_unpacks_the_same_tree(layout: Path, root: Path, tmp_path: Path) -> None:
    """0.6 is the first that reads layers compressed by zstd."""
    umoci = packages("sid", "umoci") / "usr/bin/umoci"
    tag = json.loads((layout / "index.json").read_text())["manifests"][0]["annotations"]
    name = tag["org.opencontainers.image.ref.name"]
    said([umoci, "unpack", "--image", f"{layout}:{name}", tmp_path / "bundle"])
    try:
        theirs, ours = tree(tmp_path / "bundle/rootfs"), tree(root)
        assert len(ours) > 1000
        assert [path for path in sorted(theirs | ours) if theirs.get(path) != ours.get(path)] == []
    finally:
        seeds.remove_tree(tmp_path / "bundle")


@pytest.mark.interop
@pytest.mark.timeout(1200)
def test_syft_names_the_store_paths(layout: Path, image: Image) -> None:
    found = json.loads(
        said(
            [installed("syft"), "-q", f"oci-dir:{layout}", "-o", "json"],
            SYFT_CHECK_FOR_APP_UPDATE="false",
        )
    )
    theirs = {
        each["metadata"]["path"]: f"{each['name']}-{each['version']}"
        for each in found["artifacts"]
        if each["type"] == "nix"
    }
    paths = {str(path): path.name for path in read_spec(image).paths}
    assert theirs.keys() <= paths.keys()
    # It cuts what Debian adds to a version, and passes over a name that has none.
    assert [path for path, name in theirs.items() if not paths[path].startswith(name)] == []
    assert not any(path[-1].isdecimal() for path in paths.keys() - theirs.keys())
    assert found["distro"]["id"] == "nixos"


NIX = f"""
exec > {EXCHANGE}/said 2>&1
set -e
nix-store --verify --check-contents
nix path-info --all | wc -l
nix copy --all --no-check-sigs --to {EXCHANGE}/copy
nix doctor
"""


def test_its_own_nix_finds_nothing_wrong(engine: Engine, image: Image, tmp_path: Path) -> None:
    exchange = tmp_path / "exchange"
    exchange.mkdir()
    try:
        code = engine.run(engine.prepare(image), image, Job(("/bin/sh", "-c", NIX), exchange))
        text = (exchange / "said").read_text()
        assert code == 0, text[-2000:]
        assert f"\n{len(read_spec(image).paths)}\n" in text
        for trouble in ("FAIL", "modified", "corrupt", "disappeared", "not valid"):
            assert trouble not in text
    finally:
        seeds.remove_tree(exchange)
