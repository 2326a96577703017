"""No single change of anything signed or proven may verify."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from attacks.logs import known_witness
from nix_seed.core import canonical_json
from nix_seed.trust.rules import claims
from nix_seed.trust.rules.claims import claims_of, examine, trust_of
from nix_seed.trust.rules.policy import Policy
from nix_seed.trust.rules.policy_file import parse_policy
from nix_seed.trust.rules.quorum import evaluate_quorum
from support.trust import World

NOW = datetime(2026, 6, 1, tzinfo=UTC)
Path_ = tuple[str | int, ...]

# Nothing signs these, and nothing is decided by them.
UNSIGNED: set[Path_] = {
    ("verificationMaterial", "publicKey"),
    ("verificationMaterial", "publicKey", "hint"),
    ("dsseEnvelope", "signatures", 0, "keyid"),
    ("mediaType",),
}
_ENTRY = ("verificationMaterial", "tlogEntries", 0)
# Other ways to write the same: absent, null and zero are one in a log entry, where only the proof
# says which log it is of; and one entry given twice is one entry.
SAME: set[tuple[Path_, str]] = {
    (_ENTRY[:2], "list"),
    *(((*_ENTRY, "logId"), new) for new in ("ellipsis", "NoneType")),
    *(((*_ENTRY, "integratedTime"), new) for new in ("ellipsis", "NoneType")),
    ((*_ENTRY, "inclusionPromise"), "ellipsis"),
}


class Target:
    """A bundle that verifies, alone enough for its policy, and the check that it does."""

    def __init__(self, root: Path) -> None:
        world = World(root)
        world.quorum |= {"threshold": "1", "witnesses": "1"}
        witness = known_witness(world)
        world.log.append_bodies([b"leaf %d" % number for number in range(5)])
        self.value = world.bundle(world.sign(world.says("alice"))).to_json()
        witness.cosign(self.value["verificationMaterial"]["tlogEntries"][0])
        self.policy: Policy = parse_policy(world.policy().encode(), "trust.toml", NOW)
        self.asked = world.says("alice").agreement

    def verifies(self, text: bytes) -> bool:
        found = examine("here", text, trust_of(self.policy, None))
        claims = claims_of([found], self.policy)
        return evaluate_quorum(self.policy, self.asked, claims, NOW).met


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Target:
    return Target(tmp_path_factory.mktemp("mutations"))


def places(value: Any, at: Path_ = ()) -> Iterator[Path_]:
    """Every member and element of a JSON value, containers too."""
    if at:
        yield at
    if isinstance(value, dict):
        for key, child in value.items():
            yield from places(child, (*at, key))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from places(child, (*at, index))


def get(value: Any, place: Path_) -> Any:
    for step in place:
        value = value[step]
    return value


def put(value: Any, place: Path_, new: Any) -> Any:
    """A copy of *value* with *new* at *place*; ``...`` removes it."""
    changed = copy.deepcopy(value)
    parent = get(changed, place[:-1])
    if new is ...:
        del parent[place[-1]]
    else:
        parent[place[-1]] = new
    return changed


def mutations(old: Any) -> Iterator[Any]:
    """Other values for a member, of its own type and of others."""
    yield ...
    others: list[Any] = [None, True, 0, -1, "", "x", [], {}, [[]]]
    yield from (value for value in others if value != old)
    if isinstance(old, str):
        yield from (old + "0", old[:-1], old.upper(), old.lower(), old + "\n", " " + old)
        yield from _bits(old)
    if isinstance(old, int) and not isinstance(old, bool):
        yield from (old + 1, old - 1, str(old), float(old) + 0.5)
    if isinstance(old, list) and old:
        yield from (old[:-1], old + old[:1], old[::-1])
    if isinstance(old, dict) and old:
        yield from ([old], list(old))


def _bits(old: str) -> Iterator[str]:
    """Each of some bits of the bytes that base64 text stands for, turned."""
    try:
        raw = base64.b64decode(old, validate=True)
    except ValueError:
        return
    for at in {0, len(raw) // 3, len(raw) // 2, len(raw) - 1} if raw else ():
        turned = bytearray(raw)
        turned[at] ^= 1 << (at % 8)
        yield base64.b64encode(turned).decode()


def test_the_target_itself_verifies(target: Target) -> None:
    assert target.verifies(canonical_json.dumps(target.value))
    assert target.verifies(json.dumps(target.value, indent=2).encode())


def test_no_mutation_of_a_member_verifies(target: Target) -> None:
    tried, verified = 0, []
    for place in places(target.value):
        old = get(target.value, place)
        for new in () if place in UNSIGNED else mutations(old):
            if new == old and type(new) is type(old):
                continue
            tried += 1
            if target.verifies(json.dumps(put(target.value, place, new)).encode()):
                verified.append((place, type(new).__name__))
    assert set(verified) == SAME
    assert len(verified) == len(SAME)
    assert tried > 300


def test_what_is_not_signed_decides_nothing(target: Target) -> None:
    hint = ("verificationMaterial", "publicKey", "hint")
    assert target.verifies(canonical_json.dumps(put(target.value, hint, "someone else")))


@pytest.mark.parametrize(
    "where",
    [
        ("dsseEnvelope", "payload"),
        ("verificationMaterial", "tlogEntries", 0, "canonicalizedBody"),
    ],
    ids=["statement", "log entry's body"],
)
def test_no_mutation_inside_a_payload_verifies(target: Target, where: Path_) -> None:
    inner = json.loads(base64.b64decode(get(target.value, where)))
    for place in places(inner):
        for new in mutations(get(inner, place)):
            if new == get(inner, place) and type(new) is type(get(inner, place)):
                continue
            text = base64.b64encode(json.dumps(put(inner, place, new)).encode()).decode()
            assert not target.verifies(canonical_json.dumps(put(target.value, where, text))), place


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_flipped_bit_verifies_as_another_claim(target: Target, data: st.DataObject) -> None:
    """Any bit of the bundle's bytes: refused, or it was of something that nothing signs."""
    text = bytearray(canonical_json.dumps(target.value))
    bit = data.draw(st.integers(0, len(text) * 8 - 1))
    text[bit // 8] ^= 1 << (bit % 8)
    if target.verifies(bytes(text)):
        changed = json.loads(bytes(text))
        differing = [
            place
            for place in places(target.value)
            if not isinstance(get(target.value, place), dict | list)
            and _found(changed, place) != get(target.value, place)
        ]
        assert set(differing) <= UNSIGNED


def _found(value: Any, place: Path_) -> Any:
    try:
        return get(value, place)
    except (KeyError, IndexError, TypeError):
        return ...


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.binary(max_size=200))
def test_no_bytes_crash_the_verifier(target: Target, text: bytes) -> None:
    found = examine("here", text, trust_of(target.policy, None))
    assert not found.verdict.verified
    assert found.verdict.ground.value in ("malformed", "too large")


def test_an_error_inside_is_not_a_yes(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """A judge that breaks leaves the bundle unchecked, whatever its signature."""

    def broken(*_: object) -> Any:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(claims, "judge_logs", broken)
    found = examine("here", canonical_json.dumps(target.value), trust_of(target.policy, None))
    assert found.verdict.fate.value == "could not check"
    assert "an unexpected ZeroDivisionError in judging its logs" in found.verdict.reason
    assert claims_of([found], target.policy) == ()
