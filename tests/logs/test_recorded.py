"""Entries that real servers gave (``golden/make_rekor.py``), judged with no server at hand."""

from __future__ import annotations

import base64
import copy
import json
from pathlib import Path
from typing import Any

import pytest

from nix_seed.core.errors import CheckedFalse, CouldNotCheck
from nix_seed.formats.intoto.statement import Envelope
from nix_seed.formats.tlog.entry import LogEntry, LoggedSignature, Verifier, parse_body
from nix_seed.formats.tlog.merkle import check_consistency, leaf_hash
from nix_seed.formats.tlog.note import NoteKey, check_signed
from nix_seed.logs import rekor
from nix_seed.logs.rekor import LogHttp, RekorV1
from nix_seed.logs.rules.entry import (
    EntryFate,
    LogTrust,
    TrustedLog,
    evaluate_entry,
    logged_signature,
)
from support.logs import IMPATIENT
from support.web import Reply, lying

RECORDED: dict[str, Any] = json.loads(
    Path(__file__).with_name("golden").joinpath("rekor.json").read_text()
)
SERVERS = sorted(RECORDED)


def trust_of(server: str) -> LogTrust:
    found = RECORDED[server]
    key = NoteKey.parse(found["key"])
    return LogTrust((TrustedLog(server, found["kind"], found["origin"], key),))


def cases(server: str) -> list[tuple[dict[str, Any], LoggedSignature]]:
    verifier = Verifier(base64.b64decode(RECORDED[server]["verifier"]))
    return [
        (each["entry"], logged_signature(Envelope.from_json(each["envelope"], "it"), verifier))
        for each in RECORDED[server]["entries"]
    ]


@pytest.mark.parametrize("server", SERVERS)
def test_recorded_entries_are_proved(server: str) -> None:
    for number, (entry, logged) in enumerate(cases(server)):
        result = evaluate_entry(entry, logged, trust_of(server))
        assert (result.fate, result.log, result.index) == (EntryFate.PROVED, server, number)
        assert (result.time is None) == ("v2" in server)
        # Read, written and read again, it is the very same JSON.
        assert LogEntry.from_json(entry, "it").to_json() == entry
        body = base64.b64decode(entry["canonicalizedBody"])
        assert parse_body(body, "it").dump() == body


@pytest.mark.parametrize("server", SERVERS)
def test_an_entry_is_of_one_envelope_and_one_log(server: str) -> None:
    (first, logged), (_, other), _ = cases(server)
    assert evaluate_entry(first, other, trust_of(server)).fate is EntryFate.OTHER_SIGNATURE
    for elsewhere in SERVERS:
        if elsewhere != server:
            assert not evaluate_entry(first, logged, trust_of(elsewhere)).proved


@pytest.mark.parametrize("server", SERVERS)
def test_recorded_checkpoints_are_consistent(server: str) -> None:
    found, key = RECORDED[server], NoteKey.parse(RECORDED[server]["key"])
    envelopes = [
        each["entry"]["inclusionProof"]["checkpoint"]["envelope"] for each in found["entries"]
    ]
    heads = []
    for text in (*envelopes[1:], found["checkpoint"]):
        origin = text.partition("\n")[0]
        heads.append(check_signed(text.encode(), key, origin, "it").head)
    assert [head.size for head in heads] == [2, 3, 3]
    proof = tuple(bytes.fromhex(value) for value in found["consistency"])
    check_consistency(proof, heads[0], heads[2])


def changed(entry: dict[str, Any], *path: str, to: Any) -> dict[str, Any]:
    entry = copy.deepcopy(entry)
    inner = entry
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = to
    return entry


def test_what_rekor_v1_promised_is_checked() -> None:
    entry, logged = cases("rekor v1")[1]
    trust = trust_of("rekor v1")
    time = entry["integratedTime"]
    forged = "the log did not sign its timestamp, index and body as they stand"
    promise = bytearray(base64.b64decode(entry["inclusionPromise"]["signedEntryTimestamp"]))
    promise[-1] ^= 1
    for other in (
        changed(entry, "integratedTime", to=str(int(time) - 1)),
        changed(entry, "integratedTime", to="0"),
        changed(entry, "logIndex", to="7"),
        changed(
            entry, "inclusionPromise", "signedEntryTimestamp",
            to=base64.b64encode(promise).decode(),
        ),
    ):  # fmt: skip
        result = evaluate_entry(other, logged, trust)
        assert (result.fate, result.reason) == (EntryFate.FALSE_TIME, forged)
    result = evaluate_entry(changed(entry, "inclusionPromise", to=None), logged, trust)
    assert result.reason == "it lacks Rekor v1's signed entry timestamp"


def test_a_promise_without_a_proof_proves_nothing() -> None:
    entry, logged = cases("rekor v1")[1]
    result = evaluate_entry(changed(entry, "inclusionProof", to=None), logged, trust_of("rekor v1"))
    assert result.fate is EntryFate.NO_PROOF
    assert result.reason == "there is no inclusion proof, and a promise proves nothing"


def test_rekor_v1_names_its_tree_after_itself() -> None:
    key = NoteKey.parse(RECORDED["rekor v1"]["key"])
    log = TrustedLog("x", "rekor-v1", "rekor.test", key)
    assert log.issued("rekor.test - 123")
    assert log.issued("rekor.test")
    for origin in (
        "rekor.test - ",
        "rekor.test - 0",
        "rekor.test - x",
        "other - 123",
        "rekor.test-1",
    ):
        assert not log.issued(origin)
    assert not TrustedLog("x", "rekor-v2", "rekor.test", key).issued("rekor.test - 123")


def test_entries_of_one_kind_do_not_pass_for_another() -> None:
    """A v1 entry under a v2 log's trust, and the other way: the kind decides what is demanded."""
    entry, logged = cases("rekor v1")[0]
    key = NoteKey.parse(RECORDED["rekor v1"]["key"])
    origin = entry["inclusionProof"]["checkpoint"]["envelope"].partition("\n")[0]
    trust = LogTrust((TrustedLog("x", "rekor-v2", origin, key),))
    assert evaluate_entry(entry, logged, trust).fate is EntryFate.FALSE_TIME
    entry, logged = cases("rekor v2 ed25519")[0]
    found = RECORDED["rekor v2 ed25519"]
    trust = LogTrust((TrustedLog("x", "rekor-v1", found["origin"], NoteKey.parse(found["key"])),))
    assert evaluate_entry(entry, logged, trust).fate is EntryFate.FALSE_TIME


UUID = "0" * 16


def api_entry(entry: LogEntry) -> tuple[str, bytes]:
    """Return the UUID and the answer by which Rekor v1's API gives a recorded entry."""
    assert entry.proof is not None
    assert entry.log_id is not None
    assert entry.promise is not None
    uuid = UUID + leaf_hash(entry.body).hex()
    value = {
        "body": base64.b64encode(entry.body).decode(),
        "integratedTime": entry.integrated_time,
        "logID": entry.log_id.hex(),
        "logIndex": entry.index,
        "verification": {
            "signedEntryTimestamp": base64.b64encode(entry.promise).decode(),
            "inclusionProof": {
                "checkpoint": entry.proof.checkpoint.decode(),
                "hashes": [each.hex() for each in entry.proof.hashes],
                "logIndex": entry.proof.index,
                "rootHash": entry.proof.root.hex(),
                "treeSize": entry.proof.size,
            },
        },
    }
    return uuid, json.dumps({uuid: value}).encode()


class Duplicates:
    """A Rekor v1 that has everything already: of its answers the first *late* are 404."""

    def __init__(self, location: str, late: int, shown: int = 1) -> None:
        self.entries = [
            api_entry(LogEntry.from_json(entry, "it")) for entry, _ in cases("rekor v1")
        ]
        self.location, self.late = location.format(uuid=self.entries[shown][0]), late
        self.asked: list[str] = []

    def __call__(self, method: str, path: str) -> Reply:
        if path == "/api/v1/log/entries":
            return 409, {"Location": self.location} if self.location else {}, b"{}"
        self.asked.append(path)
        if path == "/api/v1/index/retrieve":
            return 200, {}, json.dumps([uuid for uuid, _ in self.entries]).encode()
        if len(self.asked) <= self.late:
            return 404, {}, b"{}"
        found = dict(self.entries).get(path.rpartition("/")[2])
        return (404, {}, b"{}") if found is None else (200, {}, found)


def append_again(answer: Duplicates) -> tuple[Any, Any]:
    found = RECORDED["rekor v1"]
    each = found["entries"][1]
    trusted = trust_of("rekor v1").logs[0]
    verifier = Verifier(base64.b64decode(found["verifier"]))
    with lying(answer) as url:
        client = RekorV1(trusted, url, http=LogHttp(url, patience=IMPATIENT))
        return client.append(Envelope.from_json(each["envelope"], "it"), verifier), each["entry"]


@pytest.mark.parametrize("late", [0, 1, 4])
@pytest.mark.parametrize(
    "location",
    ["/api/v1/log/entries/{uuid}", "https://log.test/x/{uuid}/", "", "/", "https://[x", "/not-one"],
)
def test_a_duplicate_is_found_wherever_the_log_says_it_is(
    location: str, late: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rekor, "_PAUSE", 0.01)
    answer = Duplicates(location, late)
    entry, recorded = append_again(answer)
    assert entry == recorded
    assert len(answer.asked) > late


def test_a_duplicate_that_never_shows_is_not_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rekor, "_PAUSE", 0.001)
    for location in ("/api/v1/log/entries/{uuid}", ""):
        with pytest.raises(
            CouldNotCheck, match=r"already \(409\), and does not show it$"
        ) as caught:
            append_again(Duplicates(location, late=1000))
        assert "try again later" in str(caught.value.hint)


def test_a_duplicate_of_another_signature_is_a_lie() -> None:
    with pytest.raises(CheckedFalse, match="of another signature"):
        append_again(Duplicates("/api/v1/log/entries/{uuid}", late=0, shown=2))
