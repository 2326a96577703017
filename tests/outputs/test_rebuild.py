"""``nix-seed outputs rebuild``: another builder, from nothing but the verified seed."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from nix_seed.logs.embedded import EmbeddedLog
from nix_seed.trust.sign import KeySigner
from support.distribution import commit, nix_env
from support.json_page import check
from support.output_world import NUMBERS, Twenty, changed, policy_text, twenty
from support.programs import need
from support.trust import pem

ALL = sorted(f"p{number}" for number in NUMBERS)


def published(root: Path, made: Twenty, *others: str) -> Twenty:
    """Alice and *others*; alice and bob have published and attested the project's seed."""
    log = EmbeddedLog.create(root / "log", "log.example")
    signers = {name: KeySigner.generate() for name in (*others, "rita")}
    for name, signer in signers.items():
        (root / f"{name}.key").write_bytes(signer.pem())
    rita = signers.pop("rita")
    text = policy_text({"alice": made.signer} | signers, log, "quorum")
    text = text.replace("logs = 1", "logs = 1\npromoters = 1", 1)
    promoter = f'[[promoters]]\nid = "rita"\nkey = {pem(rita)}\n'
    (root / "trust.toml").write_text(text + promoter)
    world = replace(made, policy=root / "trust.toml")
    for key in (made.key, root / "bob.key"):
        image = f"oci:{root / 'published'}:{head(world)}-x86_64-linux"
        how: list[str | Path] = ["--flake", world.project, "--key", key, "--policy", world.policy]
        done = world.run("publish", image, *how)
        assert done.code == 0, done.err
    return replace(world, seed=f"oci:{root / 'published'}")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Twenty:
    """Two builders."""
    return published(tmp_path_factory.mktemp("rebuild"), twenty(), "bob")


def head(world: Twenty) -> str:
    """The project's commit."""
    command = ["git", "-C", str(world.project), "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@contextmanager
def watched_nix(where: Path) -> Iterator[tuple[str, Callable[[], list[str]]]]:
    """A PATH whose ``nix`` writes down what it is asked; and what that was."""
    where.mkdir(exist_ok=True)
    real, log = need("nix"), where / "log"
    log.write_text("")
    program = where / "nix"
    program.write_text(f'#!/bin/sh\necho "$*" | tr "\\n" " " >> "{log}"\necho >> "{log}"\n')
    with program.open("a") as file:
        file.write(f'exec "{real}" "$@"\n')
    program.chmod(0o755)
    yield f"{where}:{os.environ['PATH']}", lambda: log.read_text().splitlines()


def rebuild(world: Twenty, key: Path, **settings: str) -> list[str]:
    """Rebuild with *key*, by a Nix with *settings*; return the names of what was pushed."""
    how: list[str | Path] = ["--from", world.seed, "--to", world.seed, "--flake", world.project]
    how += ["--policy", world.policy, "--key", key]
    with watched_nix(world.policy.parent / "watched") as (path, asked):
        env = {"PATH": path, "NIX_CONFIG": nix_env(**settings)["NIX_CONFIG"]}
        done = world.run("outputs", "rebuild", head(world), *how, "--json", env=env)
    assert done.code == 0, done.err
    evaluated = [line for line in asked() if " eval " in line or line.startswith("eval ")]
    assert len(evaluated) == 1, evaluated
    check("outputs push", done.out)  # the page says that it prints the same
    return sorted(path[44:] for path in json.loads(done.out)["pushed"])


def test_two_builders_reproduce_all_of_it(world: Twenty) -> None:
    root = world.policy.parent
    assert rebuild(world, world.key) == ALL
    assert rebuild(world, root / "bob.key") == ALL
    done = world.run(
        "outputs", "check", head(world), "--from", world.seed, "--policy", world.policy
    )
    assert done.code == 0, done.out + done.err
    assert "verdict: VERIFIED: 20 of 20 outputs reproducible" in done.out
    assert "packages.default" in done.out
    # Nobody had promoted the commit before: now its outputs go along.
    where: list[str | Path] = ["--policy", world.policy]
    how = [head(world), "--to", world.seed, "--key", root / "rita.key", "--outputs", *where]
    done = world.run("promote", *how)
    assert done.code == 0, done.err
    asked = [head(world), "--from", world.seed, "--output", "packages.default", *where]
    done = world.run("verify", *asked)
    assert done.code == 0, done.out + done.err
    assert "-p20" in done.out
    # Who rebuilds after that does so in what was promoted.
    assert rebuild(world, world.key) == []


def test_where_one_of_three_builders_differs_the_derivation_and_the_file_are_named(
    tmp_path: Path,
) -> None:
    """Carol's machine has more cores, and one package notes how many. Others are built from it."""
    project = changed(twenty().project, tmp_path / "project")
    flake = project / "flake.nix"
    text = flake.read_text()
    for old, new in (
        (
            "cat $src > $out/text",
            '(cat $src; [ "$name" != p9 ] || echo $NIX_BUILD_CORES) > $out/text',
        ),
        ('echo "$each" >> $out/text', 'cat "$each/text" >> $out/text'),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    flake.write_text(text)
    commit(project, "Note the cores")
    world = published(tmp_path, replace(twenty(), project=project), "bob", "carol")
    for name, cores in (("alice", "1"), ("bob", "1"), ("carol", "2")):
        key = world.key if name == "alice" else tmp_path / f"{name}.key"
        assert rebuild(world, key, cores=cores) == ALL
    how = ["outputs", "check", head(world), "--from", world.seed, "--policy", str(world.policy)]
    done = world.run(*how)
    assert done.code == 1, done.out + done.err
    assert "3 outputs differ; it begins with packages.p9" in done.out
    assert "-p9.drv" in done.out
    assert r"text: from byte 2000 on: '9\n9\n9\n9\n1\n' and '9\n9\n9\n9\n2\n'" in done.out
    assert "follows from that: packages.p10, packages.default" in done.out
    found = dict(line.split(None, 1) for line in done.out.splitlines() if "alice, bob" in line)
    assert found["packages.p9"].split(None, 1)[1] == "alice, bob | carol"
    assert found["packages.p5"].split(None, 1)[1] == "alice, bob, carol"


def test_a_commit_without_a_verified_seed_is_not_rebuilt(world: Twenty) -> None:
    how: list[str | Path] = ["--from", world.seed, "--to", world.seed, "--flake", world.project]
    other = world.policy.parent / "other.toml"
    strangers = {"carol": KeySigner.generate(), "dave": KeySigner.generate()}
    log = EmbeddedLog.create(other.parent / "log2", "log.example")
    other.write_text(policy_text(strangers, log))
    (other.parent / "carol.key").write_bytes(strangers["carol"].pem())
    how += ["--policy", other, "--key", other.parent / "carol.key"]
    done = world.run("outputs", "rebuild", head(world), *how)
    assert done.code == 1
    assert "has no seed to rebuild in" in done.err


def test_a_commit_that_nobody_attested_is_told_as_that(tmp_path: Path) -> None:
    """Not by a list of what else the registry has: outputs' own tags."""
    world = twenty()
    where = f"oci:{tmp_path / 'kept'}"
    assert world.push(where).code == 0
    how: list[str | Path] = ["--from", where, "--to", where, "--flake", world.project]
    how += ["--policy", world.policy, "--key", world.key]
    done = world.run("outputs", "rebuild", head(world), *how)
    assert done.code == 2
    assert f"{head(world)} is not promoted, and its seed" in done.err
    assert "out-" not in done.err
