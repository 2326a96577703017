"""Attacks by logs that show one history now and another later, against what was seen before."""

from __future__ import annotations

import shutil
from pathlib import Path

from attacks.cases import case
from attacks.logs import known_witness, second_log, witnessed
from nix_seed.core import canonical_json
from nix_seed.formats.tlog.merkle import build_root
from nix_seed.logs.embedded import EmbeddedLog
from nix_seed.logs.log import CheckpointState
from support.trust import World

NOWHERE = '"http://127.0.0.1:9"'
LEAVES = [b"leaf %d" % number for number in range(5)]


def asked(world: World) -> None:
    """Have the policy say where the log is: it is asked."""
    world.logs[0]["url"] = '"log"'


def see(world: World, log: EmbeddedLog) -> Path:
    """Have this machine seen *log* as it is, earlier; return where that is kept."""
    state = world.root / "state"
    world.arguments += ["--state", str(state)]
    kept = CheckpointState(state / "checkpoints")
    kept.advance(log.trusted, log.checkpoint(), log.consistency)
    return state


def twin_of(world: World) -> EmbeddedLog:
    """A log with the same key, and nothing in it yet."""
    twin = EmbeddedLog(world.root / "twin", world.log.key)
    twin._publish(build_root(0, lambda _: []))
    return twin


def replaced_by(world: World, other: Path) -> None:
    """What is served as the log is now the one in *other*."""
    shutil.rmtree(world.root / "log/public")
    shutil.copytree(other / "public", world.root / "log/public")


@case(0, "quorum met: 2 builders agree (alice, bob)")
def log_that_grew(world: World) -> None:
    asked(world)
    world.publish("alice")
    see(world, world.log)
    world.publish("bob")
    world.log.append_bodies(LEAVES)


@case(
    1, "verdict: CHECKED AND FALSE: the log log rolled back: 7 leaves were seen before, and now 2"
)
def rollback(world: World) -> None:
    """Leaves are taken back after they were seen, and the evidence is older than they."""
    asked(world)
    world.publish("alice", "bob")
    shutil.copytree(world.log.directory, world.root / "old")
    world.log.append_bodies(LEAVES)
    see(world, world.log)
    replaced_by(world, world.root / "old")


@case(
    1, "verdict: CHECKED AND FALSE: the log log rolled back: 2 leaves were seen before, and now 0"
)
def rollback_behind_its_own_entries(world: World) -> None:
    """Nothing was seen before; the log does not know what it gave the builders."""
    asked(world)
    shutil.copytree(world.log.directory, world.root / "old")
    world.publish("alice", "bob")
    replaced_by(world, world.root / "old")
    world.arguments += ["--state", str(world.root / "state")]


@case(1, "verdict: CHECKED AND FALSE: the log log forked: 2 leaves were seen before, and now 5")
def fork(world: World) -> None:
    """The log goes on from another past than the one that was seen."""
    asked(world)
    world.publish("alice", "bob")
    see(world, world.log)
    twin = twin_of(world)
    twin.append_bodies(LEAVES)
    replaced_by(world, twin.directory)


@case(1, "verdict: CHECKED AND FALSE: the log log forked: 5 leaves were seen before, and now 1")
def entries_of_a_fork(world: World) -> None:
    """The log is as it was, and the entries are of a tree that it shows to this reader alone."""
    asked(world)
    world.log.append_bodies(LEAVES)
    see(world, world.log)
    twin = twin_of(world)
    for name in ("alice", "bob"):
        world.attach(world.bundle(world.sign(world.says(name)), twin))


@case(
    1, "verdict: CHECKED AND FALSE: the log log shows a split view: it signed two roots for size 2"
)
def split_view_against_what_was_seen(world: World) -> None:
    """No network is needed to tell: both roots are signed."""
    twin = twin_of(world)
    twin.append_bodies(LEAVES[:2])
    see(world, twin)
    world.publish("alice", "bob")


@case(1, "verdict: CHECKED AND FALSE: the log log rolled back")
def lying_log_where_another_would_do(world: World) -> None:
    """A log that lied is no matter of counting: somebody has to look."""
    second = second_log(world)
    asked(world)
    shutil.copytree(world.log.directory, world.root / "old")
    for name in ("alice", "bob"):
        world.attach(world.bundle(world.sign(world.says(name)), world.log, second))
    see(world, world.log)
    replaced_by(world, world.root / "old")


@case(3, "could not check  ")
def log_out_of_reach(world: World) -> None:
    world.logs[0]["url"] = NOWHERE
    world.publish("alice", "bob")
    world.arguments += ["--state", str(world.root / "state")]


@case(0, "quorum met: 2 builders agree (alice, bob)")
def log_out_of_reach_where_another_will_do(world: World) -> None:
    second = second_log(world)
    world.logs[0]["url"] = NOWHERE
    for name in ("alice", "bob"):
        world.attach(world.bundle(world.sign(world.says(name)), world.log, second))


@case(3, "not everything could be checked: whether the log second kept what it showed")
def log_out_of_reach_that_proves_a_dissent_older_than_a_revocation(world: World) -> None:
    """Without it the dissent would be of nobody's time, and count for nothing."""
    second = second_log(world)
    world.logs[-1]["url"] = NOWHERE
    world.arguments += ["--state", str(world.root / "state")]
    dissent_before_revocation(world, second)


@case(1, "verdict: CHECKED AND FALSE: carol built something else from this commit")
def dissent_older_than_a_revocation(world: World) -> None:
    dissent_before_revocation(world, second_log(world))


def dissent_before_revocation(world: World, log: EmbeddedLog) -> None:
    """Have carol dissent in *log*, before a witness and before the revocation."""
    witness = known_witness(world)
    witnessed(world, "alice bob", witness.cosign)
    world.builders["carol"]["revokedAt"] = "2024-01-01T00:00:00Z"
    value = world.bundle(world.sign(world.says("carol", world.other)), log).to_json()
    witness.cosign(value["verificationMaterial"]["tlogEntries"][0])
    world.attach(canonical_json.dumps(value), world.other)


@case(0, "quorum met: 2 builders agree (alice, bob)")
def log_out_of_reach_that_is_not_asked(world: World) -> None:
    world.logs[0]["url"] = NOWHERE
    world.publish("alice", "bob")
    world.arguments += ["--no-state"]


@case(3, "whether the log log kept what it showed: the checkpoint seen before is damaged")
def damaged_memory(world: World) -> None:
    """Who can change what this machine remembers must not thereby make a log honest."""
    world.publish("alice", "bob")
    for path in (see(world, world.log) / "checkpoints").glob("*.checkpoint"):
        path.write_text(path.read_text().replace("\n2\n", "\n1\n"))
