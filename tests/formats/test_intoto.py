"""Envelopes, statements, bundles and the predicate: written, read again, and refused."""

import base64
import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from nix_seed.core import canonical_json
from nix_seed.core.digests import Digest, NarHash
from nix_seed.core.errors import InputError
from nix_seed.formats.intoto.bundle import Bundle, Certificate, MessageSignature, PublicKeyHint
from nix_seed.formats.intoto.statement import (
    PAYLOAD_TYPE,
    STATEMENT_V01,
    BuildPredicate,
    Commit,
    Envelope,
    Signature,
    Statement,
    Subject,
    build_statement,
    check_build,
    pae,
)
from nix_seed.trust.rules.bundle import Expected, Trust, evaluate_bundle
from nix_seed.trust.rules.signer import PublicKey
from nix_seed.trust.sign import KeySigner
from support.attestations import IMAGE, predicate, signed

Change = Callable[[Any], None]


def changed(value: bytes, change: Change) -> bytes:
    document = json.loads(value)
    change(document)
    return json.dumps(document).encode()


def put(path: str, new: Any) -> Change:
    """Set the member at *path* (``a.b.0.c``); Ellipsis removes it."""

    def change(document: Any) -> None:
        *parents, last = (int(part) if part.isdigit() else part for part in path.split("."))
        for part in parents:
            document = document[part]
        if new is ...:
            del document[last]
        else:
            document[last] = new

    return change


def test_pae_is_the_specifications() -> None:
    # The example of the DSSE specification, protocol.md.
    encoded = pae("http://example.com/HelloWorld", b"hello world")
    assert encoded == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


def test_pae_counts_bytes() -> None:
    assert pae("tÿpe", b"\0\xff") == b"DSSEv1 5 t\xc3\xbfpe 2 \0\xff"


def test_an_envelope_keeps_its_payload_byte_for_byte() -> None:
    payload = b' {"b":1,\n"a" : 2}\xff'
    made = Envelope("a/b", payload, (Signature(b"sig", "key"),))
    assert Envelope.parse(made.dump(), "it") == made
    assert Envelope.parse(json.dumps(made.to_json(), indent=3).encode(), "it").payload == payload


ENVELOPE = Envelope(PAYLOAD_TYPE, b"{}", (Signature(b"signature"),)).dump()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("payload", "e30"), "it: payload is not standard base64"),
        (put("payload", "e31="), "it: payload is not standard base64"),
        (put("payload", "e30=\n"), "it: payload is not standard base64"),
        (put("payload", 1), "it: payload must be a string"),
        (put("payloadType", ...), "it: payloadType must be a string"),
        (put("payload_type", "x"), "it: member 'payload_type' must be spelled 'payloadType'"),
        (put("Payload", "x"), "it: member 'Payload' must be spelled 'payload'"),
        (put("signatures", []), "it: 0 signatures; from 1 to 16 are read"),
        (put("signatures", [{}] * 17), "it: 17 signatures; from 1 to 16 are read"),
        (put("signatures.0.sig", ""), "it, signatures[0]: sig is empty"),
        (put("signatures.0", 7), "it, signatures[0]: an object is wanted, not int"),
    ],
)
def test_envelopes_refused(change: Change, message: str) -> None:
    with pytest.raises(InputError) as caught:
        Envelope.parse(changed(ENVELOPE, change), "it")
    assert caught.value.message == message


def test_a_key_given_twice_is_refused() -> None:
    text = ENVELOPE.replace(b'{"payload":', b'{"payload":"eA==","payload":')
    with pytest.raises(InputError, match="it is not valid JSON: key 'payload' is given twice"):
        Envelope.parse(text, "it")


STATEMENT = Statement((Subject("x", IMAGE),), "a:b", {"c": 1})


def test_a_statement_is_read_as_it_was_written() -> None:
    assert Statement.parse(STATEMENT.dump(), "it") == STATEMENT
    assert STATEMENT.names(IMAGE)
    assert not STATEMENT.names(Digest.of(b"another"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            put("_type", STATEMENT_V01),
            f"it: _type is '{STATEMENT_V01}', and must be https://in-toto.io/Statement/v1",
        ),
        (put("subject", []), "it: 0 subjects; from 1 to 1024 are read"),
        (
            put("subject.0.digest", {"sha512": "ab"}),
            "it, subject[0], digest: sha256 must be a string",
        ),
        (
            put("subject.0.digest", {"SHA256": IMAGE.hex}),
            "it, subject[0], digest: member 'SHA256' must be spelled 'sha256'",
        ),
        (
            put("subject.0.digest", {"sha-256": IMAGE.hex}),
            "it, subject[0], digest: member 'sha-256' must be spelled 'sha256'",
        ),
        (
            put("subject.0.digest.sha256", IMAGE.hex.upper()),
            f"it, subject[0], digest: sha256: '{IMAGE.hex.upper()}'"
            " is not a SHA-256 in lower-case hex",
        ),
        (
            put("subject.0.digest.sha256", str(IMAGE)),
            f"it, subject[0], digest: sha256: '{IMAGE}' is not a SHA-256 in lower-case hex",
        ),
        (put("predicate", [1]), "it: predicate must be an object"),
        (put("predicatetype", "x"), "it: member 'predicatetype' must be spelled 'predicateType'"),
    ],
)
def test_statements_refused(change: Change, message: str) -> None:
    with pytest.raises(InputError) as caught:
        Statement.parse(changed(STATEMENT.dump(), change), "it")
    assert caught.value.message == message


def test_an_older_statement_is_read_where_it_is_asked_for() -> None:
    text = changed(STATEMENT.dump(), put("_type", STATEMENT_V01))
    assert Statement.parse(text, "it", {STATEMENT_V01}).statement_type == STATEMENT_V01


ENTRY = {"logIndex": "7", "canonicalizedBody": "e30=", "unknown": {"z": 1, "a": [None]}}


HELD = Envelope(PAYLOAD_TYPE, b"{}", (Signature(b"s"),))
OVER_AN_ARTIFACT: dict[str, Any] = {
    "dsse_envelope": None,
    "message_signature": MessageSignature(b"s", bytes(32)),
}


@pytest.mark.parametrize("material", [PublicKeyHint("aGludA=="), Certificate(b"der")])
@pytest.mark.parametrize("content", [{}, OVER_AN_ARTIFACT])
def test_a_bundle_is_read_as_it_was_written(material: Any, content: Any) -> None:
    made = replace(Bundle.of(HELD, material, (ENTRY,), (b"stamp",)), **content)
    assert Bundle.parse(made.dump(), "it") == made
    assert (made.material, made.timestamps) == (material, (b"stamp",))


def test_older_bundles_hold_a_chain() -> None:
    document = json.loads(Bundle.of(HELD, Certificate(b"leaf")).dump())
    document["mediaType"] = "application/vnd.dev.sigstore.bundle+json;version=0.1"
    chain = [{"rawBytes": base64.b64encode(each).decode()} for each in (b"leaf", b"root")]
    document["verificationMaterial"] = {"x509CertificateChain": {"certificates": chain}}
    read = Bundle.parse(json.dumps(document).encode(), "it")
    assert read.material == Certificate(b"leaf", (b"root",))
    assert Bundle.parse(read.dump(), "it") == read
    document["verificationMaterial"]["x509CertificateChain"]["certificates"] = []
    with pytest.raises(InputError, match="x509CertificateChain holds no certificate"):
        Bundle.parse(json.dumps(document).encode(), "it")


BUNDLE = signed(KeySigner.generate())
MATERIAL = "it, verificationMaterial"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("mediaType", "x"), "it: mediaType 'x' is no bundle version known here"),
        (
            put("dsseEnvelope", ...),
            "it: exactly one of dsseEnvelope and messageSignature is wanted",
        ),
        (
            put("messageSignature", {"signature": "eA=="}),
            "it: exactly one of dsseEnvelope and messageSignature is wanted",
        ),
        (
            put("verificationMaterial.certificate", {"rawBytes": "eA=="}),
            f"{MATERIAL}: exactly one of publicKey, certificate, x509CertificateChain is wanted",
        ),
        (
            put("verificationMaterial.publicKey", ...),
            f"{MATERIAL}: exactly one of publicKey, certificate, x509CertificateChain is wanted",
        ),
        (
            put("verificationMaterial", {"x509CertificateChain": {"certificates": []}}),
            "it: x509CertificateChain does not belong in a bundle of type "
            "application/vnd.dev.sigstore.bundle.v0.3+json",
        ),
        (
            put("verificationMaterial.tlogEntries", [{}] * 33),
            f"{MATERIAL}, tlogEntries: 33 of them; at most 32 are read",
        ),
        (
            put("verificationMaterial.tlog_entries", []),
            f"{MATERIAL}: member 'tlog_entries' must be spelled 'tlogEntries'",
        ),
        (
            put("verificationMaterial.timestampVerificationData", {"rfc3161Timestamps": [{}]}),
            f"{MATERIAL}, timestampVerificationData, rfc3161Timestamps[0]: signedTimestamp must be "
            "a string",
        ),
    ],
)
def test_bundles_refused(change: Change, message: str) -> None:
    with pytest.raises(InputError) as caught:
        Bundle.parse(changed(BUNDLE, change), "it")
    assert caught.value.message == message


def test_a_bundle_over_an_artifact_has_no_envelope() -> None:
    with pytest.raises(InputError, match="a signature over an artifact, and no envelope"):
        _ = replace(Bundle.of(HELD, PublicKeyHint("")), **OVER_AN_ARTIFACT).envelope


@pytest.mark.parametrize(
    "changes",
    [{}, {"roots_digest": None}, {"reused_layers": ()}, {"layers": (), "reused_layers": ()}],
)
def test_the_predicate_is_read_as_it_was_written(changes: dict[str, Any]) -> None:
    made = predicate(**changes)
    assert BuildPredicate.from_json(made.to_json(), "it") == made
    statement = Statement.parse(build_statement(made, "a name").dump(), "it")
    assert check_build(statement, "it") == made


def test_a_flake_without_a_lock_and_a_dirty_tree_are_said_so() -> None:
    source = replace(predicate().source, lock_hash=None, dirty=True, commit=Commit("ab" * 32))
    value = predicate(source=source).to_json()
    assert value["source"]["lockHash"] is None
    assert value["source"]["commit"] == {"sha256": "ab" * 32}
    assert BuildPredicate.from_json(value, "it").source == source


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("system", "x86_64"), "it: 'x86_64' is not a Nix system such as x86_64-linux"),
        (put("narHash", "sha256:" + "0" * 64), f"it: narHash must be spelled {NarHash('0' * 64)}"),
        (put("source.commit", {}), "it, source: commit must have one member, sha1 or sha256"),
        (
            put("source.commit", {"sha1": "a" * 64}),
            f"it, source: commit {'a' * 64} is not a sha1",
        ),
        (
            put("source.commit", {"sha1": "A" * 40}),
            f"it: '{'A' * 40}' is not a commit: 40 or 64 lower-case hex digits",
        ),
        (put("source.dirty", 0), "it, source: dirty must be true or false"),
        (put("imageDigest", IMAGE.hex), f"it: imageDigest: '{IMAGE.hex}' is not a digest of the "
            "form sha256:<64 hex digits>"),
        (put("paths.built", -1), "it, paths: built is negative"),
        (put("paths.built", True), "it, paths: built must be an integer"),
        (put("startedOn", "2025-1-31T12:00:00Z"), "it: '2025-1-31T12:00:00Z' is not a time in UTC "
            "such as 2025-01-31T12:00:00Z"),
        (put("finishedOn", "2025-01-31T12:00:00+00:00"), "it: '2025-01-31T12:00:00+00:00' is not a "
            "time in UTC such as 2025-01-31T12:00:00Z"),
        (put("reusedLayers", [str(IMAGE)]), "it: reusedLayers names a layer that the image does "
            "not have"),
        (put("NarHash", "x"), "it: member 'NarHash' must be spelled 'narHash'"),
        (put("nix.substituters", ["a", 1]), "it, nix: substituters must hold strings"),
        (put("layers.1.diffId", "x"), "it, layers[1]: member 'diffId' must be spelled 'diffID'"),
    ],
)  # fmt: skip
def test_predicates_refused(change: Change, message: str) -> None:
    value = json.loads(changed(canonical_json.dumps(predicate().to_json()), change))
    with pytest.raises(InputError) as caught:
        BuildPredicate.from_json(value, "it")
    assert caught.value.message == message


def test_the_agreement_leaves_out_builder_and_time() -> None:
    one = predicate()
    other = predicate(
        builder="builder-two",
        started_on="2026-01-01T00:00:00Z",
        finished_on="2026-01-01T00:00:01Z",
        nix=replace(one.nix, version="2.8.1"),
        reused_layers=(),
    )
    assert one.agreement == other.agreement
    assert hash(one.agreement) == hash(other.agreement)


@pytest.mark.parametrize(
    "changes",
    [
        {"system": "aarch64-linux"},
        {"nar_hash": NarHash.of(b"other")},
        {"image_digest": Digest.of(b"other")},
        {"layers": (), "reused_layers": ()},
        {"layers": tuple(reversed(predicate().layers))},
        {"source": replace(predicate().source, commit=Commit("f" * 40))},
    ],
)
def test_the_agreement_holds_each_of_the_five(changes: dict[str, Any]) -> None:
    assert predicate(**changes).agreement != predicate().agreement


def test_the_commit_key_can_be_made_by_hand() -> None:
    commit = predicate().source.commit
    script = f"printf 'nix-seed/commit/v1\\0sha1{commit}' | sha256sum"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert commit.key.hex == done.stdout.split()[0]
    assert Commit("ab" * 32).key != Commit("ab" * 20).key


SUBJECTS = "it: its subjects are not the image, the narHash and the commit of its predicate"


@pytest.mark.parametrize("drop", [0, 1, 2])
def test_a_subject_may_not_be_missing(drop: int) -> None:
    made = build_statement(predicate(), "x")
    fewer = tuple(each for at, each in enumerate(made.subjects) if at != drop)
    with pytest.raises(InputError) as caught:
        check_build(replace(made, subjects=fewer), "it")
    assert caught.value.message == SUBJECTS


@pytest.mark.parametrize("extra", [Digest.of(b"another image"), IMAGE])
def test_no_subject_may_be_added(extra: Digest) -> None:
    made = build_statement(predicate(), "x")
    with pytest.raises(InputError) as caught:
        check_build(replace(made, subjects=(*made.subjects, Subject("y", extra))), "it")
    assert caught.value.message == SUBJECTS


def test_the_vector_in_the_documentation_holds(request: pytest.FixtureRequest) -> None:
    text = (request.config.rootpath / "docs/formats-attestation.md").read_text()
    blocks = [block.split("```")[0] for block in text.split("```json\n")[1:]]
    shown = BuildPredicate.from_json(json.loads(blocks[0]), "docs")
    assert shown == predicate()
    statement = build_statement(shown, "forge.example/owner/project")
    assert f"`{Digest.of(statement.dump()).hex}`" in text
    assert f"`{Digest.of(pae(PAYLOAD_TYPE, statement.dump())).hex}`" in text
    assert f"`{shown.source.commit.key.hex}`" in text
    bundle = Bundle.parse(blocks[1].encode(), "docs")
    assert bundle.envelope.payload == statement.dump()
    key = "-----BEGIN PUBLIC KEY-----" + text.split("-----BEGIN PUBLIC KEY-----")[1]
    trusted = PublicKey.from_pem(key.split("```")[0].encode(), "docs")
    verdict = evaluate_bundle(blocks[1].encode(), Trust((trusted,)), Expected(IMAGE), "docs")
    assert verdict.predicate == shown
