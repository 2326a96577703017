"""Attacks by the transparency log's evidence: entries, proofs, checkpoints, witnesses."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attacks.cases import case
from nix_seed.core import canonical_json
from nix_seed.formats.tlog.merkle import TreeHead
from nix_seed.formats.tlog.note import Checkpoint, NoteKey, SignedCheckpoint, sign_note
from nix_seed.logs.embedded import EmbeddedLog
from support.cosigned import cosign_note
from support.trust import World

Edit = Callable[[dict[str, Any]], None]
SHORT = "1 of the 2 builders wanted agree"


def entry_edited(world: World, edit: Edit) -> None:
    """Publish alice's bundle, and bob's with its log entry changed."""
    world.publish("alice")
    # A few more leaves, so that there is a proof to tamper with.
    world.log.append_bodies([b"leaf %d" % number for number in range(5)])
    value = world.bundle(world.sign(world.says("bob"))).to_json()
    edit(value["verificationMaterial"]["tlogEntries"][0])
    world.attach(canonical_json.dumps(value))


def proof(entry: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = entry["inclusionProof"]
    return found


def flipped(text: str) -> str:
    """Base64 with the first bit of its bytes turned."""
    raw = bytearray(base64.b64decode(text))
    raw[0] ^= 0x80
    return base64.b64encode(raw).decode()


@case(1, "it is proved to be in 0 logs of the policy, which demands 1")
def in_no_log(world: World) -> None:
    world.publish("alice")
    world.attach(world.sign(world.says("bob")).bundle)


@case(0, "quorum met: 2 builders agree (alice, bob)")
def in_no_log_where_none_is_demanded(world: World) -> None:
    world.quorum["logs"] = "0"
    for name in ("alice", "bob"):
        world.attach(world.sign(world.says(name)).bundle)


@case(1, "log entry of another signature")
def entry_of_another_envelope(world: World) -> None:
    other = world.bundle(world.sign(world.says("bob", system="aarch64-linux"))).to_json()
    stolen = other["verificationMaterial"]["tlogEntries"][0]

    def edit(entry: dict[str, Any]) -> None:
        entry.clear()
        entry.update(stolen)

    entry_edited(world, edit)


@case(1, "log entry not in the tree")
def tampered_proof(world: World) -> None:
    def edit(entry: dict[str, Any]) -> None:
        proof(entry)["hashes"][0] = flipped(proof(entry)["hashes"][0])

    entry_edited(world, edit)


@case(1, "log entry not in the tree")
def truncated_proof(world: World) -> None:
    entry_edited(world, lambda entry: proof(entry)["hashes"].pop())


@case(1, "log entry not in the tree")
def overlong_proof(world: World) -> None:
    entry_edited(world, lambda entry: proof(entry)["hashes"].append(proof(entry)["hashes"][0]))


@case(1, "log entry not in the tree")
def proof_of_another_leaf(world: World) -> None:
    def edit(entry: dict[str, Any]) -> None:
        entry["logIndex"] = proof(entry)["logIndex"] = "2"

    entry_edited(world, edit)


@case(1, "log entry not in the tree")
def root_that_no_checkpoint_has(world: World) -> None:
    def edit(entry: dict[str, Any]) -> None:
        proof(entry)["rootHash"] = flipped(proof(entry)["rootHash"])

    entry_edited(world, edit)


@case(1, "log entry without a proof")
def promise_without_a_proof(world: World) -> None:
    def edit(entry: dict[str, Any]) -> None:
        del entry["inclusionProof"]
        entry["integratedTime"] = "1700000000"
        entry["inclusionPromise"] = {"signedEntryTimestamp": base64.b64encode(b"x" * 70).decode()}

    entry_edited(world, edit)


@case(1, "log entry with a forged timestamp")
def timestamp_by_a_log_that_signs_none(world: World) -> None:
    entry_edited(world, lambda entry: entry.update(integratedTime="1500000000"))


@case(1, "log entry not signed by the log")
def checkpoint_by_another_key(world: World) -> None:
    """A log of the same name, with a key of its own."""
    fake = EmbeddedLog.create(world.root / "fake", "log.example")
    world.publish("alice")
    world.attach(world.bundle(world.sign(world.says("bob")), fake))


@case(1, "log entry of no trusted log")
def log_of_no_policy(world: World) -> None:
    stranger = EmbeddedLog.create(world.root / "stranger", "stranger.example")
    world.publish("alice")
    world.attach(world.bundle(world.sign(world.says("bob")), stranger))


@case(1, "log entry not signed by the log")
def log_id_of_another_log(world: World) -> None:
    def edit(entry: dict[str, Any]) -> None:
        entry["logId"]["keyId"] = flipped(entry["logId"]["keyId"])

    entry_edited(world, edit)


@case(1, "the log log shows a split view: it signed two roots for size 1")
def split_view(world: World) -> None:
    """The log's own key signs two trees of one size, one for each of two victims."""
    twin = EmbeddedLog(world.root / "twin", world.log.key)
    twin._publish(TreeHead(0, world.log.checkpoint().head.root))
    world.attach(world.bundle(world.sign(world.says("alice"))))
    world.attach(world.bundle(world.sign(world.says("bob")), twin))


@case(1, SHORT)
def same_log_twice_for_two(world: World) -> None:
    """Two entries in one log are one log."""
    world.quorum["logs"] = "2"
    second = second_log(world)
    world.attach(world.bundle(world.sign(world.says("alice")), world.log, second))
    world.attach(world.bundle(world.sign(world.says("bob")), world.log, world.log))


@case(0, "quorum met: 2 builders agree (alice, bob)")
def two_logs_in_two_bundles(world: World) -> None:
    """One entry a bundle, as other verifiers want it; together they are two."""
    world.quorum["logs"] = "2"
    second = second_log(world)
    for name in ("alice", "bob"):
        signed = world.sign(world.says(name))
        world.attach(world.bundle(signed, world.log))
        world.attach(world.bundle(signed, second))


def second_log(world: World) -> EmbeddedLog:
    log = EmbeddedLog.create(world.root / "second", "second.example")
    key = f'"{log.trusted.key}"'
    world.logs.append(
        {"id": '"second"', "kind": '"tiles"', "origin": '"second.example"', "key": key}
    )
    return log


class Witness:
    """A witness that cosigns whatever it is shown."""

    def __init__(self, name: str) -> None:
        self._private = Ed25519PrivateKey.generate()
        self.key = NoteKey(name, "cosignature", self._private.public_key().public_bytes_raw())

    def cosign(self, entry: dict[str, Any], time: int = 1_700_000_000) -> None:
        text = proof(entry)["checkpoint"]["envelope"].encode()
        note = SignedCheckpoint.parse(text, "x").note
        done = cosign_note(note, self.key, time, self._private.sign)
        proof(entry)["checkpoint"]["envelope"] = done.dump().decode()


def witnessed(world: World, names: str, edit: Edit) -> None:
    """Demand one witness, and publish for each of *names* with the entry edited."""
    world.quorum["witnesses"] = "1"
    for name in names.split():
        value = world.bundle(world.sign(world.says(name))).to_json()
        edit(value["verificationMaterial"]["tlogEntries"][0])
        world.attach(canonical_json.dumps(value))


def known_witness(world: World) -> Witness:
    witness = Witness("witness.example")
    world.witnesses.append({"id": '"w"', "key": f'"{witness.key}"'})
    return witness


@case(0, "quorum met")
def witnessed_checkpoint(world: World) -> None:
    witnessed(world, "alice bob", known_witness(world).cosign)


@case(1, "log entry under too few witnesses")
def missing_witness(world: World) -> None:
    known_witness(world)
    witnessed(world, "alice bob", lambda entry: None)


@case(1, "log entry under too few witnesses")
def witness_of_no_policy(world: World) -> None:
    known_witness(world)
    witnessed(world, "alice bob", Witness("stranger.example").cosign)


@case(1, "log entry under a forged cosignature")
def forged_witness(world: World) -> None:
    """Name and key id of the true witness over a signature that is not its own."""
    true = known_witness(world)

    def edit(entry: dict[str, Any]) -> None:
        text = proof(entry)["checkpoint"]["envelope"].encode()
        note = SignedCheckpoint.parse(text, "x").note
        done = cosign_note(note, true.key, 1_700_000_000, lambda _: b"\x01" * 64)
        proof(entry)["checkpoint"]["envelope"] = done.dump().decode()

    witnessed(world, "alice bob", edit)


@case(1, "log entry under a forged cosignature")
def cosignature_of_another_time(world: World) -> None:
    """The time in a cosignature is signed: it cannot be moved to before a revocation."""
    witness = known_witness(world)

    def edit(entry: dict[str, Any]) -> None:
        witness.cosign(entry)
        text = proof(entry)["checkpoint"]["envelope"]
        line = text.splitlines()[-1]
        head, _, body = line.rpartition(" ")
        raw = bytearray(base64.b64decode(body))
        raw[4:12] = (1_500_000_000).to_bytes(8, "big")
        moved = f"{head} {base64.b64encode(raw).decode()}"
        proof(entry)["checkpoint"]["envelope"] = text.replace(line, moved)

    witnessed(world, "alice bob", edit)


@case(2, "a log cannot witness itself")
def log_as_its_own_witness(world: World) -> None:
    own = NoteKey("log.example", "cosignature", world.log.trusted.key.public)
    world.witnesses.append({"id": '"w"', "key": f'"{own}"'})
    world.quorum["witnesses"] = "1"


@case(2, "two witnesses have the key")
def one_witness_under_two_names(world: World) -> None:
    witness = known_witness(world)
    again = NoteKey("again.example", "cosignature", witness.key.public)
    world.witnesses.append({"id": '"again"', "key": f'"{again}"'})
    world.quorum["witnesses"] = "2"


@case(0, "quorum met: 2 builders agree (alice, bob)")
def revoked_after_a_witnessed_entry(world: World) -> None:
    """What a witness had seen before the revocation still counts."""
    world.builders["alice"]["revokedAt"] = "2024-01-01T00:00:00Z"
    witnessed(world, "alice bob", known_witness(world).cosign)


@case(1, "alice was revoked at 2023-01-01 00:00 UTC, and this is of 2023-11-14 22:13 UTC")
def revoked_before_a_witnessed_entry(world: World) -> None:
    world.builders["alice"]["revokedAt"] = "2023-01-01T00:00:00Z"
    witnessed(world, "alice bob", known_witness(world).cosign)


@case(1, "log entry malformed")
def entry_of_an_unknown_kind(world: World) -> None:
    entry_edited(world, lambda entry: entry["kindVersion"].update(version="9.9.9"))


@case(1, "log entry malformed")
def checkpoint_that_is_none(world: World) -> None:
    entry_edited(world, lambda entry: proof(entry)["checkpoint"].update(envelope="nothing"))


@case(1, "log entry not in the tree")
def checkpoint_of_an_older_tree(world: World) -> None:
    """A true checkpoint of the log, from before the entry was there."""
    old = world.log.checkpoint().note.dump().decode()
    entry_edited(world, lambda entry: proof(entry)["checkpoint"].update(envelope=old))


@case(1, "log entry not in the tree")
def checkpoint_made_up_and_signed(world: World) -> None:
    """Even the log's own signature does not help a root that the leaf does not lead to."""

    def edit(entry: dict[str, Any]) -> None:
        head = TreeHead(int(proof(entry)["treeSize"]), b"\x07" * 32)
        text = str(Checkpoint("log.example", head))
        note = sign_note(text, world.log.trusted.key, world.log.key.sign)
        proof(entry)["checkpoint"]["envelope"] = note.dump().decode()
        proof(entry)["rootHash"] = base64.b64encode(head.root).decode()

    entry_edited(world, edit)
