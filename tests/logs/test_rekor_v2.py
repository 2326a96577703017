"""The embedded log against a real Rekor v2: equal requests, equal trees, either verifier."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from nix_seed.core.errors import InputError
from nix_seed.formats.intoto.statement import Envelope
from nix_seed.formats.tlog.entry import Verifier
from nix_seed.formats.tlog.merkle import Tile, TreeHead, tiles_of
from nix_seed.logs.embedded import EmbeddedLog
from nix_seed.logs.log import CheckpointState, DirectorySource, Entry, check_log
from nix_seed.logs.rekor import RekorV2
from nix_seed.logs.rules.entry import History, logged_signature
from support.logs import Signing, served_client
from support.rekor import RealLog, ask_their_verifier, rekor_v2

pytestmark = [pytest.mark.interop, pytest.mark.timeout(900)]


@pytest.fixture(scope="module", params=["ed25519", "ecdsa-p256"])
def real(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RealLog]:
    with rekor_v2(tmp_path_factory.mktemp("rekor"), request.param) as log:
        yield log


def pem_of(log: EmbeddedLog) -> str:
    key = load_der_public_key(log.trusted.key.der)
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def envelopes(number: int, seed: int) -> list[tuple[Envelope, Verifier]]:
    rng = random.Random(seed)
    keys = [Signing() for _ in range(3)]
    return [rng.choice(keys).sign(rng.randbytes(rng.randrange(1, 4000))) for _ in range(number)]


def append_both(
    mine: RekorV2, theirs: RekorV2, items: list[tuple[Envelope, Verifier]]
) -> list[tuple[Entry, Entry]]:
    return [(mine.append(*item), theirs.append(*item)) for item in items]


def shape(value: Any) -> Any:
    """The members and types of a value, without what they hold; lists by their length."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    return len(value) if isinstance(value, list) else type(value).__name__


def test_random_entries_into_both(real: RealLog, tmp_path: Path) -> None:
    theirs = real.client
    start = 0
    with served_client(tmp_path / "mine") as (mine, log):
        items = envelopes(25, seed=4)
        state = CheckpointState(tmp_path / "state")
        pairs, heads = [], list[TreeHead]()
        for item in items:
            pairs += append_both(mine, theirs, [item])
            heads.append(theirs.checkpoint().head)
            history = state.advance(real.trusted, theirs.checkpoint(), theirs.consistency)
            assert history is None or history.history is History.GREW
        for number, (mine_entry, their_entry) in enumerate(pairs):
            # The same members in the same spelling, the same leaf at the same place.
            assert shape(mine_entry) == shape(their_entry)
            for name in ("canonicalizedBody", "kindVersion", "integratedTime", "logIndex"):
                assert mine_entry[name] == their_entry[name], name
            proofs = mine_entry["inclusionProof"], their_entry["inclusionProof"]
            for name in ("hashes", "rootHash", "treeSize", "logIndex"):
                assert proofs[0][name] == proofs[1][name], name
            assert mine_entry["logIndex"] == str(start + number)
            logged = logged_signature(*items[number])
            assert mine.verify(mine_entry, logged).proved
            assert theirs.verify(their_entry, logged).proved
        # The same tree: every hash tile and every bundle, byte for byte.
        head = log.checkpoint().head
        assert head == theirs.checkpoint().head
        sources = DirectorySource(log.directory / "public"), DirectorySource(real.storage)
        for level in (Tile.ENTRIES, 0, 1):
            for tile in tiles_of(head.size, level):
                assert sources[0].read(tile.path) == sources[1].read(tile.path)
        assert check_log(theirs).signed.head == head
        their_verdicts(real, log, pairs)
        their_consistency(real, log, mine, theirs, heads[4].size)


def their_verdicts(real: RealLog, log: EmbeddedLog, pairs: list[tuple[Entry, Entry]]) -> None:
    """Rekor's own verifier accepts our log's entries as its own, and refuses the same changes."""
    mine = {"origin": log.trusted.origin, "key": pem_of(log)}
    other = {"origin": real.trusted.origin, "key": real.key_pem}
    questions = [mine | {"entry": a} for a, _ in pairs] + [other | {"entry": b} for _, b in pairs]
    assert ask_their_verifier(questions) == ["ok"] * len(questions)
    bad = []
    for origin, entry in ((mine, pairs[5][0]), (other, pairs[5][1])):
        flipped = json.loads(json.dumps(entry))
        hashes = flipped["inclusionProof"]["hashes"]
        raw = bytearray(base64.b64decode(hashes[0]))
        raw[3] ^= 8
        hashes[0] = base64.b64encode(raw).decode()
        moved = json.loads(json.dumps(entry)) | {"logIndex": "4"}
        bad += [origin | {"entry": flipped}, origin | {"entry": moved}]
    bad.append(mine | {"entry": pairs[0][1]})
    assert "ok" not in ask_their_verifier(bad)


def their_consistency(
    real: RealLog, log: EmbeddedLog, mine: RekorV2, theirs: RekorV2, old: int
) -> None:
    size = log.checkpoint().head.size
    assert mine.consistency(old, size) == theirs.consistency(old, size)
    hashes = [base64.b64encode(value).decode() for value in mine.consistency(old, size)]
    before = log.checkpoint().dump().decode()
    log.append_bodies([b"one more"])
    now = log.checkpoint().dump().decode()
    grown = [base64.b64encode(v).decode() for v in mine.consistency(size, size + 1)]
    question = {"origin": log.trusted.origin, "key": pem_of(log), "old": before, "new": now}
    assert ask_their_verifier([question | {"hashes": grown}]) == ["ok"]
    assert ask_their_verifier([question | {"hashes": hashes}]) != ["ok"]


def test_a_duplicate_is_proved_equal(real: RealLog) -> None:
    envelope, verifier = Signing().sign(b"twice")
    client = real.client
    first = client.append(envelope, verifier)
    again = client.append(envelope, verifier)
    for name in ("canonicalizedBody", "logIndex", "logId", "kindVersion"):
        assert first[name] == again[name]
    assert client.verify(again, logged_signature(envelope, verifier)).proved
    found = list(client.lookup(logged_signature(envelope, verifier).pae_digest))
    assert [each["logIndex"] for each in found] == [first["logIndex"]]


def test_what_it_refuses_is_refused_by_us_before(real: RealLog) -> None:
    with pytest.raises(InputError, match=r"takes signatures by ECDSA on P-256 only"):
        real.client.append(*Signing("ed25519").sign(b"payload"))


def test_its_refusals_are_quoted(real: RealLog) -> None:
    envelope, _ = Signing().sign(b"payload")
    with pytest.raises(InputError, match=r"answered 400: invalid hashedrekord request$"):
        real.client.append(envelope, Signing().sign(b"other")[1])
