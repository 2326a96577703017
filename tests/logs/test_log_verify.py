"""The pure verifier: every member of a true entry changed, and each lie under its own name."""

import base64
import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from nix_seed.core.errors import CheckedFalse, InputError
from nix_seed.formats.tlog.entry import HashedRekord, LoggedSignature, Verifier
from nix_seed.formats.tlog.merkle import TreeHead, leaf_hash
from nix_seed.formats.tlog.note import (
    Checkpoint,
    Note,
    NoteKey,
    NoteSignature,
    SignedCheckpoint,
    sign_note,
)
from nix_seed.logs.embedded import EmbeddedLog
from nix_seed.logs.log import OneLog
from nix_seed.logs.rules.entry import (
    EntryFate,
    EntryResult,
    LogTrust,
    TrustedLog,
    TrustedWitness,
    evaluate_entries,
    evaluate_entry,
)
from support.cosigned import cosign_note, signed_also
from support.logs import Signing

Json = dict[str, Any]


class Case:
    """A log with a few entries, one of them *logged*, and its *entry*."""

    def __init__(self, directory: Path) -> None:
        self.signing = Signing()
        self.log = EmbeddedLog.create(directory / "log", "log.test/one")
        self.logged = self.signing.logged(b"payload")
        bodies = [self.signing.body(b"%d" % i) for i in range(5)]
        self.log.append_bodies(bodies)
        self.entry: Json = self.log.append_bodies(
            [HashedRekord.of(self.logged).dump(), self.signing.body(b"last")]
        )[0].entry.to_json()
        self.trust = LogTrust((self.log.trusted,))

    def judge(self, entry: Json, trust: LogTrust | None = None) -> EntryResult:
        return evaluate_entry(entry, self.logged, trust or self.trust)

    def changed(self, *path: str, to: Any) -> Json:
        entry = copy.deepcopy(self.entry)
        inner = entry
        for name in path[:-1]:
            inner = inner[name]
        inner[path[-1]] = to
        return entry

    def with_note(self, note: Note) -> Json:
        return self.changed("inclusionProof", "checkpoint", "envelope", to=note.dump().decode())

    @property
    def note(self) -> Note:
        envelope = self.entry["inclusionProof"]["checkpoint"]["envelope"]
        return Note.parse(envelope.encode(), "x")


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("case"))


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def test_a_true_entry_is_proved(case: Case) -> None:
    result = case.judge(case.entry)
    assert (result.fate, result.log, result.index) == (EntryFate.PROVED, "log.test/one", 5)
    assert result.reason == "leaf 5 of log.test/one, size 7"
    assert result.checkpoint is not None
    assert result.checkpoint.head == case.log.checkpoint().head
    assert (result.time, result.witnesses) == (None, ())
    assert evaluate_entries([case.entry, {}], case.logged, case.trust)[0].proved


def leaves_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves_of(inner, (*path, name))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from leaves_of(inner, (*path, place))
    else:
        yield path, value


def mutations(value: Any) -> Iterator[Any]:
    """Other values for a member: each character changed, cut, lengthened, other types."""
    if not isinstance(value, str):
        yield from ({}, [], "x", 1, True)
        return
    step = max(1, len(value) // 60)
    for place in range(0, len(value), step):
        yield value[:place] + ("B" if value[place] != "B" else "C") + value[place + 1 :]
    yield from (value[:-1], value + "=", value + "A", value + "\n", "", None, 0, [value], {})


def test_no_single_change_of_any_member_is_proved(case: Case) -> None:
    tried = 0
    for path, value in leaves_of(case.entry):
        for other in mutations(value):
            entry = copy.deepcopy(case.entry)
            inner: Any = entry
            for name in path[:-1]:
                inner = inner[name]
            inner[path[-1]] = other
            # Absent, null, and zero are one spelling each of the same in protobuf's JSON.
            nothing = other in (None, "", 0) and path[-1] in {"inclusionPromise", "integratedTime"}
            if (nothing or path[-1] == "logId") and other is None:
                continue
            tried += 1
            assert not case.judge(entry).proved, (path, value, other)
    assert tried > 500


def test_no_member_may_be_taken_away_or_added(case: Case) -> None:
    for name in case.entry:
        entry = {key: value for key, value in case.entry.items() if key != name}
        optional = name in {"integratedTime", "inclusionPromise", "logId"}
        assert case.judge(entry).proved is optional, name
    for where in ((), ("logId",), ("inclusionProof",), ("inclusionProof", "checkpoint")):
        changed = case.changed(*where, "more", to=1)
        result = case.judge(changed)
        assert (result.fate, "there is no member 'more'" in result.reason) == (
            EntryFate.MALFORMED,
            True,
        )


def test_every_flipped_bit_of_the_body(case: Case) -> None:
    body = base64.b64decode(case.entry["canonicalizedBody"])
    for place in range(len(body)):
        bad = bytearray(body)
        bad[place] ^= 1 << place % 8
        assert not case.judge(case.changed("canonicalizedBody", to=b64(bytes(bad)))).proved


def test_a_body_spelled_otherwise_is_refused(case: Case) -> None:
    body = json.loads(base64.b64decode(case.entry["canonicalizedBody"]))
    spaced = json.dumps(body, sort_keys=True).encode()
    result = case.judge(case.changed("canonicalizedBody", to=b64(spaced)))
    assert (result.fate, result.reason) == (
        EntryFate.MALFORMED,
        "the body of the log entry is not canonical JSON",
    )


def test_the_entry_of_another_envelope(case: Case) -> None:
    logged = case.logged
    other = case.signing.logged(b"another payload")
    cases: list[tuple[LoggedSignature, str]] = [
        (other, "its digest is of other signed bytes"),
        (replace(logged, signature=other.signature), "it holds another signature"),
        (replace(logged, verifier=Signing().logged(b"x").verifier), "it names another key"),
        (replace(logged, verifier=Verifier(certificate=logged.verifier.der)), "another key or"),
    ]
    for asked, reason in cases:
        result = evaluate_entry(case.entry, asked, case.trust)
        assert result.fate is EntryFate.OTHER_SIGNATURE
        assert reason in result.reason


def test_a_log_that_is_not_trusted(case: Case) -> None:
    stranger = TrustedLog("s", "tiles", "log.test/other", case.log.trusted.key)
    result = case.judge(case.entry, LogTrust((stranger,)))
    assert result.fate is EntryFate.UNKNOWN_LOG
    assert result.reason == "no trusted log has the origin 'log.test/one'"
    assert case.judge(case.entry, LogTrust(())).fate is EntryFate.UNKNOWN_LOG


def test_the_wrong_key_under_the_right_name(case: Case, tmp_path: Path) -> None:
    other = EmbeddedLog.create(tmp_path / "other", "log.test/one")
    result = case.judge(case.entry, LogTrust((other.trusted,)))
    assert (result.fate, result.log) == (EntryFate.WRONG_KEY, "log.test/one")
    assert result.reason.startswith("the note is not signed by log.test/one (")
    assert result.words.startswith("the log entry of log.test/one is not signed by the log: ")
    with pytest.raises(CheckedFalse, match=r"^the log log.test/one answered falsely: "):
        OneLog(other.trusted).checked(case.entry, case.logged)
    forged = case.with_note(
        Note(case.note.text, (replace(case.note.signatures[0], body=b"0" * 64),))
    )
    assert case.judge(forged).reason == "the signature of log.test/one under the note is forged"


def test_another_log_id(case: Case) -> None:
    result = case.judge(case.changed("logId", "keyId", to=b64(b"x" * 32)))
    assert result.fate is EntryFate.WRONG_KEY
    assert result.reason == "logId names another log than the checkpoint's"


def test_proofs_that_are_none(case: Case) -> None:
    result = case.judge(case.changed("inclusionProof", to=None))
    assert result.fate is EntryFate.NO_PROOF
    hashes = case.entry["inclusionProof"]["hashes"]
    for bad, reason in (
        (hashes[:-1], "the inclusion proof of leaf 5 has hashes too few"),
        ([*hashes, hashes[0]], "the inclusion proof of leaf 5 has hashes too many"),
        ([hashes[0], *hashes[:-1]], "does not lead to the root"),
    ):
        result = case.judge(case.changed("inclusionProof", "hashes", to=bad))
        assert result.fate is EntryFate.FALSE_PROOF
        assert reason in result.reason
    long = case.judge(case.changed("inclusionProof", "hashes", to=hashes[:1] * 65))
    assert (long.fate, "65 of them; at most 64 are read" in long.reason) == (
        EntryFate.MALFORMED,
        True,
    )


def test_the_proofs_own_head_must_be_its_checkpoints(case: Case) -> None:
    for name, value in (("treeSize", "8"), ("rootHash", b64(b"r" * 32))):
        result = case.judge(case.changed("inclusionProof", name, to=value))
        assert result.fate is EntryFate.FALSE_PROOF
        assert result.reason == "its size and root are not those of its own checkpoint"
    result = case.judge(case.changed("logIndex", to="4"))
    assert result.reason == "it says it is leaf 4, and its proof says 5"


def test_a_tree_of_one_that_nobody_signed(case: Case) -> None:
    """The forger's plainest try: its own tree, in the log's name."""
    root = leaf_hash(base64.b64decode(case.entry["canonicalizedBody"]))
    private = Ed25519PrivateKey.generate()
    mine = NoteKey("log.test/one", "ed25519", private.public_key().public_bytes_raw())
    note = sign_note(str(Checkpoint("log.test/one", TreeHead(1, root))), mine, private.sign)
    entry = case.with_note(note)
    entry["inclusionProof"] |= {"rootHash": b64(root), "treeSize": "1", "hashes": []}
    assert case.judge(entry).fate is EntryFate.WRONG_KEY


def test_a_time_that_no_one_signed(case: Case) -> None:
    for name, value in (
        ("integratedTime", "1700000000"),
        ("inclusionPromise", {"signedEntryTimestamp": "AAAA"}),
    ):
        result = case.judge(case.changed(name, to=value))
        assert result.fate is EntryFate.FALSE_TIME
        assert result.reason == "a log of this kind signs no time, and the entry gives one"


@pytest.mark.parametrize("entry", [{}, {"logIndex": "1"}, {"logIndex": 1}])
def test_what_is_no_entry(case: Case, entry: Json) -> None:
    assert case.judge(entry).fate is EntryFate.MALFORMED


def test_other_kinds_of_entries_prove_nothing(case: Case) -> None:
    body = b64(b'{"apiVersion":"0.0.1","kind":"rpm","spec":{}}')
    result = case.judge(case.changed("canonicalizedBody", to=body))
    assert (result.fate, "of the kind rpm 0.0.1" in result.reason) == (EntryFate.MALFORMED, True)
    result = case.judge(case.changed("kindVersion", "version", to="0.0.1"))
    assert (
        result.reason == "its body is hashedrekord 0.0.2, and kindVersion says hashedrekord 0.0.1"
    )


class Watching:
    def __init__(self, name: str) -> None:
        self.private = Ed25519PrivateKey.generate()
        public = self.private.public_key().public_bytes_raw()
        self.trusted = TrustedWitness(name, NoteKey(f"{name}.test", "cosignature", public))

    def cosign(self, note: Note, time: int) -> Note:
        return cosign_note(note, self.trusted.key, time, self.private.sign)


def test_witnesses_are_counted_by_key(case: Case) -> None:
    watching = [Watching(name) for name in ("w1", "w2", "w3")]
    witnesses = tuple(each.trusted for each in watching)
    two = LogTrust(case.trust.logs, witnesses, 2)
    result = case.judge(case.entry, two)
    assert result.fate is EntryFate.TOO_FEW_WITNESSES
    assert result.reason == "0 of the trusted witnesses cosigned its checkpoint, and 2 must"
    note = watching[0].cosign(watching[0].cosign(case.note, 10), 20)
    assert case.judge(case.with_note(note), two).reason.startswith("1 of the trusted witnesses")
    note = Watching("stranger").cosign(note, 5)
    assert case.judge(case.with_note(note), two).fate is EntryFate.TOO_FEW_WITNESSES
    note = watching[2].cosign(note, 30)
    result = case.judge(case.with_note(note), two)
    assert (result.fate, result.witnesses) == (EntryFate.PROVED, (("w1", 20), ("w3", 30)))


def test_a_forged_witness(case: Case) -> None:
    watching = Watching("w1")
    key = watching.trusted.key
    trust = LogTrust(case.trust.logs, (watching.trusted,), 1)
    forged = signed_also(case.note, [NoteSignature(key.name, key.key_id, b"\0" * 72)])
    result = case.judge(case.with_note(forged), trust)
    assert (result.fate, result.log) == (EntryFate.FORGED_WITNESS, "log.test/one")
    other = SignedCheckpoint.parse(case.log.checkpoint().dump(), "x").checkpoint
    elsewhere = sign_note(
        str(replace(other, head=TreeHead(6, b"x" * 32))), case.log.trusted.key, case.log.key.sign
    )
    moved = watching.cosign(elsewhere, 7).signatures[1:]
    result = case.judge(case.with_note(signed_also(case.note, moved)), trust)
    assert result.fate is EntryFate.FORGED_WITNESS


def test_trust_that_cannot_be_meant(case: Case, tmp_path: Path) -> None:
    log = case.log.trusted
    witness = Watching("w").trusted
    with pytest.raises(InputError, match=r"^2 of 1 witnesses can never be met$"):
        LogTrust((log,), (witness,), 2)
    with pytest.raises(InputError, match=r"^two logs or witnesses have the key "):
        LogTrust((log, replace(log, id="again", origin="log.test/two")))
    with pytest.raises(InputError, match=r"^two logs or witnesses have the id log.test/one: "):
        LogTrust((log, replace(EmbeddedLog.create(tmp_path / "l").trusted, id=log.id)))
    both = NoteKey("w", "cosignature", log.key.public)
    with pytest.raises(InputError, match=r"^two logs or witnesses have the key "):
        LogTrust((log,), (TrustedWitness("w", both),))
    with pytest.raises(InputError, match=r"^the key of the witness w is a log's$"):
        LogTrust((), (TrustedWitness("w", log.key),))
