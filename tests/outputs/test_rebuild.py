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
from support.json_page import check
from support.output_world import NUMBERS, Twenty, policy_text, twenty
from support.programs import need
from support.trust import pem

ALL = sorted(f"p{number}" for number in NUMBERS)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Twenty:
    """Two builders, whose seed is published and attested by both."""
    root = tmp_path_factory.mktemp("rebuild")
    made = twenty()
    log = EmbeddedLog.create(root / "log", "log.example")
    bob = KeySigner.generate()
    (root / "bob.key").write_bytes(bob.pem())
    rita = KeySigner.generate()
    (root / "rita.key").write_bytes(rita.pem())
    text = policy_text({"alice": made.signer, "bob": bob}, log, "quorum")
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


def rebuild(world: Twenty, key: Path) -> list[str]:
    """Rebuild with *key*; return the names of what was pushed."""
    how: list[str | Path] = ["--from", world.seed, "--to", world.seed, "--flake", world.project]
    how += ["--policy", world.policy, "--key", key]
    with watched_nix(world.policy.parent / "watched") as (path, asked):
        done = world.run("outputs", "rebuild", head(world), *how, "--json", env={"PATH": path})
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
