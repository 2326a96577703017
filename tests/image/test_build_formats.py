"""The three forms of an image, read back by the programs that people read them with."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
import zstandard

from support.programs import need, run
from support.seeds import build, nix_seed, store_paths, write_project

TOOL = """
      packages.${system}.default = pkgs.runCommand "tool" { } ''
        mkdir -p $out/bin
        echo '#!/bin/sh' > $out/bin/tool
        chmod 555 $out/bin/tool
      '';
"""
CREATED = "1970-01-01T00:00:01Z"


@pytest.fixture(scope="module")
def project(distribution: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_project(tmp_path_factory.mktemp("project") / "tool", distribution, TOOL)


def make(project: Path, output: Path, *arguments: str, cache: Path) -> dict[str, Any]:
    return build(project, "--kind", "run", "-o", output, *arguments, cache=cache)


def inspect(reference: str, *arguments: str) -> Any:
    return json.loads(run(need("skopeo"), "inspect", *arguments, reference))


def blob(layout: Path, digest: str) -> bytes:
    return (layout / "blobs/sha256" / digest.removeprefix("sha256:")).read_bytes()


@pytest.mark.parametrize("form", ["oci", "oci-archive"])
@pytest.mark.parametrize("compressor", ["zstd", "gzip"])
def test_skopeo_reads_the_very_image(
    form: str, compressor: str, project: Path, cache: Path, tmp_path: Path
) -> None:
    chosen = ["--format", form, "--compressor", compressor]
    built = make(project, tmp_path / "image", *chosen, cache=cache)
    reference = f"{form}:{tmp_path}/image:tool"
    seen = inspect(reference)
    assert seen["Digest"] == built["digest"]
    assert seen["Layers"] == [layer["digest"] for layer in built["layers"]]
    assert (seen["Architecture"], seen["Os"]) == ("amd64", "linux")
    assert seen["Labels"]["io.nix-seed.nar-hash"] == built["narHash"]
    assert seen["Created"] == CREATED
    config = inspect(reference, "--config")
    assert config["rootfs"]["diff_ids"] == [layer["diffId"] for layer in built["layers"]]
    assert {entry["created"] for entry in config["history"]} == {CREATED}
    assert len(config["history"]) == len(built["layers"])

    run(need("skopeo"), "copy", "--preserve-digests", reference, f"oci:{tmp_path}/copy:tool")
    assert inspect(f"oci:{tmp_path}/copy:tool")["Digest"] == built["digest"]
    for layer in built["layers"]:
        data = blob(tmp_path / "copy", layer["digest"])
        assert len(data) == layer["size"]
        assert hashlib.sha256(unpacked(data, compressor)).hexdigest() == layer["diffId"][7:]


def unpacked(data: bytes, compressor: str) -> bytes:
    if compressor == "gzip":
        return gzip.decompress(data)
    with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
        return reader.read()


@pytest.mark.parametrize("compressor", ["zstd", "gzip"])
def test_skopeo_reads_a_docker_archive(
    compressor: str, project: Path, cache: Path, tmp_path: Path
) -> None:
    file = tmp_path / "image.tar"
    chosen = ["--format", "docker-archive", "--compressor", compressor]
    built = make(project, file, *chosen, cache=cache)
    seen = inspect(f"docker-archive:{file}")
    diff_ids = [layer["diffId"] for layer in built["layers"]]
    assert seen["Layers"] == diff_ids
    assert seen["Created"] == CREATED
    with tarfile.open(file) as archive:
        [entry] = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]
    assert entry["RepoTags"] == ["tool:latest"]
    run(need("skopeo"), "copy", f"docker-archive:{file}:tool:latest", f"oci:{tmp_path}/copy:tool")
    config = inspect(f"oci:{tmp_path}/copy:tool", "--config")
    assert config["rootfs"]["diff_ids"] == diff_ids


def test_a_docker_archive_can_have_a_whole_name(project: Path, cache: Path, tmp_path: Path) -> None:
    file = tmp_path / "image.tar"
    make(project, file, "--format", "docker-archive", "--tag", "team/tool:1.0", cache=cache)
    with tarfile.open(file) as archive:
        [entry] = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]
    assert entry["RepoTags"] == ["team/tool:1.0"]


def test_umoci_unpacks_gzip_layers(project: Path, cache: Path, tmp_path: Path) -> None:
    built = make(project, tmp_path / "image", "--compressor", "gzip", cache=cache)
    bundle = tmp_path / "bundle"
    run(need("umoci"), "unpack", "--rootless", "--image", f"{tmp_path}/image:tool", bundle)
    root = bundle / "rootfs"
    assert {f"/nix/store/{path.name}" for path in (root / "nix/store").iterdir()} == set(
        store_paths(built)
    )
    for path in store_paths(built):
        again = run(need("nix"), "hash", "path", root / path.removeprefix("/"), env=_nix())
        wanted = run(need("nix"), "hash", "path", path, env=_nix())
        assert again == wanted
    arguments = json.loads((bundle / "config.json").read_text())["process"]["args"]
    assert (root / arguments[0].removeprefix("/")).is_file()
    spec = json.loads((root / "etc/nix-seed/seed.json").read_text())
    assert spec["compressor"]["name"] == "gzip"
    _remove(bundle)


def _nix() -> dict[str, str]:
    from support.distribution import nix_env

    return nix_env()


def _remove(tree: Path) -> None:
    subprocess.run(["chmod", "-R", "u+w", tree], check=True)


def test_a_layout_keeps_one_entry_a_tag(project: Path, cache: Path, tmp_path: Path) -> None:
    layout = tmp_path / "image"
    first = make(project, layout, cache=cache)
    once = _state(layout)
    assert make(project, layout, cache=cache)["digest"] == first["digest"]
    assert _state(layout) == once
    assert _tags(layout) == {"tool": first["digest"]}
    # Another image under the tag takes it over; one under a tag of its own stands beside it.
    second = make(project, layout, "--level", "1", cache=cache)
    assert _tags(layout) == {"tool": second["digest"]}
    make(project, layout, "--tag", "first", cache=cache)
    assert _tags(layout) == {"first": first["digest"], "tool": second["digest"]}


def _state(layout: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in layout.rglob("*") if path.is_file()}


def _tags(layout: Path) -> dict[str, str]:
    entries = json.loads((layout / "index.json").read_text())["manifests"]
    tags = {
        entry["annotations"]["org.opencontainers.image.ref.name"]: entry["digest"]
        for entry in entries
    }
    assert len(tags) == len(entries)
    return tags


@pytest.mark.parametrize("form", ["oci-archive", "docker-archive"])
def test_an_archive_is_the_same_bytes_every_time(
    form: str, project: Path, cache: Path, tmp_path: Path
) -> None:
    for name in ("one.tar", "two.tar", "one.tar"):
        make(project, tmp_path / name, "--format", form, cache=cache)
    one, two = ((tmp_path / name).read_bytes() for name in ("one.tar", "two.tar"))
    assert one == two
    with tarfile.open(tmp_path / "one.tar") as archive:
        kept = [(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in archive]
    assert set(kept) == {(1, 0, 0, "", "")}


def test_an_archive_is_named_after_its_image(project: Path, cache: Path, tmp_path: Path) -> None:
    for form in ("oci-archive", "docker-archive"):
        arguments = ["--kind", "run", "--format", form]
        ran = nix_seed("build", project, *arguments, cache=cache, cwd=tmp_path)
        assert ran.code == 0, ran.err
    assert {path.name for path in tmp_path.iterdir()} == {"tool.oci.tar", "tool.docker.tar"}
