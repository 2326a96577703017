"""A real Rekor v1: its entries, its index, its proofs."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nix_seed.core.errors import CheckedFalse, InputError
from nix_seed.formats.tlog.note import NoteKey
from nix_seed.logs.log import CheckpointState, Entry
from nix_seed.logs.rekor import LogHttp, RekorV1
from nix_seed.logs.rules.entry import EntryFate, History, TrustedLog, logged_signature
from support.goprograms import installed
from support.logs import Signing
from support.rekor import PATIENCE, rekor_v1

pytestmark = [pytest.mark.interop, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, NoteKey]]:
    with rekor_v1(tmp_path_factory.mktemp("rekor")) as found:
        yield found


@pytest.fixture
def client(place: tuple[str, NoteKey]) -> RekorV1:
    url, key = place
    trusted = TrustedLog("v1", "rekor-v1", "rekor.test", key)
    return RekorV1(trusted, url, http=LogHttp(url, patience=PATIENCE))


def statement(name: str) -> bytes:
    subject = {"name": name, "digest": {"sha256": hashlib.sha256(name.encode()).hexdigest()}}
    value = {"_type": "https://in-toto.io/Statement/v1", "subject": [subject], "predicate": {}}
    return json.dumps(value | {"predicateType": "https://example.com/p"}).encode()


def indexed(client: RekorV1, digest: bytes) -> list[Entry]:
    """What the index has for *digest*, which Rekor enters there only after it has answered."""
    deadline = time.monotonic() + 60
    while not (found := list(client.lookup(digest))) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def test_entries_are_logged_found_and_proved(client: RekorV1, tmp_path: Path) -> None:
    state = CheckpointState(tmp_path / "state")
    for number, kind in enumerate(("ecdsa-p256", "ed25519", "ecdsa-p256")):
        name = f"one {number}"
        envelope, verifier = Signing(kind).sign(statement(name))  # type: ignore[arg-type]
        logged = logged_signature(envelope, verifier)
        entry = client.append(envelope, verifier)
        result = client.verify(entry, logged)
        assert result.proved
        assert result.time is not None
        assert abs(result.time - time.time()) < 3600
        for digest in (hashlib.sha256(name.encode()).digest(), logged.payload_digest):
            (found,) = indexed(client, digest)
            assert found["canonicalizedBody"] == entry["canonicalizedBody"]
            assert client.verify(found, logged).proved
        history = state.advance(client.trusted, client.checkpoint(), client.consistency)
        assert history is None if number == 0 else history is not None
        assert history is None or history.history is History.GREW
    assert list(client.lookup(b"\1" * 32)) == []


def test_rekors_own_client_finds_and_proves_what_we_enter(
    client: RekorV1, place: tuple[str, NoteKey], tmp_path: Path
) -> None:
    ask = [installed("rekor-cli"), "--rekor_server", place[0]]

    def said(*command: str | Path) -> str:
        environ = os.environ | {"HOME": str(tmp_path)}
        done = subprocess.run(
            [*ask, *command], env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    envelope, verifier = Signing().sign(statement("theirs"))
    entry = client.append(envelope, verifier)
    (tmp_path / "envelope.json").write_bytes(envelope.dump())
    (tmp_path / "key.pem").write_bytes(verifier.pem)
    assert f"Entry Index in Current Tree: {entry['logIndex']}\n" in said(
        *("verify", "--type", "dsse", "--artifact", tmp_path / "envelope.json"),
        *("--public-key", tmp_path / "key.pem"),
    )
    assert indexed(client, hashlib.sha256(b"theirs").digest())
    found = said("search", "--sha", hashlib.sha256(b"theirs").hexdigest()).split()[-1]
    assert f"Index: {entry['logIndex']}\n" in said("get", "--uuid", found)
    assert "Verification Successful!" in said("loginfo")


def test_a_duplicate_is_proved_equal(client: RekorV1) -> None:
    envelope, verifier = Signing().sign(statement("twice"))
    first, again = client.append(envelope, verifier), client.append(envelope, verifier)
    for name in ("logIndex", "canonicalizedBody", "integratedTime"):
        assert first[name] == again[name]
    assert client.verify(again, logged_signature(envelope, verifier)).proved


def test_the_wrong_key_is_noticed(client: RekorV1, place: tuple[str, NoteKey]) -> None:
    wrong = NoteKey.from_der("rekor.test", Signing().signer.public_key.der)
    trusted = TrustedLog("v1", "rekor-v1", "rekor.test", wrong)
    other = RekorV1(trusted, place[0], http=LogHttp(place[0], patience=PATIENCE))
    envelope, verifier = Signing().sign(statement("wrong key"))
    with pytest.raises(
        CheckedFalse, match=r"the log v1 answered falsely: .* not signed by the log"
    ):
        other.append(envelope, verifier)
    with pytest.raises(CheckedFalse, match=r"^the note is not signed by rekor.test"):
        other.checkpoint()
    entry = client.append(envelope, verifier)
    assert other.verify(entry, logged_signature(envelope, verifier)).fate is EntryFate.WRONG_KEY


def test_its_refusals_are_quoted(client: RekorV1) -> None:
    envelope, _ = Signing().sign(statement("refused"))
    with pytest.raises(InputError, match=r"answered 400: .*"):
        client.append(envelope, Signing().sign(b"x")[1])
