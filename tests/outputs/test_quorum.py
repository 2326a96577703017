"""By ``quorum``, with a real Nix: a poisoned output is refused, named, and built instead."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from nix_seed.core.digests import Digest
from nix_seed.formats.intoto.bundle import BUNDLE_V03
from nix_seed.formats.intoto.statement import Commit
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.logs.embedded import EmbeddedLog
from nix_seed.outputs.kept import find_kept, keep
from nix_seed.outputs.rules.kept import NAR_TYPE, Stored
from nix_seed.outputs.rules.statement import OutputFact, OutputsStatement
from nix_seed.outputs.sign import list_statement, sign_outputs
from nix_seed.registry.layout import Layout
from nix_seed.registry.layout_store import LayoutStore
from nix_seed.trust.sign import KeySigner
from support.attestations import put
from support.engines import debian_nix
from support.nars import dump, nar_hash
from support.output_world import SOURCE, Twenty, built_names, policy_text, taken_names, twenty
from support.outputs import file_tree
from support.seeds import remove_tree

KEPT = "kept"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Twenty:
    """Three builders, of whom two must agree; alice and bob have pushed all packages."""
    root = tmp_path_factory.mktemp("quorum")
    made = twenty()
    log = EmbeddedLog.create(root / "log", "log.example")
    keys = {"alice": made.signer, "bob": KeySigner.generate(), "carol": KeySigner.generate()}
    for name, key in keys.items():
        (root / f"{name}.key").write_bytes(key.pem())
        (root / f"{name}.key").chmod(0o600)
    (root / "trust.toml").write_text(policy_text(keys, log, "quorum"))
    world = replace(made, policy=root / "trust.toml")
    for name in ("alice", "bob"):
        done = replace(world, key=root / f"{name}.key").push(f"oci:{root / KEPT}")
        assert done.code == 0, done.err
    return world


@pytest.fixture
def store(world: Twenty, tmp_path: Path) -> Iterator[Path]:
    where = tmp_path / "fresh"
    yield world.fresh_store(where)
    remove_tree(where)


def poison(world: Twenty, path: StorePath, directory: Path) -> None:
    """Have carol's key state a backdoor for *path*, and keep it as the newest in *directory*."""
    root = world.policy.parent
    kept = LayoutStore(Layout.open(directory))
    (honest, *_) = find_kept(kept, path.hash_part).kept
    tree = file_tree(text="a backdoor\n")
    digest, size = nar_hash(tree)
    said = OutputsStatement(
        source=SOURCE,
        commit=Commit(honest.commit),
        system="x86_64-linux",
        seed=Digest.of(b"any"),
        builder="carol",
        finished_on="2030-01-01T00:00:00Z",
        outputs=(OutputFact(path, digest, size, ()),),
    )
    key = KeySigner.open(root / "carol.key")
    (signed,) = sign_outputs(said, key, [EmbeddedLog.open(root / "log")])
    stored = []
    for kind, text in (
        (NAR_TYPE, zstandard.compress(b"".join(dump(tree)))),
        (BUNDLE_V03, signed.bundles[0]),
    ):
        put(kept, text, kind)
        stored.append(Stored(Digest.of(text), len(text)))
    nar, bundle = stored
    bad = replace(honest, nar_hash=digest, nar_size=size, nar=nar, bundles=(bundle,))
    keep(kept, replace(bad, pushed=said.finished_on, references=(), signer=key.identity))
    list_statement(kept, signed)


@pytest.mark.parametrize("suite", ["the system's", "sid"])
def test_a_poisoned_output_is_refused_named_and_built(
    suite: str, world: Twenty, store: Path, tmp_path: Path
) -> None:
    """By Nix 2.8 and the newest."""
    programs = None if suite == "the system's" else debian_nix(suite)
    shutil.copytree(world.policy.parent / KEPT, tmp_path / KEPT)
    kept = f"oci:{tmp_path / KEPT}"
    with world.serving(kept, tmp_path / "before") as served:
        done = served.build(f"{world.project}#p2", store, programs)
    assert done.returncode == 0, done.stderr
    assert taken_names(done.stderr) == ["p2"]
    assert "on the word of alice, bob" in (tmp_path / "before").read_text()
    said = world.run("outputs", "check", head(world), "--from", kept, "--policy", world.policy)
    assert "20 of 20 outputs reproducible" in said.out
    path = next(line for line in paths(world) if line.endswith("-p3"))
    poison(world, StorePath.parse(path), tmp_path / KEPT)
    with world.serving(kept, tmp_path / "served") as served:
        done = served.build(f"{world.project}#p3", store, programs)
    assert done.returncode == 0, done.stderr
    assert built_names(done.stderr) == ["p3"]
    assert (store / path[1:] / "text").read_text().startswith("3\n")
    told = (tmp_path / "served").read_text()
    assert f"not taken: {path}: builders disagree: carol built something else" in told
    said = world.run("outputs", "check", head(world), "--from", kept, "--policy", world.policy)
    assert said.code == 1
    assert "1 output differs; it begins with packages.p3" in said.out
    assert "a backdoor" in said.out


def head(world: Twenty) -> str:
    """The project's commit."""
    command = ["git", "-C", str(world.project), "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def paths(world: Twenty) -> list[str]:
    """The store paths that are kept."""
    root = world.policy.parent
    kept = f"oci:{root / KEPT}"
    done = replace(world, key=root / "alice.key").push(kept)
    assert done.code == 0, done.err
    said = json.loads(done.out)
    return [*said["known"], *said["pushed"]]
