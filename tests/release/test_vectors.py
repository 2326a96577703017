"""docs/vectors/promotion.json: what the code makes, and what plain hashing and JSON make of it."""

from __future__ import annotations

import base64
import hashlib
import json
from itertools import pairwise
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from nix_seed.core.digests import Digest
from nix_seed.formats.intoto.statement import Statement, check_promotion
from nix_seed.formats.tlog.merkle import TreeHead
from nix_seed.release.rules.tree import Evidence, MemberProof
from release.rfc6962 import mth, path
from release.vectors import FILE, RELEASES, text

VECTORS: dict[str, Any] = json.loads(FILE.read_bytes())
ALL: list[dict[str, Any]] = VECTORS["releases"]


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_the_file_is_what_its_script_makes() -> None:
    assert FILE.read_text() == text()
    assert [len(each["members"]) for each in ALL] == [size for _, size in RELEASES]


@pytest.mark.parametrize("vector", ALL, ids=lambda vector: str(vector["size"]))
def test_everything_follows_from_the_inputs(vector: dict[str, Any]) -> None:
    """With hashlib and json alone, as another implementation would."""
    algorithm = "sha1" if len(vector["commit"]) == 40 else "sha256"
    key = f"nix-seed/commit/v1\0{algorithm}{vector['commit']}".encode()
    assert vector["commitKey"] == sha256(key)
    leaves = []
    for member in vector["members"]:
        leaf = {
            "domain": "nix-seed/release/v1",
            "commit": {algorithm: vector["commit"]},
            "system": member["system"],
            "narHash": member["narHash"],
            "imageDigest": member["imageDigest"],
        }
        leaves.append(plain(leaf))
        assert member["leaf"].encode() == leaves[-1]
        assert member["leafHash"] == hashlib.sha256(b"\0" + leaves[-1]).hexdigest()
    assert [m["system"] for m in vector["members"]] == sorted(
        m["system"] for m in vector["members"]
    )
    assert vector["root"] == f"sha256:{mth(leaves).hex()}"
    for index, member in enumerate(vector["members"]):
        proof = {
            "leaf": json.loads(leaves[index]),
            "index": index,
            "size": len(leaves),
            "proof": [each.hex() for each in path(index, leaves)],
        }
        assert member["proof"].encode() == plain(proof)
    assert vector["record"] == sha256(vector["statement"].encode())
    assert json.loads(vector["statement"]) == statement(vector, algorithm)
    assert vector["statement"].encode() == plain(json.loads(vector["statement"]))
    assert vector["evidence"]["digest"] == sha256(vector["evidence"]["text"].encode())


def statement(vector: dict[str, Any], algorithm: str) -> dict[str, Any]:
    named = (("index", "index"), ("root", "root"), ("commit", "commitKey"))
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {"name": name, "digest": {"sha256": vector[key].removeprefix("sha256:")}}
            for name, key in named
        ],
        "predicateType": "urn:nix-seed:promotion:v1",
        "predicate": {
            "repository": VECTORS["repository"],
            "commit": {algorithm: vector["commit"]},
            "tree": {"root": vector["root"], "size": vector["size"]},
            "index": vector["index"],
            "policy": vector["policy"],
            "evidence": vector["evidence"]["digest"],
            "previous": vector["previous"],
        },
    }


def plain(value: Any) -> bytes:
    """RFC 8785, as far as these values need it: sorted keys, no spaces, no escapes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


@pytest.mark.parametrize("vector", ALL, ids=lambda vector: str(vector["size"]))
def test_the_signature_is_over_the_statement(vector: dict[str, Any]) -> None:
    envelope = vector["bundle"]["dsseEnvelope"]
    payload = base64.b64decode(envelope["payload"])
    assert payload == vector["statement"].encode()
    kind = envelope["payloadType"]
    pae = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
    assert vector["pae"] == sha256(pae)
    [signature] = envelope["signatures"]
    key: Any = load_pem_public_key(VECTORS["publicKey"].encode())
    key.verify(base64.b64decode(signature["sig"]), pae)


@pytest.mark.parametrize("vector", ALL, ids=lambda vector: str(vector["size"]))
def test_the_product_reads_them(vector: dict[str, Any]) -> None:
    said = check_promotion(Statement.parse(vector["statement"].encode(), "x"), "x")
    head = TreeHead(said.size, said.root.raw)
    for member in vector["members"]:
        proof = MemberProof.parse(member["proof"].encode(), "x")
        proof.check(head)
        assert proof.leaf.commit == said.commit
    evidence = Evidence.parse(vector["evidence"]["text"].encode(), "x")
    assert evidence.digest == said.evidence
    assert evidence.release.head == head


def test_records_follow_one_another() -> None:
    begins = f"nix-seed/ledger/v1\0{VECTORS['repository']}".encode()
    assert VECTORS["ledgerBegins"] == sha256(begins)
    assert ALL[0]["previous"] == []
    for before, after in pairwise(ALL):
        assert after["previous"] == [str(Digest.parse(before["record"]))]
