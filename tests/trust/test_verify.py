"""Verdicts: each with the right reason, and never *verified* after any change."""

from __future__ import annotations

import base64
import binascii
import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from nix_seed.core import canonical_json
from nix_seed.core.digests import Digest
from nix_seed.core.verdict import Fate
from nix_seed.formats.intoto.build import (
    PREDICATE_TYPE,
    build_statement,
)
from nix_seed.formats.intoto.bundle import LARGEST_BUNDLE, Bundle
from nix_seed.formats.intoto.statement import (
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
    verifier_of,
)
from nix_seed.logs.rules.signer import CertificateIdentity, PublicKey
from nix_seed.trust.rules.bundle import (
    Expected,
    Ground,
    Trust,
    Verdict,
    evaluate_bundle,
)
from nix_seed.trust.sign import KeySigner
from nix_seed.trust.sigstore import SigstoreCheck
from support.attestations import IMAGE, predicate, signed
from support.private_sigstore import ISSUER, ORIGIN, SUBJECT, PrivateSigstore, b64, key, spki

SIGNER = KeySigner.generate()
KEYS = Trust(keys=(SIGNER.public_key,))
ABOUT = Expected(IMAGE)
STATEMENT = build_statement(predicate(), "owner/project")


def judge(text: bytes, trust: Trust = KEYS, expected: Expected = ABOUT) -> Verdict:
    return evaluate_bundle(text, trust, expected, "it")


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
    verdict = judge(replace(bundle, content=other).dump())
    assert verdict.ground is Ground.SIGNATURE
    assert verdict.reason == "it: the signature is not that of the key it names"


@pytest.mark.parametrize("extra", ["again", "a stranger's"])
def test_two_signatures_are_not_one(extra: str) -> None:
    envelope = Bundle.parse(signed(SIGNER), "it").envelope
    by = SIGNER if extra == "again" else KeySigner.generate()
    second = Signature(by.sign_raw(envelope.pae))
    two = replace(envelope, signatures=(*envelope.signatures, second))
    verdict = judge(Bundle(two, SIGNER.sign("x", b"").material).dump())
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
    lenient = Expected(IMAGE, {PREDICATE_TYPE}, {STATEMENT_V1, STATEMENT_V01})
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


# With certificates: a Sigstore instance of our own.


@dataclass(frozen=True)
class Keyless:
    """An instance, one good bundle of its, and the trust that verifies it."""

    sigstore: PrivateSigstore
    bundle: dict[str, Any]
    trust: Trust

    def judge(self, bundle: dict[str, Any]) -> Verdict:
        return judge(json.dumps(bundle).encode(), self.trust)

    def made(self, **names: Any) -> Verdict:
        return self.judge(self.sigstore.bundle(STATEMENT.dump(), **names))


@pytest.fixture(scope="module")
def keyless(tmp_path_factory: pytest.TempPathFactory) -> Keyless:
    sigstore = PrivateSigstore(tmp_path_factory.mktemp("sigstore"))
    trust = Trust(
        identities=(CertificateIdentity(ISSUER, SUBJECT),),
        certificates=SigstoreCheck(sigstore.trusted_root()),
    )
    return Keyless(sigstore, sigstore.bundle(STATEMENT.dump()), trust)


def test_a_keyless_bundle_is_verified(keyless: Keyless) -> None:
    verdict = keyless.judge(keyless.bundle)
    assert verdict.verified, verdict.reason
    assert verdict.signer == CertificateIdentity(ISSUER, SUBJECT)
    assert verdict.predicate == predicate()


@pytest.mark.parametrize(
    ("names", "ground", "words"),
    [
        (
            {"subject": SUBJECT + "x"},
            Ground.UNTRUSTED,
            f"it is signed by {SUBJECT}x of {ISSUER}, who is not trusted",
        ),
        (
            {"issuer": "https://issuer.example.evil"},
            Ground.UNTRUSTED,
            f"it is signed by {SUBJECT} of https://issuer.example.evil, who is not trusted",
        ),
        (
            {"more": ("https://another.example/name",)},
            Ground.CERTIFICATE,
            "it, certificate names 2 identities, and must name one",
        ),
        ({"start": timedelta(hours=-1)}, Ground.CERTIFICATE, "not valid at validation time"),
        ({"start": timedelta(hours=1)}, Ground.CERTIFICATE, "not valid at validation time"),
    ],
)  # fmt: skip
def test_other_identities_and_times(
    keyless: Keyless, names: dict[str, Any], ground: Ground, words: str
) -> None:
    verdict = keyless.made(**names)
    assert verdict.fate is Fate.FALSE
    assert verdict.ground is ground
    assert words in verdict.reason


MINE, THEIRS = "https://forge.example/me/mine", "https://forge.example/them/theirs"


@pytest.mark.parametrize(
    ("wanted", "stated", "good"),
    [
        (MINE, MINE, True),
        ("", THEIRS, True),
        (MINE, THEIRS, False),
        (MINE, MINE + "2", False),
        (MINE, "", False),
    ],
)
def test_a_shared_workflow_speaks_for_the_repository_that_called_it(
    keyless: Keyless, wanted: str, stated: str, good: bool
) -> None:
    trusted = CertificateIdentity(ISSUER, SUBJECT, wanted)
    trust = replace(keyless.trust, identities=(trusted,))
    bundle = keyless.sigstore.bundle(STATEMENT.dump(), repository=stated)
    verdict = judge(json.dumps(bundle).encode(), trust)
    assert verdict.verified is good
    if good:
        # The policy's own words, by which its builder is found.
        assert verdict.signer == trusted
        return
    assert (verdict.fate, verdict.ground) == (Fate.FALSE, Ground.UNTRUSTED)
    stated = f", for {stated}" if stated else ""
    assert verdict.reason == f"it is signed by {SUBJECT} of {ISSUER}{stated}, who is not trusted"


@pytest.mark.parametrize(
    ("part", "ground", "words"),
    [
        ("ca_key", Ground.CERTIFICATE, "failed to build timestamp certificate chain"),
        ("ct_key", Ground.CERTIFICATE, "failed to verify SCT on signing certificate"),
        ("log_key", Ground.LOG, "invalid log entry: checkpoint: invalid signature"),
    ],
)
def test_each_key_must_be_the_instances(
    keyless: Keyless, part: str, ground: Ground, words: str
) -> None:
    other = copy.copy(keyless.sigstore)
    setattr(other, part, key())
    verdict = keyless.judge(other.bundle(STATEMENT.dump()))
    assert verdict.fate is Fate.FALSE
    assert verdict.ground is ground, verdict.reason
    assert words in verdict.reason


def test_another_instances_time_is_none(keyless: Keyless, tmp_path: Path) -> None:
    other = PrivateSigstore(tmp_path / "other")
    verdict = keyless.judge(other.bundle(STATEMENT.dump()))
    assert verdict.ground is Ground.TIME
    assert "not enough sources of verified time" in verdict.reason


def test_the_entry_of_another_envelope(keyless: Keyless) -> None:
    swapped = copy.deepcopy(keyless.bundle)
    other = keyless.sigstore.bundle(build_statement(predicate(builder="b"), "x").dump())
    material = other["verificationMaterial"]["tlogEntries"]
    swapped["verificationMaterial"]["tlogEntries"] = material
    verdict = keyless.judge(swapped)
    assert verdict.ground is Ground.LOG, verdict.reason


def test_the_timestamp_of_another_signature(keyless: Keyless) -> None:
    swapped = copy.deepcopy(keyless.bundle)
    stamp = {"signedTimestamp": b64(keyless.sigstore.stamp(b"something else"))}
    swapped["verificationMaterial"]["timestampVerificationData"]["rfc3161Timestamps"] = [stamp]
    verdict = keyless.judge(swapped)
    assert verdict.ground is Ground.TIME
    assert "not enough sources of verified time" in verdict.reason


def test_a_logged_body_that_sigstores_library_stumbles_over_is_false(keyless: Keyless) -> None:
    """It raises a class of its own there. What our own reader refuses as well was not logged."""
    odd = copy.deepcopy(keyless.bundle)
    signature = base64.b64decode(odd["dsseEnvelope"]["signatures"][0]["sig"])
    entry = keyless.sigstore.entry_of(bytes(32), signature, {"x509Certificate": {"rawBytes": 7}})
    odd["verificationMaterial"]["tlogEntries"] = [entry]
    verdict = keyless.judge(odd)
    assert (verdict.fate, verdict.ground) == (Fate.FALSE, Ground.MALFORMED), verdict.reason
    assert "its log entry is malformed: " in verdict.reason
    assert "rawBytes must be a string" in verdict.reason


def test_a_fault_of_sigstores_library_is_no_answer_about_a_certified_signer(
    keyless: Keyless, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stranger who provokes one is passed over; a vote that could not be checked stays open."""

    def fail(*_: object) -> None:
        raise KeyError("a fault of its own")

    monkeypatch.setattr("sigstore.verify.verifier.Verifier.verify_dsse", fail)
    ours = keyless.judge(keyless.bundle)
    assert (ours.fate, ours.ground) == (Fate.UNCHECKED, Ground.INTERNAL), ours.reason
    stranger = keyless.judge(PrivateSigstore(tmp_path / "other").bundle(STATEMENT.dump()))
    assert (stranger.fate, stranger.ground) == (Fate.FALSE, Ground.MALFORMED), stranger.reason


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (True, "it, certificate chain holds a root certificate, and must not"),
        (False, "it, certificate chain is no chain of certificates"),
    ],
)
def test_a_bundle_may_not_bring_its_own_root(keyless: Keyless, extra: bool, words: str) -> None:
    older = copy.deepcopy(keyless.bundle)
    older["mediaType"] = "application/vnd.dev.sigstore.bundle+json;version=0.2"
    leaf = older["verificationMaterial"].pop("certificate")
    chain = older["verificationMaterial"]["x509CertificateChain"] = {"certificates": [leaf]}
    assert keyless.judge(older).verified
    root = keyless.sigstore.ca.public_bytes(Encoding.DER) if extra else b"nothing"
    chain["certificates"].append({"rawBytes": b64(root)})
    verdict = keyless.judge(older)
    assert verdict.ground is Ground.CERTIFICATE
    assert words in verdict.reason


def test_without_a_root_nothing_keyless_is_checked(keyless: Keyless) -> None:
    trust = replace(keyless.trust, certificates=None)
    verdict = judge(json.dumps(keyless.bundle).encode(), trust)
    assert verdict.fate is Fate.UNCHECKED
    assert verdict.ground is Ground.UNAVAILABLE
    assert "no Sigstore root to judge it by was given" in verdict.reason


def test_a_root_that_is_none_is_no_answer(keyless: Keyless) -> None:
    trust = replace(keyless.trust, certificates=SigstoreCheck(b"{}", "root.json"))
    verdict = judge(json.dumps(keyless.bundle).encode(), trust)
    assert verdict.fate is Fate.UNCHECKED
    assert "root.json is not a Sigstore trusted root" in verdict.reason


def test_a_certificate_cannot_stand_in_for_a_key(keyless: Keyless) -> None:
    certificate = keyless.bundle["verificationMaterial"]["certificate"]["rawBytes"]
    trust = Trust(keys=(PublicKey.of_certificate(base64.b64decode(certificate), "it"),))
    verdict = judge(json.dumps(keyless.bundle).encode(), trust)
    assert verdict.ground is Ground.UNTRUSTED


# No single change of what is signed or proved verifies.


def mutations(document: Any, step: int) -> Iterator[tuple[str, Any]]:
    """Yield copies in which one byte of one string, decoded where it is base64, is another."""
    for path, text in leaves(document):
        raw, decoded = content(text)
        for at in range(len(raw) % step, len(raw), step):
            changed = bytearray(raw)
            changed[at] ^= 1 << (at % 7)
            new = b64(bytes(changed)) if decoded else changed.decode("utf-8", "replace")
            yield ".".join(path), with_member(document, path, new)


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from leaves(item, (*path, name))
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from leaves(item, (*path, str(position)))


def content(text: str) -> tuple[bytes, bool]:
    try:
        raw = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return text.encode(), False
    return (raw, True) if len(raw) >= 8 else (text.encode(), False)


def with_member(document: Any, path: tuple[str, ...], new: Any) -> Any:
    result = copy.deepcopy(document)
    *parents, last = path
    inner = result
    for part in parents:
        inner = inner[int(part)] if isinstance(inner, list) else inner[part]
    if new is ...:
        del inner[last]
    else:
        inner[int(last) if isinstance(inner, list) else last] = new
    return result


def members(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield (*path, name)
            yield from members(item, (*path, name))
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from members(item, (*path, str(position)))


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
    logged = logged_signature(verdict.bundle.envelope, verifier_of(material, SIGNER.public_key))
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


STAMP = "verificationMaterial.timestampVerificationData.rfc3161Timestamps.0.signedTimestamp"
# CMS signs neither its own version numbers nor the name of the signature's algorithm (RFC 5652).
UNSIGNED_IN_STAMP = 10


def test_no_byte_of_a_keyless_bundle_can_be_changed(keyless: Keyless) -> None:
    free: dict[str, int] = {}
    for path, changed in mutations(keyless.bundle, 2):
        verdict = keyless.judge(changed)
        assert verdict.fate is not Fate.UNCHECKED, verdict.reason
        if verdict.verified:
            free[path] = free.get(path, 0) + 1
    assert set(free) <= {STAMP}
    assert free.get(STAMP, 0) <= UNSIGNED_IN_STAMP


def test_no_member_of_a_keyless_bundle_can_be_left_out(keyless: Keyless) -> None:
    for path in members(keyless.bundle):
        verdict = keyless.judge(with_member(keyless.bundle, path, ...))
        name = ".".join(path)
        assert not verdict.verified or name.endswith("integratedTime"), name
