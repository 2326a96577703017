"""Whose word is taken, from the very bytes: by ``own`` and by ``quorum``."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from nix_seed.outputs.rules.agreed import NotServed, Served
from nix_seed.outputs.words import WordReader
from nix_seed.release.load import load_policy, verifiers_of
from support.outputs import OutputsWorld, bundles_of, file_tree, store_path
from support.trust import OTHER_COMMIT

POISON = {"tool": file_tree(program="calls home", about="version 1")}
TOOL = store_path("tool")


@pytest.fixture
def world(tmp_path: Path) -> OutputsWorld:
    return OutputsWorld(tmp_path)


def reader(world: OutputsWorld, rule: str) -> WordReader:
    world.head["outputs"] = f'"{rule}"'
    return WordReader(verifiers_of(load_policy(world.write_policy(), datetime.now(UTC))))


def test_ones_own_word_is_enough(world: OutputsWorld) -> None:
    found = reader(world, "own").decide(TOOL, bundles_of(world.build("alice")))
    assert isinstance(found, Served)
    assert [each.id for each in found.builders] == ["alice"]


def test_a_word_on_another_commit_is_one_on_the_path(world: OutputsWorld) -> None:
    # A package that a commit leaves as it was is not built again for it.
    signed = world.build("alice", commit=OTHER_COMMIT)
    assert isinstance(reader(world, "own").decide(TOOL, bundles_of(signed)), Served)


@pytest.mark.parametrize("rule", ["own", "quorum"])
def test_a_strangers_word_is_none(world: OutputsWorld, rule: str) -> None:
    signed = world.build("alice", POISON, key="mallory")
    found = reader(world, rule).decide(TOOL, bundles_of(signed))
    assert isinstance(found, NotServed)
    assert "is signed by none of the trusted keys" in found.reason


@pytest.mark.parametrize("rule", ["own", "quorum"])
def test_a_forks_word_is_none(world: OutputsWorld, rule: str) -> None:
    signed = [world.build(who, source="https://forge.example/fork") for who in ("alice", "bob")]
    found = reader(world, rule).decide(TOOL, bundles_of(*signed))
    assert isinstance(found, NotServed)
    assert "it is about https://forge.example/fork" in found.reason


def test_a_quorum_takes_what_two_say_and_nothing_where_one_says_otherwise(
    world: OutputsWorld,
) -> None:
    quorum = reader(world, "quorum")
    one, two = world.build("alice"), world.build("bob")
    alone = quorum.decide(TOOL, bundles_of(one))
    assert isinstance(alone, NotServed)
    assert alone.reason == "1 of the 2 builders wanted agree"
    assert isinstance(quorum.decide(TOOL, bundles_of(one, two)), Served)
    poisoned = world.build("carol", POISON)
    found = quorum.decide(TOOL, bundles_of(one, two, poisoned))
    assert isinstance(found, NotServed)
    assert found.reason == "builders disagree: carol built something else"
    assert [word.builder.id for word in found.against] == ["carol"]
    # What the poisoned tool is built from is as it was.
    library = quorum.decide(store_path("library"), bundles_of(one, two, poisoned))
    assert isinstance(library, Served)


def test_what_cannot_be_read_may_be_a_dissent(world: OutputsWorld) -> None:
    quorum = reader(world, "quorum")
    both = bundles_of(world.build("alice"), world.build("bob"))
    assert isinstance(quorum.decide(TOOL, both, ["it is gone"]), NotServed)


def test_a_revoked_builders_word_is_none(world: OutputsWorld) -> None:
    world.builders["alice"]["revokedAt"] = "2026-01-01T00:00:00Z"
    found = reader(world, "own").decide(TOOL, bundles_of(world.build("alice")))
    assert isinstance(found, NotServed)
    assert "alice was revoked" in found.reason
