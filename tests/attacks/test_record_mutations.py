"""No single change of a promotion record, of a member's proof or of the evidence may pass."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from attacks.promoted import PromotedWorld
from attacks.test_mutations import UNSIGNED, get, mutations, places, put
from nix_seed.core import canonical_json
from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, InputError
from nix_seed.formats.intoto.statement import (
    PAYLOAD_TYPE,
    Statement,
    check_promotion,
    promotion_statement,
)
from nix_seed.release.rules.record import EXPECTED, promoter_trust, records_of, stands
from nix_seed.release.rules.tree import Evidence, MemberProof, Vote
from nix_seed.trust.rules.claims import examine
from nix_seed.trust.rules.policy import LoggedAt
from nix_seed.trust.rules.policy_file import parse_policy
from support.trust import COMMIT, SYSTEM

NOW = datetime(2026, 6, 1, tzinfo=UTC)
_ENTRY = ("verificationMaterial", "tlogEntries", 0)
SAME = {
    (_ENTRY[:2], "list"),
    *(((*_ENTRY, "logId"), new) for new in ("ellipsis", "NoneType")),
    *(((*_ENTRY, "integratedTime"), new) for new in ("ellipsis", "NoneType")),
    ((*_ENTRY, "inclusionPromise"), "ellipsis"),
}


class Target:
    """A record that stands, its proof and its evidence."""

    def __init__(self, root: Path) -> None:
        world = PromotedWorld(root)
        self.plan = world.planned()
        world.log.append_bodies([b"leaf %d" % number for number in range(5)])
        signed = world.keys["rita"].sign(PAYLOAD_TYPE, self.plan.payload)
        self.bundle = world.bundle(signed).to_json()
        self.policy = parse_policy(world.policy().encode(), "trust.toml", NOW)
        self.proof = self.plan.release.proof(SYSTEM)
        logged = (LoggedAt("log", 0, Digest.of(b"leaf")),)
        votes = tuple(
            Vote(system, name, Digest.of(name.encode()), logged)
            for system in sorted(world.images)
            for name in ("alice", "bob")
        )
        self.evidence = Evidence(self.plan.release, votes)

    def standing(self, text: bytes) -> bytes | None:
        """The payload of the record that *text* makes stand, if any."""
        trust = promoter_trust(self.policy, None)
        found = examine("here", text, trust, EXPECTED)
        good = [each for each in records_of([found], self.policy) if stands(each, self.policy)]
        return good[0].payload if good else None

    def proves(self, text: bytes) -> bool:
        """Whether *text* proves what the record signs."""
        try:
            proof = MemberProof.parse(text, "x")
            proof.check(self.plan.release.head)
        except (CheckedFalse, InputError):
            return False
        return proof.leaf.system == SYSTEM and proof.leaf.commit == COMMIT

    def evidenced(self, text: bytes) -> bool:
        """Whether *text* is a document that could be this release's evidence."""
        try:
            return Evidence.parse(text, "x").release == self.plan.release
        except InputError:
            return False


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Target:
    return Target(tmp_path_factory.mktemp("records"))


def test_the_targets_themselves_pass(target: Target) -> None:
    assert target.standing(canonical_json.dumps(target.bundle)) == target.plan.payload
    assert target.proves(target.proof.dump())
    assert target.evidenced(target.evidence.dump())


def test_no_mutation_of_the_bundle_stands(target: Target) -> None:
    tried, stood = 0, []
    for place in places(target.bundle):
        old = get(target.bundle, place)
        for new in () if place in UNSIGNED else mutations(old):
            if new == old and type(new) is type(old):
                continue
            tried += 1
            if target.standing(json.dumps(put(target.bundle, place, new)).encode()):
                stood.append((place, type(new).__name__))
    assert set(stood) == SAME
    assert len(stood) == len(SAME)
    assert tried > 300


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_no_flipped_bit_makes_another_record_stand(target: Target, data: st.DataObject) -> None:
    text = bytearray(canonical_json.dumps(target.bundle))
    bit = data.draw(st.integers(0, len(text) * 8 - 1))
    text[bit // 8] ^= 1 << (bit % 8)
    assert target.standing(bytes(text)) in (None, target.plan.payload)


def test_no_mutation_of_the_statement_is_a_record(target: Target) -> None:
    """Whatever a promoter signs is the one statement that its predicate implies, or no record."""
    value = json.loads(target.plan.payload)
    tried = 0
    for place in places(value):
        for new in mutations(get(value, place)):
            if new == get(value, place) and type(new) is type(get(value, place)):
                continue
            tried += 1
            text = canonical_json.dumps(put(value, place, new))
            try:
                said = check_promotion(Statement.parse(text, "x"), "x")
            except InputError:
                continue
            assert promotion_statement(said).dump() == text, place
            assert said != target.plan.predicate, place
    assert tried > 200


def test_no_mutation_of_a_proof_proves(target: Target) -> None:
    value = json.loads(target.proof.dump())
    tried = 0
    for place in places(value):
        for new in mutations(get(value, place)):
            if new == get(value, place) and type(new) is type(get(value, place)):
                continue
            tried += 1
            assert not target.proves(json.dumps(put(value, place, new)).encode()), place
            assert not target.proves(canonical_json.dumps(put(value, place, new))), place
    assert tried > 80


def test_no_byte_of_a_proof_may_change(target: Target) -> None:
    text = target.proof.dump()
    for position in range(len(text)):
        for bit in range(8):
            turned = bytearray(text)
            turned[position] ^= 1 << bit
            assert not target.proves(bytes(turned)), (position, bit)
    for other in (text + b"\n", b" " + text, text[:-1], text.replace(b":", b": ", 1)):
        assert not target.proves(other)


def test_no_byte_of_the_evidence_may_change_unseen(target: Target) -> None:
    """A record names the document by its digest; and what is read has one spelling only."""
    text = target.evidence.dump()
    for position in range(0, len(text), 3):
        turned = bytearray(text)
        turned[position] ^= 1 << (position % 8)
        assert Digest.of(bytes(turned)) != target.evidence.digest
        if target.evidenced(bytes(turned)):
            assert Evidence.parse(bytes(turned), "x").dump() == bytes(turned)
    for other in (text + b"\n", b" " + text, text.replace(b":", b": ", 1)):
        assert not target.evidenced(other)


def test_evidence_lists_each_system_once_and_in_order(target: Target) -> None:
    value = json.loads(target.evidence.dump())
    first, second = value["members"]
    for members in ([second, first], [first, second, second], [first], [first, first]):
        text = canonical_json.dumps({"members": members})
        assert not target.evidenced(text)
    votes = first["attestations"][::-1]
    reordered = [first | {"attestations": votes}, second]
    assert not target.evidenced(canonical_json.dumps({"members": reordered}))


@settings(max_examples=200, deadline=None)
@given(text=st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_no_bytes_crash_a_parser(target: Target, text: bytes) -> None:
    assert target.standing(text) is None
    assert not target.proves(text)
    assert not target.evidenced(text)
    with pytest.raises(InputError):
        check_promotion(Statement.parse(text, "x"), "x")


_JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), new=_JSON)
def test_no_value_anywhere_crashes_a_parser(target: Target, data: st.DataObject, new: Any) -> None:
    """Any JSON in the place of any member: read as it is written, or refused."""
    for good in (target.proof.dump(), target.evidence.dump(), target.plan.payload):
        value = json.loads(good)
        place = data.draw(st.sampled_from(sorted(places(value), key=str)))
        text = canonical_json.dumps(put(value, place, new))
        if text == good:
            continue
        assert not target.proves(text)
        target.evidenced(text)
        assert target.standing(text) is None


def test_an_envelope_holds_base64_of_the_statement(target: Target) -> None:
    payload = target.bundle["dsseEnvelope"]["payload"]
    assert base64.b64decode(payload) == target.plan.payload
