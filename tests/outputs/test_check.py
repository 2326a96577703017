"""``nix-seed outputs check``: who reproduced what, and where a difference begins."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from nix_seed.cli.main import main
from nix_seed.core.digests import Digest
from support.json_page import check as check_json
from support.outputs import OutputsWorld, file_tree, store_path
from support.trust import COMMIT, OTHER_COMMIT, SYSTEM

LATER = {"library": file_tree(lib="the library", about="built at 13:00")}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OutputsWorld:
    monkeypatch.setenv("NIX_SEED_STATE", str(tmp_path / "state"))
    return OutputsWorld(tmp_path)


def ask(
    world: OutputsWorld, capsys: pytest.CaptureFixture[str], *more: str, command: str = "check"
) -> tuple[int, str]:
    """Run the command; return its exit code and what it printed."""
    where = ["--from", f"oci:{world.directory}", "--policy", str(world.write_policy())]
    sys.argv = ["nix-seed", "outputs", command, str(COMMIT), *where, *more]
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out + printed.err


def test_all_is_reproducible(world: OutputsWorld, capsys: pytest.CaptureFixture[str]) -> None:
    world.build("alice")
    world.build("bob")
    code, printed = ask(world, capsys)
    assert code == 0
    assert "verdict: VERIFIED: 3 of 3 outputs reproducible" in printed
    assert "packages.tool     reproducible  alice, bob" in printed
    assert f"not heard for {SYSTEM}: carol" in printed
    rows = [line for line in printed.splitlines() if line.startswith(("OUTPUT", "packages."))]
    assert len(rows) == 4
    assert max(map(len, rows)) <= 60


def test_of_three_builders_one_is_not_reproducible(
    world: OutputsWorld, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    world.build("alice")
    world.build("bob")
    # The tool links the library in: it differs because of it, and the site does not.
    world.build("carol", LATER | {"tool": file_tree(program="calls another", about="version 1")})
    pages = ["--page", str(tmp_path / "page.html"), "--badge", str(tmp_path / "badge.svg")]
    code, printed = ask(world, capsys, *pages)
    assert code == 1
    begins = "2 outputs differ; it begins with packages.library"
    assert f"verdict: CHECKED AND FALSE: {begins}" in printed
    assert "packages.library  differs       alice, bob | carol" in printed
    assert f"  derivation  {store_path('library.drv')}" in printed
    assert "  about: 9 and 14 bytes; from byte 0 on: 'version 1' and 'built at 13:00'" in printed
    assert "follows from that: packages.tool" in printed
    assert "lib:" not in printed
    page = (tmp_path / "page.html").read_text()
    assert begins in page
    assert str(store_path("library.drv")) in page
    assert "built at 13:00" in page
    assert "1 other differs only because of that" in page
    assert "reproducible: 1 of 3" in (tmp_path / "badge.svg").read_text()
    code, printed = ask(world, capsys, "--json")
    check_json("outputs check", printed)
    answer = json.loads(printed)
    assert (code, answer["verdict"]) == (1, "checked and false")
    found = {each["names"][0]: each for each in answer["outputs"]}
    library, tool = found["packages.library"], found["packages.tool"]
    assert (library["begins"], library["files"][0]["file"]) == (True, "about")
    assert (tool["begins"], tool["follows"]) == (False, [str(store_path("library"))])


def test_what_one_builder_built_is_no_proof(
    world: OutputsWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    world.build("alice")
    world.build("alice", finished_on="2026-02-01T00:00:00Z")
    code, printed = ask(world, capsys)
    assert code == 0
    assert "0 of 3 outputs reproducible, 3 built once" in printed


def test_a_log_that_contradicts_itself_is_no_success(
    world: OutputsWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    world.build("alice")
    world.build("bob")
    world.logs[0]["url"] = '"log"'
    assert ask(world, capsys)[0] == 0
    for tile in (world.root / "log/public/tile/0").rglob("*"):
        if tile.is_file():
            tile.write_bytes(bytes(len(tile.read_bytes())))
    code, printed = ask(world, capsys)
    assert code == 1
    assert "verdict: CHECKED AND FALSE: the log log forked" in printed


def test_nobody_said_anything(world: OutputsWorld, capsys: pytest.CaptureFixture[str]) -> None:
    world.build("alice", commit=OTHER_COMMIT)
    code, printed = ask(world, capsys)
    assert code == 1
    assert f"no builder of the policy has said what the outputs of {COMMIT} are" in printed


def test_what_is_not_kept_is_named_and_not_compared(
    world: OutputsWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    world.build("alice")
    world.build("bob", LATER)
    for blob in (world.directory / "blobs/sha256").iterdir():
        if blob.read_bytes().startswith(b"\x28\xb5\x2f\xfd"):
            blob.unlink()
    code, printed = ask(world, capsys)
    assert code == 1
    assert "it begins with packages.library" in printed
    assert "blob" in printed


def test_other_seeds_are_said(world: OutputsWorld, capsys: pytest.CaptureFixture[str]) -> None:
    world.build("alice")
    world.build("bob", LATER, seed=Digest.of(b"another seed"))
    code, printed = ask(world, capsys)
    assert code == 1
    assert "they were built in different seeds" in printed


def test_a_signer_whom_the_policy_does_not_know_makes_no_difference(
    world: OutputsWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    world.build("alice")
    world.build("bob")
    world.build("alice", LATER, key="mallory")
    code, printed = ask(world, capsys)
    assert code == 0
    assert "set aside: " in printed
    assert "is signed by none of the trusted keys" in printed
