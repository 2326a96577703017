"""Verdicts on keyless bundles: identities, times, roots; never *verified* after any change."""

from __future__ import annotations

import base64
import copy
import json
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from nix_seed.core.verdict import Fate
from nix_seed.formats.intoto.statement import (
    build_statement,
)
from nix_seed.trust.rules.bundle import (
    Ground,
    Trust,
    Verdict,
)
from nix_seed.trust.rules.signer import CertificateIdentity, PublicKey
from nix_seed.trust.sigstore import SigstoreCheck
from support.attestations import predicate
from support.private_sigstore import ISSUER, SUBJECT, PrivateSigstore, b64, key
from support.verdicts import (
    STATEMENT,
    judge,
    members,
    mutations,
    with_member,
)

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


def test_the_signature_of_another_envelope(keyless: Keyless) -> None:
    """Our own check says so, before Sigstore's library is asked."""
    swapped = copy.deepcopy(keyless.bundle)
    other = keyless.sigstore.bundle(build_statement(predicate(builder="b"), "x").dump())
    swapped["dsseEnvelope"]["signatures"] = other["dsseEnvelope"]["signatures"]
    verdict = keyless.judge(swapped)
    assert verdict.ground is Ground.SIGNATURE, verdict.reason
    assert "not that of its certificate's key" in verdict.reason


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
