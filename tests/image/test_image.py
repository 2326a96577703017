from __future__ import annotations

import dataclasses
import json
import sqlite3
from pathlib import Path

import pytest

from nix_seed.core.digests import DiffID, Digest
from nix_seed.core.errors import InputError
from nix_seed.flake.rules.outline import CONTENTS_PATH, SPEC_PATH, File, ImageConfig
from nix_seed.formats.oci import tar
from nix_seed.formats.oci.manifest import Descriptor, Manifest, MediaType, Platform, platform_of
from nix_seed.image.rules.contents import dump_contents
from nix_seed.image.rules.frames import Compressor
from nix_seed.image.rules.spec import Spec, build_image, container_entries, container_key
from support.specs import tiny_spec

SPEC = tiny_spec()
CONTENTS = (b"of the first layer", b"of the second")
LAYERS = [
    (Descriptor(MediaType.LAYER_ZSTD, Digest.of(b"%d" % n), 100 + n), DiffID.of(b"d%d" % n))
    for n in range(3)
]
GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", ["config", "manifest"])
def test_the_documents_of_a_tiny_image(name: str) -> None:
    text = getattr(build_image(SPEC, LAYERS), name)
    golden = (GOLDEN / f"tiny-{name}.json").read_text()
    assert json.loads(text) == json.loads(golden)
    # The golden file is indented for people; the bytes are canonical.
    assert text == json.dumps(json.loads(golden), separators=(",", ":"), sort_keys=True).encode()


def test_the_documents_name_one_another() -> None:
    image = build_image(SPEC, LAYERS)
    manifest = Manifest.parse(image.manifest, "x")
    assert image.digest == Digest.of(image.manifest)
    assert manifest.config.digest == Digest.of(image.config)
    assert manifest.config.size == len(image.config)
    config = json.loads(image.config)
    assert config["rootfs"]["diff_ids"] == [str(diff) for _, diff in LAYERS]
    assert len(config["history"]) == len(LAYERS)
    assert image.platform == Platform("linux", "amd64")


def test_a_bare_image_leaves_out_what_is_not_given() -> None:
    bare = dataclasses.replace(SPEC, config=ImageConfig())
    config = json.loads(build_image(bare, LAYERS).config)["config"]
    assert set(config) == {"Env", "Labels"}
    assert config["Env"] == []
    assert config["Labels"]["io.nix-seed.nar-hash"] == str(bare.nar_hash)


def test_any_user_opens_the_store_and_its_database_and_nothing_else() -> None:
    shared = dataclasses.replace(SPEC, any_user=True)
    modes = [{e.name: e.mode for e in container_entries(spec, CONTENTS)} for spec in (SPEC, shared)]
    changed = {name: mode for name, mode in modes[1].items() if modes[0].get(name) != mode}
    assert changed == {
        b"nix/store": 0o1777,
        b"nix/var": 0o1777,
        b"nix/var/nix": 0o1777,
        b"nix/var/nix/db": 0o1777,
        b"nix/var/nix/db/db.sqlite": 0o666,
        b"nix/var/nix/gcroots": 0o1777,
        b"nix/var/nix/profiles": 0o1777,
        b"nix/var/nix/temproots": 0o1777,
        b"nix/var/nix/userpool": 0o1777,
    }
    assert container_key(shared) != container_key(SPEC)


def test_a_user_cannot_label_an_image_as_another() -> None:
    lying = dataclasses.replace(SPEC, config=ImageConfig(labels={"io.nix-seed.nar-hash": "x"}))
    labels = json.loads(build_image(lying, LAYERS).config)["config"]["Labels"]
    assert labels["io.nix-seed.nar-hash"] == str(lying.nar_hash)


def test_every_layer_is_wanted() -> None:
    with pytest.raises(InputError, match="2 layers given for a spec of 3"):
        build_image(SPEC, LAYERS[:2])


@pytest.mark.parametrize(
    ("system", "platform"),
    [
        ("x86_64-linux", Platform("linux", "amd64")),
        ("aarch64-linux", Platform("linux", "arm64", "v8")),
        ("x86_64-darwin", Platform("darwin", "amd64")),
        ("aarch64-darwin", Platform("darwin", "arm64", "v8")),
        ("armv7l-linux", Platform("linux", "arm", "v7")),
        ("armv6l-linux", Platform("linux", "arm", "v6")),
        ("i686-linux", Platform("linux", "386")),
        ("riscv64-linux", Platform("linux", "riscv64")),
        ("powerpc64le-linux", Platform("linux", "ppc64le")),
        ("s390x-linux", Platform("linux", "s390x")),
    ],
)
def test_systems_are_platforms(system: str, platform: Platform) -> None:
    assert platform_of(system) == platform


@pytest.mark.parametrize(
    "system", ["", "linux", "x86_64", "x86_64-freebsd", "mips-linux", "-linux"]
)
def test_other_systems_are_refused(system: str) -> None:
    with pytest.raises(InputError, match="has no OCI platform") as caught:
        platform_of(system)
    assert "x86_64, aarch64" in (caught.value.hint or "")


def test_the_last_layer_holds_files_spec_and_database(tmp_path: Path) -> None:
    entries = {entry.name.decode(): entry for entry in container_entries(SPEC, CONTENTS)}
    assert entries["bin"] == tar.TarEntry(b"bin", tar.SYMLINK, 0o777, b"usr/bin")
    assert entries["etc/motd"] == tar.TarEntry(b"etc/motd", tar.FILE, 0o644, b"hi\n")
    assert entries["tmp"] == tar.TarEntry(b"tmp", tar.DIRECTORY, 0o1777)
    assert entries[SPEC_PATH] == tar.TarEntry(SPEC_PATH.encode(), tar.FILE, 0o444, SPEC.dump())
    table = tar.TarEntry(CONTENTS_PATH.encode(), tar.FILE, 0o444, dump_contents(CONTENTS))
    assert entries[CONTENTS_PATH] == table
    (tmp_path / "db").write_bytes(entries["nix/var/nix/db/db.sqlite"].data)
    with sqlite3.connect(tmp_path / "db") as database:
        rows = database.execute("select path, hash, narSize from ValidPaths order by path")
        assert rows.fetchall() == [
            (str(path), f"sha256:{info.nar_hash.hex}", info.nar_size)
            for path, info in sorted(SPEC.paths.items())
        ]
    assert len(entries) == len(container_entries(SPEC, CONTENTS))
    assert list(tar.in_order(container_entries(SPEC, CONTENTS)))


def test_an_image_of_format_1_keeps_its_bytes() -> None:
    """What earlier releases made is read, and checked, by the rules it was made by."""
    old = dataclasses.replace(SPEC, format=1)
    image = build_image(old, LAYERS)
    assert str(old.nar_hash) == "sha256-+sOT9prcStz0HkVOV3aQ5GBcqEA+1NBDOMEWcxMizLQ="
    assert Manifest.parse(image.manifest, "x").annotations["io.nix-seed.format"] == "1"
    assert Spec.parse(old.dump(), "x") == old != SPEC


@pytest.mark.parametrize(
    "spec",
    [
        dataclasses.replace(SPEC, format=1),
        dataclasses.replace(SPEC, compressor=Compressor("gzip", "0.9.0", 6)),
    ],
    ids=["format 1", "gzip"],
)
def test_an_image_that_cannot_be_mounted_has_no_table(spec: Spec) -> None:
    assert CONTENTS_PATH not in {e.name.decode() for e in container_entries(spec, CONTENTS)}


def test_the_last_layer_is_cached_by_the_narhash() -> None:
    other = dataclasses.replace(SPEC, files=(*SPEC.files, File("etc/x", text="")))
    assert container_key(SPEC) == container_key(tiny_spec())
    assert container_key(other) != container_key(SPEC)
