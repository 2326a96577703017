"""Attacks by what is said of outputs: by whom, of which commit, and of what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from attacks.cases import enter
from nix_seed.core.digests import Digest
from nix_seed.formats.intoto.statement import PAYLOAD_TYPE
from nix_seed.outputs.rules.statement import make_statement, outputs_subject
from nix_seed.outputs.sign import SignedOutputs, list_statement
from nix_seed.trust.attestations import list_bundle
from support.outputs import OutputsWorld, file_tree, store_path
from support.trust import COMMIT, OTHER_COMMIT, SOURCE

Prepare = Callable[[OutputsWorld], None]
ALONE = "verdict: VERIFIED: 0 of 3 outputs reproducible, 3 built once"
POISON = {"tool": file_tree(program="calls home", about="version 1")}


def _check(world: OutputsWorld) -> list[str]:
    where = ["--from", f"oci:{world.directory}", "--policy", str(world.write_policy())]
    return ["outputs", "check", str(COMMIT), *where, "--state", str(world.root / "state")]


def outputs(code: int, reason: str) -> Callable[[Prepare], Prepare]:
    """Put a function of a world, whose outputs are then checked, into the table."""

    def put(prepare: Prepare) -> Prepare:
        enter(code, reason, prepare, OutputsWorld, _check)
        return prepare

    return put


def _under_this_commit(world: OutputsWorld, signed: SignedOutputs) -> None:
    for each in signed.bundles:
        list_bundle(world.store, outputs_subject(COMMIT), each, "")


@outputs(0, "verdict: VERIFIED: 3 of 3 outputs reproducible")
def honest_outputs(world: OutputsWorld) -> None:
    world.build("alice")
    world.build("bob")


@outputs(0, "is signed by none of the trusted keys")
def outputs_signed_by_a_stranger(world: OutputsWorld) -> None:
    world.build("alice")
    world.build("bob")
    world.build("carol", POISON, key="mallory")


@outputs(1, "it names the builder 'alice', but bob signed it")
def outputs_in_another_builders_name(world: OutputsWorld) -> None:
    world.build("alice", key="bob")


@outputs(0, f"it is about the commit {OTHER_COMMIT}")
def outputs_of_another_commit(world: OutputsWorld) -> None:
    world.build("alice")
    _under_this_commit(world, world.build("bob", commit=OTHER_COMMIT))


@outputs(0, f"it is about https://forge.example/fork/project, not {SOURCE}")
def outputs_replayed_from_a_fork(world: OutputsWorld) -> None:
    world.build("alice")
    world.build("bob", source="https://forge.example/fork/project")


@outputs(0, "alice does not build for riscv64-linux")
def outputs_for_a_system_not_granted(world: OutputsWorld) -> None:
    world.build("alice", system="riscv64-linux")
    world.build("alice")
    world.build("bob")


@outputs(0, ALONE)
def one_builder_twice_reproduces_nothing(world: OutputsWorld) -> None:
    world.build("alice")
    world.build("alice", finished_on="2026-02-01T00:00:00Z")


@outputs(0, ALONE)
def builders_of_one_operator_reproduce_nothing(world: OutputsWorld) -> None:
    for name in ("alice", "bob"):
        world.builders[name]["operator"] = '"one ltd"'
    world.quorum["threshold"] = "1"
    world.build("alice")
    world.build("bob")


@outputs(0, ALONE)
def outputs_in_no_log(world: OutputsWorld) -> None:
    world.build("alice")
    said = world.states("bob")
    signed = world.keys["bob"].sign(PAYLOAD_TYPE, make_statement(said).dump())
    list_statement(world.store, SignedOutputs(said, (signed.bundle.dump(),)))


@outputs(1, "1 output differs; it begins with packages.tool")
def a_poisoned_output(world: OutputsWorld) -> None:
    world.build("alice")
    world.build("bob")
    world.build("carol", POISON)


@outputs(1, "1 output differs; it begins with packages.tool")
def a_poisoned_output_in_no_log(world: OutputsWorld) -> None:
    world.build("alice")
    said = world.states("bob", *world.facts(POISON))
    signed = world.keys["bob"].sign(PAYLOAD_TYPE, make_statement(said).dump())
    list_statement(world.store, SignedOutputs(said, (signed.bundle.dump(),)))


@outputs(1, "it begins with packages.library")
def the_nar_hash_of_another_output(world: OutputsWorld) -> None:
    world.build("alice")
    library, *others = sorted(world.facts(), key=lambda fact: fact.path.name)
    wrong = replace(library, nar_hash=others[0].nar_hash)
    facts = sorted((wrong, *others), key=lambda fact: fact.path)
    world.push(world.states("bob", *facts), world.keys["bob"], world.trees)


@outputs(1, "the NARs are equal: builders state other references of it")
def references_that_are_not_there(world: OutputsWorld) -> None:
    world.build("alice")
    gone = store_path("gone")
    facts = [
        replace(fact, references=(gone,)) if fact.path.name == "site" else fact
        for fact in world.facts()
    ]
    world.push(world.states("bob", *facts), world.keys["bob"], world.trees)


@outputs(1, "2 outputs differ; it begins with packages.library, packages.tool")
def inputs_that_run_in_a_circle(world: OutputsWorld) -> None:
    world.build("alice")
    tool = store_path("tool")
    facts = [
        replace(fact, built_from=(tool,)) if fact.path.name == "library" else fact
        for fact in world.facts(POISON | {"library": file_tree(lib="another", about="version 1")})
    ]
    made = POISON | {"library": file_tree(lib="another", about="version 1")}
    world.push(world.states("bob", *facts), world.keys["bob"], world.trees | made)


@outputs(0, "its subjects or members are not those of its predicate")
def outputs_whose_subjects_are_others(world: OutputsWorld) -> None:
    world.build("alice")
    world.build("bob")
    said = world.states("carol")
    statement = make_statement(said)
    other = replace(statement, subjects=statement.subjects[1:])
    signed = world.keys["carol"].sign(PAYLOAD_TYPE, other.dump())
    list_statement(world.store, SignedOutputs(said, (signed.bundle.dump(),)))


@outputs(3, "could not check")
def outputs_that_cannot_be_read(world: OutputsWorld) -> None:
    world.build("alice")
    signed = world.build("bob")
    blobs = world.directory / "blobs/sha256"
    (blobs / Digest.of(signed.bundles[0]).hex).unlink()
