"""Verdicts: each with the right reason, and never *verified* after any change."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from nix_seed.core import canonical_json
from nix_seed.core.digests import Digest
from nix_seed.core.verdict import Fate
from nix_seed.formats.intoto.bundle import LARGEST_BUNDLE, Bundle
from nix_seed.formats.intoto.statement import (
    BUILD_TYPE,
    PAYLOAD_TYPE,
    STATEMENT_V01,
    STATEMENT_V1,
    Envelope,
    Signature,
    Statement,
    Subject,
)
from nix_seed.formats.tlog.note import NoteKey
from nix_seed.logs.rules.entry import (
    LogTrust,
    TrustedLog,
    evaluate_entries,
    logged_signature,
)
from nix_seed.trust.rules.bundle import (
    Expected,
    Ground,
    Trust,
    Verdict,
)
from nix_seed.trust.rules.signer import PublicKey
from nix_seed.trust.sign import KeySigner
from support.attestations import IMAGE, predicate, signed
from support.private_sigstore import ORIGIN, PrivateSigstore, b64, spki
from support.verdicts import (
    SIGNER,
    STATEMENT,
    judge,
    leaves,
    members,
    mutations,
    with_member,
)


def of_payload(payload: bytes, payload_type: str = PAYLOAD_TYPE) -> bytes:
    return SIGNER.sign(payload_type, payload).bundle.dump()


def of_statement(**changes: Any) -> bytes:
    return of_payload(replace(STATEMENT, **changes).dump())


def test_a_good_bundle_says_all_that_is_known() -> None:
    verdict = judge(signed(SIGNER))
    assert verdict.verified
    assert verdict.ground is Ground.VERIFIED
    assert verdict.signer == SIGNER.public_key
    assert verdict.predicate == predicate()
    assert verdict.reason == f"it is signed by {SIGNER.public_key.fingerprint}"


REFUSED = {
    "not json": (b"{", Ground.MALFORMED, "it is not valid JSON"),
    "too large": (b" " * (LARGEST_BUNDLE + 1), Ground.TOO_LARGE, "4194304 are the most"),
    "deep": (b"[" * 100_000, Ground.MALFORMED, "it is not valid JSON"),
    "other payload type": (
        of_payload(STATEMENT.dump(), "application/json"),
        Ground.PAYLOAD_TYPE,
        "it: its payload is of type 'application/json', not application/vnd.in-toto+json",
    ),
    "no statement": (
        of_payload(b"[]"),
        Ground.STATEMENT,
        "it: an object is wanted, not list",
    ),
    "key twice": (
        of_payload(STATEMENT.dump().replace(b'"subject":', b'"subject":[],"subject":', 1)),
        Ground.STATEMENT,
        "key 'subject' is given twice",
    ),
    "statement version": (
        of_statement(statement_type=STATEMENT_V01),
        Ground.STATEMENT,
        f"it: _type is '{STATEMENT_V01}', and must be {STATEMENT_V1}",
    ),
    "predicate type": (
        of_statement(predicate_type="urn:nix-seed:build:v2"),
        Ground.PREDICATE_TYPE,
        "it: predicateType is 'urn:nix-seed:build:v2', not urn:nix-seed:build:v1",
    ),
    "predicate": (
        of_statement(predicate={}),
        Ground.PREDICATE,
        "it, predicate: builder must be an object",
    ),
    "subjects": (
        of_statement(subjects=STATEMENT.subjects[:1]),
        Ground.PREDICATE,
        "it: its subjects are not the image, the narHash and the commit of its predicate",
    ),
    "another image": (
        signed(SIGNER, predicate(image_digest=Digest.of(b"other"))),
        Ground.SUBJECT,
        f"it is about {Digest.of(b'other')}, not {IMAGE}",
    ),
    "a stranger": (
        signed(KeySigner.generate()),
        Ground.UNTRUSTED,
        "it is signed by none of the trusted keys",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_and_why(case: str) -> None:
    text, ground, words = REFUSED[case]
    verdict = judge(text)
    assert verdict.fate is Fate.FALSE
    assert verdict.ground is ground
    assert words in verdict.reason
    assert verdict.statement is None
    assert verdict.predicate is None


def test_the_narhash_and_the_commit_are_no_image() -> None:
    for subject in STATEMENT.subjects[1:]:
        verdict = judge(signed(SIGNER), expected=Expected(subject.digest))
        assert verdict.ground is Ground.SUBJECT


def test_another_signature_under_a_trusted_keys_name() -> None:
    bundle = Bundle.parse(signed(SIGNER), "it")
    other = KeySigner.generate().sign(PAYLOAD_TYPE, STATEMENT.dump()).envelope
    verdict = judge(replace(bundle, dsse_envelope=other).dump())
    assert verdict.ground is Ground.SIGNATURE
    assert verdict.reason == "it: the signature is not that of the key it names"


@pytest.mark.parametrize("extra", ["again", "a stranger's"])
def test_two_signatures_are_not_one(extra: str) -> None:
    envelope = Bundle.parse(signed(SIGNER), "it").envelope
    by = SIGNER if extra == "again" else KeySigner.generate()
    second = Signature(by.sign_raw(envelope.pae))
    two = replace(envelope, signatures=(*envelope.signatures, second))
    verdict = judge(Bundle.of(two, SIGNER.sign("x", b"").material).dump())
    assert verdict.ground is Ground.MALFORMED
    assert verdict.reason == "it has 2 signatures, not one"


def test_a_bundle_over_an_artifact_states_nothing() -> None:
    document = json.loads(signed(SIGNER))
    del document["dsseEnvelope"]
    document["messageSignature"] = {"signature": "eA=="}
    assert judge(json.dumps(document).encode()).ground is Ground.NO_ENVELOPE


def test_other_predicates_are_read_where_they_are_asked_for() -> None:
    text = of_payload(Statement((Subject("x", IMAGE),), "https://example.org/other/v1", {}).dump())
    assert judge(text).ground is Ground.PREDICATE_TYPE
    verdict = judge(text, expected=Expected(IMAGE, {"https://example.org/other/v1"}))
    assert verdict.verified
    assert verdict.predicate is None
    other = judge(text, expected=Expected(Digest.of(b"x"), {"https://example.org/other/v1"}))
    assert other.ground is Ground.SUBJECT


def test_an_older_statement_is_never_ours() -> None:
    text = of_statement(statement_type=STATEMENT_V01)
    lenient = Expected(IMAGE, {BUILD_TYPE}, {STATEMENT_V1, STATEMENT_V01})
    verdict = judge(text, expected=lenient)
    assert verdict.ground is Ground.STATEMENT
    assert verdict.reason == f"it: urn:nix-seed:build:v1 needs _type {STATEMENT_V1}"


def test_no_trust_verifies_nothing() -> None:
    assert judge(signed(SIGNER), Trust()).ground is Ground.UNTRUSTED


def test_a_fault_of_the_verifier_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bool:
        raise AttributeError("a bug")

    monkeypatch.setattr(PublicKey, "verifies", fail)
    verdict = judge(signed(SIGNER))
    assert verdict.fate is Fate.UNCHECKED
    assert verdict.ground is Ground.INTERNAL
    assert verdict.reason == "it: an unexpected AttributeError: a bug"


def test_a_verdict_cannot_contradict_itself() -> None:
    with pytest.raises(ValueError, match="if, and only if, it is verified"):
        Verdict(Fate.VERIFIED, Ground.VERIFIED, "x")


@cache
def logged_bundle(root: Path) -> tuple[dict[str, Any], LogTrust]:
    """A key's bundle with an entry of a log, and the log's trust."""
    sigstore = PrivateSigstore(root)
    bundle = json.loads(signed(SIGNER))
    envelope = Envelope.from_json(bundle["dsseEnvelope"], "it")
    verifier = {"publicKey": {"rawBytes": b64(SIGNER.public_key.der)}}
    entry = sigstore.entry(envelope.pae, envelope.signatures[0].sig, verifier)
    bundle["verificationMaterial"]["tlogEntries"] = [entry]
    log = NoteKey.from_der(ORIGIN, spki(sigstore.log_key))
    return bundle, LogTrust((TrustedLog("one", "rekor-v2", ORIGIN, log),))


def accepted(bundle: Any, logs: LogTrust) -> bool:
    """Whether the bundle verifies and every entry it has, at least one, is proved."""
    verdict = judge(canonical_json.dumps(bundle))
    if not verdict.verified:
        return False
    assert verdict.bundle is not None
    material = verdict.bundle.material
    logged = logged_signature(verdict.bundle.envelope, SIGNER.public_key.verifier(material))
    entries = evaluate_entries(verdict.bundle.tlog_entries, logged, logs)
    return len(entries) > 0 and all(entry.proved for entry in entries)


# A hint only says which key to try first; nothing signs it, and nothing is decided by it.
HINT = "verificationMaterial.publicKey.hint"


def test_no_byte_of_a_key_bundle_can_be_changed(tmp_path_factory: pytest.TempPathFactory) -> None:
    bundle, logs = logged_bundle(tmp_path_factory.mktemp("sigstore"))
    assert accepted(bundle, logs)
    tried: dict[str, int] = {}
    for path, changed in mutations(bundle, 1):
        tried[path] = tried.get(path, 0) + 1
        assert accepted(changed, logs) is (path == HINT), path
    assert tried["dsseEnvelope.payload"] > 1000
    assert len(tried) == len(list(leaves(bundle)))


def test_no_member_of_a_key_bundle_can_be_left_out(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    bundle, logs = logged_bundle(tmp_path_factory.mktemp("sigstore"))
    entry = "verificationMaterial.tlogEntries.0"
    # Absent, a protobuf member is its default, zero; and a Rekor v2 log is known by its checkpoint.
    free = {HINT, f"{entry}.integratedTime", f"{entry}.logId"}
    for path in members(bundle):
        name = ".".join(path)
        assert accepted(with_member(bundle, path, ...), logs) is (name in free), name


def test_no_byte_of_the_text_can_be_changed(tmp_path_factory: pytest.TempPathFactory) -> None:
    bundle, _ = logged_bundle(tmp_path_factory.mktemp("sigstore"))
    text = canonical_json.dumps(bundle)
    good = Bundle.parse(text, "it")
    for at in range(0, len(text), 3):
        changed = bytearray(text)
        changed[at] ^= 1 << (at % 7)
        verdict = judge(bytes(changed))
        if verdict.verified:
            # Outside the envelope, this judgement does not look: what it verified is the same.
            assert verdict.bundle is not None
            assert verdict.bundle.envelope == good.envelope
