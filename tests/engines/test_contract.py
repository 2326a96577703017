"""The image contract, replayed by every engine and by tools that only read images."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from nix_seed.core.digests import Digest
from nix_seed.flake.rules.outline import CONTENTS_PATH, SPEC_PATH
from nix_seed.formats.oci.reference import LayoutReference
from nix_seed.image.read.unpack import unpacked
from nix_seed.registry.layout import REF_NAME, Image, Layout, open_image
from nix_seed.setup.rules.diagnosis import (
    Diagnosis,
    Health,
    Kind,
    checks_for,
    contract_script,
    read_findings,
)
from nix_seed.use.engines import choose_engine
from nix_seed.use.engines.base import Engine, Job
from support import built, engines
from support.engines import run_node
from support.host_image import host_image
from support.layouts import directory, file, symlink, tar


def examine(engine: Engine, image: Image, tmp_path: Path, kind: Kind) -> tuple[Diagnosis, ...]:
    checks = checks_for(kind, image.architecture)
    exchange = tmp_path / "exchange"
    exchange.mkdir()
    script = "exec > /.nix-seed/exchange/transcript 2>&1\n" + contract_script(checks)
    engine.run(engine.prepare(image), image, Job(("/bin/sh", "-c", script), exchange))
    transcript = (exchange / "transcript").read_text("utf-8", "replace")
    return read_findings(engine.name, checks, transcript)


def test_a_seed_keeps_the_contract(engine: Engine, image: Image, tmp_path: Path) -> None:
    findings = examine(engine, image, tmp_path, "seed")
    assert len(findings) > 25
    assert {f.name: f.said for f in findings if f.outcome is not Health.FINE} == {}


def test_a_run_image_keeps_the_contract(engine: Engine, run_image: Image, tmp_path: Path) -> None:
    findings = examine(engine, run_image, tmp_path, "run")
    assert len(findings) > 10
    assert {f.name: f.said for f in findings if f.outcome is not Health.FINE} == {}


def test_a_run_image_starts_its_program(engine: Engine, run_image: Image, tmp_path: Path) -> None:
    entrypoint = run_image.config["config"]["Entrypoint"]
    (tmp_path / "exchange").mkdir()
    said = "/.nix-seed/exchange/said"
    words = ("/bin/sh", "-c", f'"$0" Hello world > {said}', *entrypoint)
    job = Job(words, tmp_path / "exchange")
    assert engine.run(engine.prepare(run_image), run_image, job) == 0
    assert (tmp_path / "exchange/said").read_text() == "Hello, world!\n"


def test_both_images_share_their_base(image: Image, run_image: Image) -> None:
    def base(of: Image) -> list[Digest]:
        tier = "io.nix-seed.tier"
        return [each.digest for each, _ in of.layers if each.annotations[tier] == "base"]

    assert base(image) == base(run_image) != []


def test_each_broken_clause_is_found_with_its_fix(tmp_path: Path) -> None:
    engines.need("bwrap", "bubblewrap")
    broken = tar(
        [
            file(".wh.tmp"),
            directory("tmp", 0o755),
            file("etc/.wh.passwd"),
            symlink("etc/passwd", "/usr/passwd"),
            file("usr/passwd", b"root:x:0:0::/root:/bin/sh\n"),
            file("etc/os-release", b"ID=alpine\n", 0o644),
            file("usr/bin/.wh.zstd"),
            file("etc/gitconfig", b"", 0o644),
        ]
    )
    image = open_image(LayoutReference(str(host_image(tmp_path / "image", broken))))
    findings = examine(choose_engine("bwrap", tmp_path / "cache"), image, tmp_path, "seed")
    failed = {f.name: f for f in findings if f.outcome is not Health.FINE}
    assert set(failed) == {
        "/tmp",
        "/etc/passwd",
        "/etc/os-release",
        "zstd",
        "safe.directory",
        "Nix's store",
    }
    assert failed["/tmp"].said == "mode 755"
    assert failed["/tmp"].fix == "give the image a directory /tmp of mode 1777"
    assert failed["/etc/passwd"].said == "a symlink"
    assert failed["/etc/os-release"].said == "no line begins with ID=nixos"
    assert failed["zstd"].said == "not on PATH=/usr/bin"


@pytest.mark.parametrize("kind", ["seed", "run"])
def test_a_foreign_node_runs_from_e(
    kind: str, root: Path, run_image: Image, tmp_path: Path
) -> None:
    """What GitHub's runner does: its own Node, mounted read-only, no LD_LIBRARY_PATH."""
    where = root if kind == "seed" else unpacked(run_image, tmp_path / "roots")
    done = run_node(where)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("v20.")


def test_a_foreign_node_runs_in_a_chroot(root: Path, tmp_path: Path) -> None:
    """The plain root file system, with no container program at all."""
    engines.need_root()
    copy = tmp_path / "root"
    # Links instead of copies: nothing inside is written to.
    subprocess.run(["cp", "-al", root, copy], check=True)
    node = copy / "__e/node20"
    node.parent.mkdir()
    subprocess.run(["cp", "-a", engines.node_package(), node], check=True)
    command = ["env", "-i", shutil.which("chroot", path="/usr/sbin:/sbin:/usr/bin:/bin") or ""]
    done = subprocess.run(
        [*command, str(copy), "/__e/node20/bin/node", "-p", "process.version"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("v20.")


def test_skopeo_reads_and_copies_it(image: Image, layout: Path, tmp_path: Path) -> None:
    engines.need("skopeo")
    inspected = subprocess.check_output(["skopeo", "inspect", "--raw", f"oci:{layout}"])
    assert json.loads(inspected) == json.loads(image.blob_path(image.digest).read_bytes())
    copy = tmp_path / "copy"
    command = ["skopeo", "--insecure-policy", "copy", "--quiet", f"oci:{layout}", f"oci:{copy}:x"]
    subprocess.run(command, check=True)
    assert open_image(LayoutReference(str(copy), "x")).digest == image.digest


def test_buildah_mounts_it(run_image: Image, tmp_path: Path) -> None:
    engines.need_root()
    engines.need("buildah")
    store = ["--root", str(tmp_path / "b"), "--runroot", str(tmp_path / "br")]
    # It names an image by its path, in which a directory such as .demo is refused.
    (tmp_path / "layout").symlink_to(run_image.directory)
    name = subprocess.check_output(
        ["buildah", *store, "from", "--quiet", f"oci:{tmp_path}/layout"], text=True
    ).strip()
    try:
        place = subprocess.check_output(["buildah", *store, "mount", name], text=True).strip()
        assert b"ID=nixos" in (Path(place) / "etc/os-release").read_bytes()
    finally:
        subprocess.run(["buildah", *store, "umount", name], capture_output=True, check=False)
        subprocess.run(["buildah", *store, "rm", name], capture_output=True, check=False)


def test_umoci_unpacks_the_gzip_kind(run_image: Image, tmp_path: Path) -> None:
    engines.need_root()
    engines.need("umoci")
    layout = built.layout("run", "gzip")
    tag = Layout.open(layout).index().manifests[0].annotations[REF_NAME]
    bundle = tmp_path / "bundle"
    command = ["umoci", "unpack", "--image", f"{layout}:{tag}", str(bundle)]
    subprocess.run(command, check=True, capture_output=True)
    root = unpacked(run_image, tmp_path / "roots")
    theirs, mine = _listing(bundle / "rootfs"), _listing(root)
    # The one file in which the two kinds of an image differ: it names the compressor.
    assert theirs.pop(SPEC_PATH)[1] == mine.pop(SPEC_PATH)[1]
    # And the one that only zstd has: it says what lies in which frame.
    assert mine.pop(CONTENTS_PATH)
    assert theirs == mine


def test_containerd_imports_and_mounts_it(run_image: Image, tmp_path: Path) -> None:
    archive, root = tmp_path / "image.tar", unpacked(run_image, tmp_path / "roots")
    members = ["oci-layout", "index.json", "blobs"]
    subprocess.run(["tar", "-chf", archive, "-C", run_image.directory, *members], check=True)
    with engines.containerd(tmp_path) as started:
        env = os.environ | started.env

        def ctr(*arguments: str) -> str:
            command = [started.program, *arguments]
            done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            return done.stdout

        ctr("image", "import", "--base-name", "run", "--digests", str(archive))
        names = ctr("image", "list", "--quiet").split()
        assert f"run@{run_image.digest}" in names
        target = tmp_path / "mounted"
        target.mkdir()
        ctr("image", "mount", f"run@{run_image.digest}", str(target))
        try:
            assert _listing(target) == _listing(root)
        finally:
            ctr("image", "unmount", str(target))


def _listing(root: Path) -> dict[str, tuple[str, int, int]]:
    """Every path with its target or nothing, its mode and its size: what must agree."""
    found = {}
    for path in root.rglob("*"):
        status = path.lstat()
        target = os.readlink(path) if path.is_symlink() else ""
        size = status.st_size if path.is_file() and not target else 0
        found[str(path.relative_to(root))] = (target, status.st_mode, size)
    return found
