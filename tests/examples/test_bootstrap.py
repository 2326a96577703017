"""The bootstrap from 283 bytes: the seed is what its source says, and nothing else is executed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from support.distribution import EXAMPLES, build, make_project, require_nix
from support.seeds import nix_seed

BOOTSTRAP = EXAMPLES / "bootstrap"
SEED_SIZE = 283


def spelled(source: Path) -> bytes:
    """Return the bytes that a commented hexadecimal text spells."""
    return bytes.fromhex(re.sub("#.*", "", source.read_text()))


@pytest.fixture
def bootstrap(tmp_path: Path) -> str:
    require_nix()
    shutil.copytree(BOOTSTRAP, tmp_path / "bootstrap")
    return f"path:{tmp_path / 'bootstrap'}"


def test_the_seed_is_its_commented_source() -> None:
    seed = (BOOTSTRAP / "hex0-seed").read_bytes()
    assert seed == spelled(BOOTSTRAP / "hex0.hex")
    assert len(seed) == SEED_SIZE
    for line in (BOOTSTRAP / "hex0.hex").read_text().splitlines():
        assert not line or "#" in line, f"without a comment: {line}"


def test_each_stage_builds_the_next_in_the_sandbox(bootstrap: str) -> None:
    assert build(f"{bootstrap}#hex0", sandbox="true").read_bytes() == spelled(
        BOOTSTRAP / "hex0.hex"
    )
    assert build(f"{bootstrap}#hex1", sandbox="true").read_bytes() == spelled(
        BOOTSTRAP / "hex1.hex"
    )
    assert build(bootstrap, sandbox="true").read_text() == f"Made of {SEED_SIZE} bytes.\n"


@pytest.mark.parametrize("program", ["hex0", "hex1"])
@pytest.mark.parametrize("text", ["7", "7f 4", "zz", "7F", "# no end"])
def test_assemblers_refuse_what_they_do_not_know(tmp_path: Path, program: str, text: str) -> None:
    assembler = tmp_path / program
    assembler.write_bytes(spelled(BOOTSTRAP / f"{program}.hex"))
    assembler.chmod(0o755)
    (tmp_path / "source").write_text(text)
    command = [str(assembler), "source", "result"]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 1
    (tmp_path / "source").write_text("61 62#62\n 63")
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 0
    assert (tmp_path / "result").read_bytes() == b"abc"


def test_labels_are_relative_to_the_place_behind_them(tmp_path: Path) -> None:
    assembler = tmp_path / "hex1"
    assembler.write_bytes(spelled(BOOTSTRAP / "hex1.hex"))
    assembler.chmod(0o755)
    (tmp_path / "source").write_text("00 %b :a 01 %a :b")
    subprocess.run([str(assembler), "source", "result"], cwd=tmp_path, check=True)
    assert (tmp_path / "result").read_bytes() == b"\0\5\0\0\0\1\xfb\xff\xff\xff"


def test_roots_are_the_seed_and_nothing_else(bootstrap: str, tmp_path: Path) -> None:
    build(bootstrap)
    policy = "executed-seed-max=1KiB,binary-max=1KiB,built-here,no-impure,no-host"
    ran = nix_seed("roots", "--outputs", bootstrap, "--policy", policy, "--json", cache=tmp_path)
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert [(item["path"][44:], item["size"], item["form"]) for item in found["executed"]] == [
        ("hex0-seed", SEED_SIZE, "ELF")
    ]
    assert found["binaries"] == found["host"] == found["impure"] == found["substituted"] == []
    assert sorted(item["path"][44:] for item in found["sources"]) == [
        "greet.hex1",
        "hex0.hex",
        "hex1.hex",
    ]
    assert found["policy"] == {"broken": [], "unjudged": []}
    strict = nix_seed(
        "roots", "--outputs", bootstrap, "--policy", "executed-seed-max=282", cache=tmp_path
    )
    assert strict.code == 1
    assert f"hex0-seed has {SEED_SIZE} bytes, more than 282" in strict.err


def test_the_way_from_the_output_to_the_seed(bootstrap: str, tmp_path: Path) -> None:
    ran = nix_seed(
        "roots", "--outputs", f"{bootstrap}#greeting", "--why", "hex0-seed", cache=tmp_path
    )
    assert ran.code == 0, ran.err
    names = [line.strip()[44:] for line in ran.out.splitlines()]
    assert names == ["greeting.drv", "greet.drv", "hex1.drv", "hex0.drv", "hex0-seed"]


def test_the_demo_rests_on_busybox_and_debians_archives(tmp_path: Path) -> None:
    project = make_project("hello", tmp_path / "hello")
    policy = tmp_path / "policy.toml"
    policy.write_text('[roots]\nexecuted-seed-max = "1 KiB"\n')
    ran = nix_seed("roots", project, "--policy", policy, "--json", cache=tmp_path)
    assert ran.code == 1, ran.err
    found = json.loads(ran.out)
    [busybox] = found["executed"]
    assert "busybox-static" in busybox["path"]
    assert busybox["form"] == "ELF"
    assert busybox["urls"][0].startswith("mirror://debian/pool/main/b/busybox/")
    assert len(found["binaries"]) > 80
    assert all(item["path"].endswith(".deb") and item["inside"] for item in found["binaries"])
    assert any("/libc6_" in url for item in found["binaries"] for url in item["urls"])
    assert "bin/sh has" in ran.err
    assert "more than 1024" in ran.err
