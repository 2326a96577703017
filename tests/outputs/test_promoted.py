"""A record's second root: the outputs that a quorum stands for, and what a promoted name is."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from nix_seed.cli.main import main
from nix_seed.core.digests import Digest, NarHash
from nix_seed.core.errors import CheckedFalse, InputError
from nix_seed.formats.intoto.statement import PromotionPredicate, promotion_statement
from nix_seed.release.rules.tree import OutputLeaf, ReleasedOutputs
from support.distribution import nix_env
from support.json_page import check
from support.nars import dump, nar_hash
from support.outputs import OutputsWorld, file_tree, store_path
from support.programs import need
from support.releases import ReleaseWorld
from support.trust import COMMIT, OTHER_COMMIT, SYSTEM

POISON = {"tool": file_tree(program="calls home", about="version 1")}


class PromotingWorld(OutputsWorld, ReleaseWorld):
    """Outputs, and who promotes them."""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PromotingWorld:
    monkeypatch.setenv("NIX_SEED_STATE", str(tmp_path / "state"))
    made = PromotingWorld(tmp_path / "world")
    made.attest_all()
    return made


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    sys.argv = ["nix-seed", *arguments]
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out + printed.err


def promote(
    world: PromotingWorld, capsys: pytest.CaptureFixture[str], *more: str, who: str = "rita"
) -> tuple[int, str]:
    policy, key = world.write_policy(), world.root / f"{who}.key"
    where = ["--to", world.repository, "--policy", str(policy), "--key", str(key)]
    return run(capsys, "promote", str(COMMIT), *where, *more)


def verify(
    world: PromotingWorld, capsys: pytest.CaptureFixture[str], name: str, *more: str
) -> tuple[int, str]:
    where = ["--from", world.repository, "--policy", str(world.write_policy())]
    asked = ["--output", name, "--system", SYSTEM]
    return run(capsys, "verify", str(COMMIT), *where, *asked, *more)


def build(world: PromotingWorld, *names: str) -> None:
    for name in names:
        world.build(name, seed=world.image.descriptor.digest)


def test_a_promoted_name_is_the_path_that_the_quorum_stands_for(
    world: PromotingWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    build(world, "alice", "bob")
    code, printed = promote(world, capsys, "--outputs")
    assert code == 0, printed
    assert "  outputs  3, under the root sha256:" in printed
    code, printed = verify(world, capsys, "packages.tool")
    tree_hash, _ = nar_hash(world.trees["tool"])
    assert code == 0, printed
    assert f"packages.tool: {store_path('tool')} {tree_hash}" in printed
    code, printed = verify(world, capsys, "packages.tool", "--json")
    output = json.loads(printed)["output"]
    assert (output["path"], output["narHash"]) == (str(store_path("tool")), str(tree_hash))
    code, printed = verify(world, capsys, "packages.nothing")
    assert code == 1
    assert f"no output packages.nothing was promoted for {SYSTEM}" in printed
    # A second promoter finds the same, and signs the same record.
    code, printed = promote(world, capsys, "--outputs", who="sam")
    assert code == 0, printed


def test_what_has_no_quorum_is_not_promoted(
    world: PromotingWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    build(world, "alice", "bob")
    world.build("carol", POISON, seed=world.image.descriptor.digest)
    code, printed = promote(world, capsys, "--outputs")
    assert code == 0, printed
    assert f"not promoted: {store_path('tool')} for {SYSTEM}: builders disagree: carol" in printed
    assert "  outputs  2, under the root" in printed
    code, printed = verify(world, capsys, "packages.tool")
    assert code == 1
    assert "no output packages.tool was promoted" in printed
    code, printed = verify(world, capsys, "packages.library")
    assert code == 0


def test_outputs_of_another_seed_are_not_promoted(
    world: PromotingWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    world.build("alice")
    world.build("bob")
    code, printed = promote(world, capsys, "--outputs")
    assert code == 1
    assert f"no output of {COMMIT} has a quorum" in printed
    assert run(capsys, "inspect", f"{world.repository}:{COMMIT}")[0] == 2, "it was published"


def test_a_record_without_outputs_stays_as_it_was(
    world: PromotingWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    build(world, "alice", "bob")
    code, printed = promote(world, capsys)
    assert code == 0
    assert "  outputs  " not in printed
    code, printed = verify(world, capsys, "packages.tool")
    assert code == 1
    assert f"{COMMIT} was promoted without its outputs" in printed
    # One commit is promoted once: nobody adds outputs to it later.
    code, printed = promote(world, capsys, "--outputs")
    assert code == 1
    assert "has no outputs, and what builders say now comes to outputs with the root" in printed


def test_a_list_of_outputs_that_was_swapped_is_no_answer(
    world: PromotingWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    build(world, "alice", "bob")
    assert promote(world, capsys, "--outputs")[0] == 0
    blobs = world.directory / "blobs/sha256"
    (list_,) = [
        path for path in blobs.iterdir() if b'{"outputs":[{"commit"' in path.read_bytes()[:40]
    ]
    list_.unlink()
    code, printed = verify(world, capsys, "packages.tool")
    assert code == 3
    assert "outputs cannot be had" in printed


def taken(
    world: PromotingWorld, capsys: pytest.CaptureFixture[str], name: str
) -> tuple[int, str, Path]:
    """Install *name* with a real Nix, into a store of its own."""
    need("nix-store")
    store = world.root / f"store-{name}"
    where = ["--from", world.repository, "--policy", str(world.write_policy())]
    more = ["--store", str(store), "--link", str(world.root / name)]
    code, printed = run(capsys, "install", str(COMMIT), "--output", name, "--json", *where, *more)
    return code, printed, store / "nix/store"


def test_just_the_promoted_output_is_installed(
    world: PromotingWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    build(world, "alice", "bob")
    assert promote(world, capsys, "--outputs")[0] == 0
    code, printed, store = taken(world, capsys, "packages.tool")
    assert code == 0, printed
    check("install", printed)
    assert json.loads(printed)["output"]["path"] == str(store_path("tool"))
    tool = store / store_path("tool").base_name
    assert (tool / "program").read_text() == "calls the library"
    assert (store / store_path("library").base_name / "lib").exists(), "its closure is not there"
    assert not (store / store_path("site").base_name).exists()


def test_what_was_poisoned_after_the_promotion_is_not_installed(
    world: PromotingWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    build(world, "alice", "bob")
    assert promote(world, capsys, "--outputs")[0] == 0
    # Both keys are stolen, and say otherwise of the same path, at another commit.
    for who in ("alice", "bob"):
        world.build(who, POISON, commit=OTHER_COMMIT, seed=world.image.descriptor.digest)
    code, printed, store = taken(world, capsys, "packages.tool")
    assert code == 4, printed
    assert f"Nix cannot take {store_path('tool')}" in printed, printed
    assert f"nix-seed hydrate {world.repository}:{COMMIT}; " in printed
    assert not (store / store_path("tool").base_name).exists()


def test_another_build_in_the_store_is_not_taken_for_the_promoted_one(
    world: PromotingWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nix asks nobody for a path that it has: the machine may have built it badly before."""
    build(world, "alice", "bob")
    assert promote(world, capsys, "--outputs")[0] == 0
    store, path = world.root / "store-packages.tool", store_path("tool")
    (store / "nix/store").mkdir(parents=True)
    digest, size = nar_hash(POISON["tool"])
    known = f"{path}\n{digest.hex}\n{size}\n\n0\n".encode()
    for arguments, given in (
        (["--restore", str(store / "nix/store" / path.base_name)], b"".join(dump(POISON["tool"]))),
        (["--store", str(store), "--load-db"], known),
    ):
        subprocess.run(["nix-store", *arguments], input=given, env=nix_env(), check=True)
    code, printed, _ = taken(world, capsys, "packages.tool")
    assert code == 1, printed
    assert f"this store has {digest} at {path}, and promoted is " in printed
    assert f"nix-store --delete {path}" in printed
    assert not (world.root / "packages.tool").exists(), "it was linked all the same"


LEAVES = (
    OutputLeaf(SYSTEM, store_path("library"), COMMIT, NarHash("1" * 64)),
    OutputLeaf(SYSTEM, store_path("tool"), COMMIT, NarHash("2" * 64), ("packages.tool",)),
)


def test_golden_root() -> None:
    released = ReleasedOutputs(tuple(sorted(LEAVES)))
    assert released.root.hex == "4685ca73ad7e97ac11f886e7d74557b92a3db7a982139e32bd36aa3ddc66c9e2"
    text = released.dump()
    assert Digest.of(text).hex == "4398940d918ab6f7977f5c1b51887fc129250cd0e6be709bff0ac3ebdb5fe195"
    assert ReleasedOutputs.read(text, COMMIT, released.root, 2) == released


def test_a_list_is_just_what_its_record_signs() -> None:
    released = ReleasedOutputs(tuple(sorted(LEAVES)))
    other = ReleasedOutputs((replace(LEAVES[0], nar_hash=NarHash("3" * 64)),))
    for text, commit, size in (
        (other.dump(), COMMIT, 1),
        (released.dump(), COMMIT, 1),
        (released.dump(), OTHER_COMMIT, 2),
        (released.dump() + b" ", COMMIT, 2),
        (b"[]", COMMIT, 2),
    ):
        with pytest.raises(CheckedFalse):
            ReleasedOutputs.read(text, commit, released.root, size)


def test_golden_records() -> None:
    digest = Digest("4" * 64)
    plain = PromotionPredicate(
        repository="https://forge.example/owner/project",
        commit=COMMIT,
        root=digest,
        size=2,
        index=digest,
        policy=digest,
        epoch=1,
        evidence=digest,
        previous=(),
    )
    whole = replace(plain, outputs_root=digest, outputs_size=3)
    found = [promotion_statement(each).dump() for each in (plain, whole)]
    assert b"outputs" not in found[0]
    assert b'"outputs":{"root":"sha256:4444' in found[1]
    assert [Digest.of(each).hex for each in found] == [
        "82c13be18bae36f38a20ef8de9c9a6950a2b8c475b40d16314e3ffa1d5976ec0",
        "217b3dc6a0a2bfd59f360329dd6c5960f0eb92ce624c93931a83663f435ec4a4",
    ]
    for change in ({"outputs_root": digest}, {"outputs_size": 3}):
        with pytest.raises(InputError, match="a root and a size"):
            replace(plain, **change)
