from __future__ import annotations

import hashlib
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError
from nix_seed.formats.oci.manifest import MediaType
from nix_seed.image.build import write_docker_archive, write_oci_archive
from nix_seed.image.rules.frames import Compressor
from nix_seed.registry.layout import ImageFiles, Layout
from support.blobs import members
from support.images import check_image, image
from support.nars import NarFile
from support.programs import need, run
from support.trees import AWKWARD


@pytest.fixture(params=["zstd", "gzip"])
def one(request: pytest.FixtureRequest, tmp_path: Path) -> ImageFiles:
    trees = {"awkward": AWKWARD, "file": NarFile(b"1" * 5_000_000)}
    return image(tmp_path / "one", trees, Compressor.at_hand(request.param))


def read(path: Path) -> dict[str, bytes]:
    found = {}
    with tarfile.open(path) as archive:
        for member in archive:
            assert (member.mtime, member.uid, member.gid) == (1, 0, 0)
            file = archive.extractfile(member)
            found[member.name] = b"" if file is None else file.read()
    return found


def test_an_oci_archive_is_a_layout(tmp_path: Path, one: ImageFiles) -> None:
    write_oci_archive(one, tmp_path / "seed.tar", "seed")
    with tarfile.open(tmp_path / "seed.tar") as archive:
        archive.extractall(tmp_path / "layout", filter="data")
    layout = Layout.open(tmp_path / "layout")
    described = layout.listing().named["seed"]
    assert described == one.descriptor("seed")
    assert check_image(layout, described) == one.manifest


def test_a_docker_archive_holds_the_tars(tmp_path: Path, one: ImageFiles) -> None:
    write_docker_archive(one, tmp_path / "seed.tar", ("demo/seed:latest",))
    found = read(tmp_path / "seed.tar")
    [listing] = json.loads(found["manifest.json"])
    assert listing["RepoTags"] == ["demo/seed:latest"]
    assert found[listing["Config"]] == one.config
    diff_ids = json.loads(one.config)["rootfs"]["diff_ids"]
    hashes = [hashlib.sha256(found[name]).hexdigest() for name in listing["Layers"]]
    assert [f"sha256:{digest}" for digest in hashes] == diff_ids
    for name in listing["Layers"]:
        assert members(found[name])[0].name == "nix"


def test_archives_are_functions_of_the_image(tmp_path: Path, one: ImageFiles) -> None:
    for write in (write_oci_archive, write_docker_archive):
        write(one, tmp_path / "a.tar")
        write(one, tmp_path / "b.tar")
        assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive"])
def test_skopeo_reads_both(tmp_path: Path, one: ImageFiles, kind: str) -> None:
    path = tmp_path / "seed.tar"
    if kind == "oci-archive":
        write_oci_archive(one, path, "seed")
        name = f"oci-archive:{path}:seed"
    else:
        write_docker_archive(one, path, ("demo/seed:latest",))
        name = f"docker-archive:{path}:demo/seed:latest"
    told = json.loads(run(need("skopeo"), "inspect", name))
    assert told["Architecture"] == "amd64"
    assert len(told["Layers"]) == 2
    config = json.loads(run("skopeo", "inspect", "--config", name))
    assert config["rootfs"]["diff_ids"] == json.loads(one.config)["rootfs"]["diff_ids"]


@pytest.mark.parametrize("write", [write_oci_archive, write_docker_archive])
def test_damaged_blobs_give_no_archive(tmp_path: Path, one: ImageFiles, write: object) -> None:
    assert callable(write)
    path = tmp_path / "seed.tar"
    path.write_bytes(b"what was here before")
    blob = next(iter(one.blobs.values()))
    data = blob.read_bytes()
    for damaged in (data[:-30], data[:30] + bytes([data[30] ^ 8]) + data[31:]):
        blob.unlink()
        blob.write_bytes(damaged)
        with pytest.raises(CheckedFalse, match=blob.name):
            write(one, path)
        assert path.read_bytes() == b"what was here before"
    blob.unlink()
    with pytest.raises(CouldNotCheck, match="No such file"):
        write(one, path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "seed.tar"]


def test_a_directory_is_no_archive(tmp_path: Path, one: ImageFiles) -> None:
    for write in (write_oci_archive, write_docker_archive):
        with pytest.raises(InputError, match="is a directory; an archive is a file"):
            write(one, tmp_path)


def test_a_config_that_does_not_fit_its_manifest(tmp_path: Path, one: ImageFiles) -> None:
    with pytest.raises(CheckedFalse, match="does not give one diffID for each layer"):
        write_docker_archive(replace(one, config=b"{}"), tmp_path / "seed.tar")
    fewer = replace(one, manifest=replace(one.manifest, layers=one.manifest.layers[1:]))
    with pytest.raises(CheckedFalse, match="does not give one diffID for each layer"):
        write_docker_archive(fewer, tmp_path / "seed.tar")


def test_an_uncompressed_layer(tmp_path: Path, one: ImageFiles) -> None:
    write_docker_archive(one, tmp_path / "seed.tar")
    found = read(tmp_path / "seed.tar")
    [listing] = json.loads(found["manifest.json"])
    tars = [found[name] for name in listing["Layers"]]
    blobs = {Digest.of(data): tmp_path / Digest.of(data).hex for data in tars}
    for data in tars:
        blobs[Digest.of(data)].write_bytes(data)
    layers = tuple(
        replace(one.manifest.layers[0], media_type=MediaType.LAYER, digest=digest, size=size)
        for digest, size in ((Digest.of(data), len(data)) for data in tars)
    )
    plain = replace(one, manifest=replace(one.manifest, layers=layers), blobs=blobs)
    write_docker_archive(plain, tmp_path / "plain.tar")
    assert (tmp_path / "plain.tar").read_bytes() == (tmp_path / "seed.tar").read_bytes()
