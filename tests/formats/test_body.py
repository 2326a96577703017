from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from nix_seed.core.errors import InputError
from nix_seed.formats.tlog.entry import (
    DsseV001,
    DsseV002,
    HashedRekord,
    InclusionProof,
    LogEntry,
    LoggedSignature,
    Verifier,
    entry_from_v1,
    parse_body,
    parse_request,
    request_v1,
    request_v2,
)
from nix_seed.formats.tlog.merkle import leaf_hash

BYTES = st.binary(min_size=1, max_size=200)
DIGEST = st.binary(min_size=32, max_size=32)
VERIFIER = st.builds(Verifier, BYTES) | st.builds(Verifier, st.none(), BYTES)
LOGGED = LoggedSignature(b"p" * 32, b"q" * 32, b"signature", Verifier(b"key"))

# docs/formats-log.md gives this leaf and its hash.
GOLDEN = (
    '{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{"hashedRekordV002":{"data":{"algorithm":'
    '"SHA2_256","digest":"cHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHA="},"signature":{"content":'
    '"c2lnbmF0dXJl","verifier":{"keyDetails":"PKIX_ECDSA_P256_SHA_256","publicKey":{"rawBytes":'
    '"a2V5"}}}}}}'
)
GOLDEN_LEAF = "8895612e408ded6a9df0472caeb4dcba0081480e392f4e2e7d48bf4c5ac54fe2"


@given(DIGEST, BYTES, VERIFIER)
def test_hashedrekord_goes_round(digest: bytes, signature: bytes, verifier: Verifier) -> None:
    body = HashedRekord(digest, signature, verifier)
    assert parse_body(body.dump(), "it") == body
    assert parse_request(request_v2(body)) == body


@given(DIGEST, st.lists(st.tuples(BYTES, VERIFIER), min_size=1, max_size=4))
def test_dsse_v2_goes_round(digest: bytes, signatures: list[tuple[bytes, Verifier]]) -> None:
    body = DsseV002(digest, tuple(signatures))
    assert parse_body(body.dump(), "it") == body


@given(DIGEST, DIGEST, st.lists(st.tuples(BYTES, BYTES), min_size=1, max_size=4))
def test_dsse_v1_goes_round(one: bytes, two: bytes, signatures: list[tuple[bytes, bytes]]) -> None:
    body = DsseV001(one, two, tuple(signatures))
    assert parse_body(body.dump(), "it") == body


def test_golden_leaf() -> None:
    body = HashedRekord.of(LOGGED).dump()
    assert body.decode() == GOLDEN
    assert leaf_hash(body).hex() == GOLDEN_LEAF
    assert leaf_hash(body) == hashlib.sha256(b"\0" + GOLDEN.encode()).digest()


def test_what_a_body_records() -> None:
    other = Verifier(b"other")
    bodies: list[Any] = [
        DsseV002(b"q" * 32, ((b"another", other), (b"signature", Verifier(b"key")))),
        DsseV001(b"e" * 32, b"q" * 32, ((b"signature", Verifier(b"key").pem),)),
        HashedRekord.of(LOGGED),
    ]
    for body in bodies:
        assert body.differs(LOGGED) is None
        for changed, said in (
            (LoggedSignature(b"x" * 32, b"x" * 32, b"signature", Verifier(b"key")), "of"),
            (LoggedSignature(b"p" * 32, b"q" * 32, b"another one", Verifier(b"key")), "signature"),
            (LoggedSignature(b"p" * 32, b"q" * 32, b"signature", other), "another key"),
            (
                LoggedSignature(b"p" * 32, b"q" * 32, b"signature", Verifier(certificate=b"key")),
                "key",
            ),
        ):
            assert said in (body.differs(changed) or "it differs in nothing")
    swapped = DsseV002(b"q" * 32, ((b"signature", other), (b"another", Verifier(b"key"))))
    assert swapped.differs(LOGGED) == "it names another key or certificate"


def reshaped(*path: str, to: Any = None, drop: bool = False) -> bytes:
    value = json.loads(GOLDEN)
    inner = value
    for name in path[:-1]:
        inner = inner[name]
    if drop:
        del inner[path[-1]]
    else:
        inner[path[-1]] = to
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


REKORD = ("spec", "hashedRekordV002")
VERIFIES = (*REKORD, "signature", "verifier")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is not valid JSON"),
        (b"{}", "kind must be a string"),
        (GOLDEN.encode() + b"\n", "is not canonical JSON"),
        (GOLDEN.replace(",", ", ").encode(), "is not canonical JSON"),
        (GOLDEN.replace("hashedrekord", "hashed\\u0072ekord").encode(), "is not canonical JSON"),
        (GOLDEN.replace('"kind":', '"kind":"x","kind":').encode(), "key 'kind' is given twice"),
        (reshaped("kind", to="intoto"), "of the kind intoto 0.0.2, which is not read"),
        (reshaped("apiVersion", to="0.0.1"), "of the kind hashedrekord 0.0.1, which is not read"),
        (reshaped("more", to=1), "there is no member 'more'"),
        (reshaped("spec", to={"dsseV002": {}}), "there is no member 'dsseV002'"),
        (reshaped(*REKORD, "more", to=1), "there is no member 'more'"),
        (reshaped(*REKORD, "data", drop=True), "data must be an object"),
        (reshaped(*REKORD, "data", "algorithm", to="SHA2_512"), "it must be SHA2_256"),
        (reshaped(*REKORD, "data", "digest", to="cA=="), "digest has 1 bytes, not 32"),
        (reshaped(*REKORD, "signature", "content", to=""), "content has 0 bytes"),
        (reshaped(*REKORD, "signature", "content", to="c2lnbmF0dXJl="), "is not standard base64"),
        (reshaped(*REKORD, "signature", "content", to="c2lnbmF0dXI"), "is not standard base64"),
        (reshaped(*REKORD, "signature", "content", to="AB=="), "is not standard base64"),
        (reshaped(*VERIFIES, "keyDetails", to="PKIX_NEW"), "keyDetails is 'PKIX_NEW'"),
        (reshaped(*VERIFIES, "publicKey", drop=True), "either a publicKey or an x509Certificate"),
        (reshaped(*VERIFIES, "x509Certificate", to={"rawBytes": "AAAA"}), "either a publicKey or"),
    ],
)
def test_no_other_body_is_one(data: bytes, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_body(data, "it")


def test_pem_is_spelled_as_rekor_spells_it() -> None:
    pem = Verifier(bytes(range(100))).pem.decode()
    lines = pem.splitlines()
    assert lines[0] == "-----BEGIN PUBLIC KEY-----"
    assert [len(line) for line in lines[1:-1]] == [64, 64, 8]
    assert Verifier(certificate=b"x").pem == (
        b"-----BEGIN CERTIFICATE-----\neA==\n-----END CERTIFICATE-----\n"
    )


def test_requests_to_rekor_v1() -> None:
    value = json.loads(request_v1(b'{"payload":""}', [Verifier(b"key")]))
    content = value["spec"]["proposedContent"]
    assert (value["kind"], value["apiVersion"]) == ("dsse", "0.0.1")
    assert content["envelope"] == '{"payload":""}'
    assert base64.b64decode(content["verifiers"][0]).startswith(b"-----BEGIN PUBLIC KEY-----\n")


def test_entries_as_protobufs_json_leaves_them() -> None:
    """Zeros and nulls may be left out: a bundle's writer drops what Rekor's server spells out."""
    proof = InclusionProof(0, b"r" * 32, 1, (), b"note\n")
    entry = LogEntry(0, b"i" * 32, "hashedrekord", "0.0.2", 0, None, proof, b"body")
    value = entry.to_json()
    assert LogEntry.from_json(value, "it") == entry
    for name in ("logIndex", "integratedTime", "inclusionPromise"):
        del value[name]
    for name in ("logIndex", "hashes"):
        del value["inclusionProof"][name]
    assert LogEntry.from_json(value, "it") == entry


@pytest.mark.parametrize("text", ["01", "+1", "-1", "1.0", " 1", "", "9223372036854775808", "١"])
def test_counts_have_one_spelling(text: str) -> None:
    entry = LogEntry(0, None, "k", "v", 0, None, None, b"body").to_json()
    with pytest.raises(InputError, match=r"^it: logIndex is .*, which is no count$"):
        LogEntry.from_json(entry | {"logIndex": text}, "it")
    with pytest.raises(InputError, match=r"^it: logIndex must be a string$"):
        LogEntry.from_json(entry | {"logIndex": 1}, "it")


@pytest.mark.parametrize("value", [{}, [], {"body": "AAAA"}, {"body": "e30=", "verification": {}}])
def test_what_is_no_entry_of_rekor_v1(value: Any) -> None:
    with pytest.raises(InputError, match=r"^it"):
        entry_from_v1(value, "it")
