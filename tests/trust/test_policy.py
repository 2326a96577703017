"""trust.toml: lines in errors, the template, independent builders, and changes that are signed."""

from __future__ import annotations

import itertools
import random
import re
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from nix_seed.core.digests import Digest
from nix_seed.core.errors import InputError
from nix_seed.formats.intoto.statement import PAYLOAD_TYPE
from nix_seed.trust.rules.claims import Discount, too_few_logs, untimely
from nix_seed.trust.rules.policy import Attribute, Builder, Policy
from nix_seed.trust.rules.policy_change import (
    build_change_statement,
    compare_policies,
    evaluate_change,
)
from nix_seed.trust.rules.policy_checks import find_lines, policy_warnings
from nix_seed.trust.rules.policy_file import parse_policy
from nix_seed.trust.rules.policy_template import PolicyTemplate
from nix_seed.trust.rules.quorum import independent_builders
from nix_seed.trust.rules.signer import CertificateIdentity
from nix_seed.trust.sign import KeySigner
from support.trust import World

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def parse(text: str) -> Policy:
    return parse_policy(text.encode(), "trust.toml", NOW)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.fresh(tmp_path)


def test_lines_of_tables_and_keys() -> None:
    text = '''# a comment [not.a.table]
version = 1
list = ["a",   # with = in a comment
  "b = c"]
text = """
inside = 1
[[inside]]
"""
[a.b]
c.d = 1
[[e]]
f = '"""'
[[e]]
f = { g = 1 }
[e.h]
i = 1
'''
    assert find_lines(text) == {
        (): 1,
        ("version",): 2,
        ("list",): 3,
        ("text",): 5,
        ("a", "b"): 9,
        ("a", "b", "c"): 10,
        ("a", "b", "c", "d"): 10,
        ("e", 0): 11,
        ("e", 0, "f"): 12,
        ("e", 1): 13,
        ("e", 1, "f"): 14,
        ("e", 1, "f", "g"): 14,
        ("e", 1, "h"): 15,
        ("e", 1, "h", "i"): 16,
    }


@given(st.text(alphabet="a=[]{}\"'#\n\\ .", max_size=60))
def test_finding_lines_ends_on_any_text(text: str) -> None:
    assert find_lines(text)[()] == 1


def test_an_error_names_the_line_of_the_very_key(world: World) -> None:
    text = world.policy().replace('operator = "bob ltd"', 'operator = "bob ltd"\nsistems = []')
    line = text[: text.index("sistems")].count("\n") + 1
    with pytest.raises(InputError) as raised:
        parse(text)
    assert raised.value.message == f"trust.toml, line {line}: [[builders]] has no key 'sistems'"
    assert raised.value.hint == "did you mean systems?"


def test_a_mistyped_key_that_is_needed_is_shown_where_it_stands(world: World) -> None:
    text = re.sub("(?m)^threshold", "treshold", world.policy())
    line = text[: text.index("treshold")].count("\n") + 1
    with pytest.raises(InputError) as raised:
        parse(text)
    wanted = f"trust.toml, line {line}: [quorum] needs threshold, a whole number"
    assert (raised.value.message, raised.value.hint) == (wanted, "is treshold meant for it?")


def test_every_line_of_the_policy_matters(world: World) -> None:
    """Without any one line it is another policy or none; comments aside there are no idle ones."""
    whole = world.policy()
    policy = parse(whole)
    for number, line in enumerate(whole.splitlines()):
        if not line.strip():
            continue
        rest = whole.splitlines()
        del rest[number]
        try:
            other = parse("\n".join(rest))
        except InputError:
            continue
        changed = [
            name for name in ("source", "quorum", "builders", "logs") if getattr(other, name)
            != getattr(policy, name)
        ]  # fmt: skip
        assert changed, line


ONE, TWO = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"


def test_what_is_accepted_says_how_many_systems_it_had(world: World) -> None:
    """As many as the policy at hand has, where nothing is said."""
    world.head["accepts"] = f'["{ONE}", {{policy = "{TWO}", systems = 3}}]'
    policy = parse(world.policy())
    assert policy.accepts == {Digest.parse(ONE): len(policy.systems), Digest.parse(TWO): 3}
    world.head["accepts"] = f'["{TWO}"]'
    changed = list(compare_policies(parse(world.policy()), policy))
    assert changed == [f"accepts: {TWO} of 1 systems → {ONE} of 1 systems, {TWO} of 3 systems"]


@pytest.mark.parametrize(
    ("accepts", "problem"),
    [
        (f'["{ONE}", {{policy = "{ONE}", systems = 3}}]', "accepts names something twice"),
        (f'[{{policy = "{ONE}", systems = 0}}]', "accepts must be an array of policies"),
        ("[1]", "accepts must be an array of policies"),
        (f'[{{policy = "{ONE}"}}]', "[[accepts]] needs systems, a whole number"),
        (f'[{{policy = "{ONE}", systems = 1, epoch = 1}}]', "[[accepts]] has no key 'epoch'"),
        ('["sha256:1"]', "accepts: "),
    ],
)
def test_what_is_not_accepted(world: World, accepts: str, problem: str) -> None:
    world.head["accepts"] = accepts
    with pytest.raises(InputError) as raised:
        parse(world.policy())
    assert problem in raised.value.message


def test_the_template_is_a_policy() -> None:
    key = KeySigner.generate().public_key.pem.decode()
    text = PolicyTemplate(
        repository="owner/repo",
        source="https://github.com/owner/repo",
        systems=("x86_64-linux", "aarch64-linux"),
        keys=[("alice", key)],
        expires=NOW + timedelta(days=365),
    ).render()
    policy = parse(text)
    assert [builder.id for builder in policy.builders] == ["github", "gitlab", "alice"]
    assert policy.quorum.threshold == 2
    assert policy.builders[0].signer == CertificateIdentity(
        "https://token.actions.githubusercontent.com",
        "https://github.com/owner/repo/.github/workflows/seed.yml@refs/heads/main",
    )
    assert policy.trusted_root == "trusted_root.json"


def test_warnings_say_what_is_allowed_and_unwise(world: World) -> None:
    world.quorum = {"threshold": "1", "distinct": "[]"}
    world.head["expires"] = "2026-06-11T00:00:00Z"
    assert policy_warnings(parse(world.policy()), NOW) == (
        "one builder alone decides: threshold is 1",
        "no log is demanded: what a builder said need not be public",
        "distinct is empty: one operator may run every builder",
        "the policy expires in 10 days",
    )
    world.quorum["threshold"] = "3"
    world.builders["bob"]["revokedAt"] = "2026-01-01T00:00:00Z"
    assert policy_warnings(parse(world.policy()), NOW)[0] == (
        "x86_64-linux: only 2 builders are not revoked by now; what is built from now on cannot "
        "reach 3"
    )


NAMES = st.sampled_from("abc")
PEOPLE = st.lists(st.tuples(NAMES, NAMES), max_size=7)


def people(values: list[tuple[str, str]]) -> list[Builder]:
    return [
        Builder(
            str(number),
            CertificateIdentity("i", str(number)),
            frozenset(),
            operator,
            provider,
            None,
            None,
            None,
        )
        for number, (operator, provider) in enumerate(values)
    ]


def apart(builders: tuple[Builder, ...], distinct: tuple[Attribute, ...]) -> bool:
    return all(
        len({builder.attribute(name) for builder in builders}) == len(builders) for name in distinct
    )


@given(PEOPLE)
def test_independent_builders_are_as_many_as_can_be(values: list[tuple[str, str]]) -> None:
    distinct: tuple[Attribute, ...] = ("operator", "provider")
    everyone = people(values)
    found = independent_builders(everyone, distinct)
    assert apart(found, distinct)
    most = max(
        size
        for size in range(len(everyone) + 1)
        for group in itertools.combinations(everyone, size)
        if apart(group, distinct)
    )
    assert len(found) == most


@given(PEOPLE, st.tuples(NAMES, NAMES))
def test_one_voice_more_never_counts_for_less(
    values: list[tuple[str, str]], more: tuple[str, str]
) -> None:
    distinct: tuple[Attribute, ...] = ("operator", "provider")
    before = independent_builders(people(values), distinct)
    assert len(independent_builders(people([*values, more]), distinct)) >= len(before)


def changed(world: World) -> tuple[Policy, Policy]:
    old = parse(world.policy())
    world.head["epoch"] = "2"
    world.builders.pop("carol")
    return old, parse(world.policy())


def signatures(world: World, old: Policy, new: Policy, *names: str) -> list[bytes]:
    text = build_change_statement(old, new).dump()
    return [world.keys[name].sign(PAYLOAD_TYPE, text).bundle.dump() for name in names]


def test_a_change_is_valid_if_the_old_threshold_signs(world: World) -> None:
    old, new = changed(world)
    found = evaluate_change(old, new, signatures(world, old, new, "alice", "carol"))
    assert found.valid
    assert found.changes == ("epoch: 1 → 2", "builders: carol is gone")
    assert found.signed_by == ("alice", "carol"), "carol still had a say in it"


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ((), "0 of the 2 independent builders of the old policy that must sign did"),
        (("alice",), "1 of the 2 independent builders of the old policy that must sign did"),
        (
            ("alice", "alice"),
            "1 of the 2 independent builders of the old policy that must sign did",
        ),
        (("alice", "mallory"), "1 of the 2 independent builders of the old policy that must sign"),
    ],
)
def test_too_few_signatures(world: World, names: tuple[str, ...], problem: str) -> None:
    old, new = changed(world)
    found = evaluate_change(old, new, signatures(world, old, new, *names))
    assert not found.valid
    assert found.problems[0].startswith(problem)


def test_a_signature_is_on_one_step_only(world: World) -> None:
    """Neither for another new policy, nor from another old one."""
    old, new = changed(world)
    signed = signatures(world, old, new, "alice", "bob")
    world.quorum["threshold"] = "1"
    weaker = parse(world.policy())
    assert not evaluate_change(old, weaker, signed).valid
    world.head["epoch"] = "3"
    later = parse(world.policy())
    onward = signatures(world, new, later, "alice", "bob")
    assert evaluate_change(new, later, onward).valid
    assert not evaluate_change(old, later, onward).valid


def test_the_epoch_must_rise(world: World) -> None:
    old, new = changed(world)
    back = evaluate_change(new, old, signatures(world, new, old, "alice", "bob"))
    assert back.problems == ("the epoch does not rise: 2 before, 1 now",)
    world.quorum["threshold"] = "1"
    same = parse(world.policy())
    assert same.epoch == new.epoch
    stays = evaluate_change(new, same, signatures(world, new, same, "alice", "bob"))
    assert stays.problems == ("the epoch does not rise: 2 before, 2 now",)


def test_a_revoked_builder_changes_no_policy(world: World) -> None:
    world.builders["bob"]["revokedAt"] = "2026-01-01T00:00:00Z"
    old, new = changed(world)
    found = evaluate_change(old, new, signatures(world, old, new, "alice", "bob"))
    assert not found.valid
    assert found.signed_by == ("alice",)
    assert evaluate_change(old, new, signatures(world, old, new, "alice", "carol")).valid


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("expires", "0001-01-01T00:00:00+14:00"),
        ("expires", "9999-12-31T23:59:59-14:00"),
        ("epoch", "9" * 5000),
        ("epoch", "0x" + "f" * 5000),
        ("epoch", str(2**53 + 1)),
    ],
)
def test_numbers_and_times_at_the_edge_are_wrong_input(world: World, key: str, value: str) -> None:
    world.head[key] = value
    with pytest.raises(InputError):
        parse(world.policy())


@pytest.mark.parametrize("number", [80, pytest.param(256, marks=pytest.mark.slow)])
def test_counting_many_builders_takes_bounded_time(number: int) -> None:
    """Three attributes make it three-dimensional matching, which takes exponential time in all."""
    distinct: tuple[Attribute, ...] = ("operator", "provider", "jurisdiction")
    drawn = random.Random(8)
    everyone = [
        replace(
            builder,
            operator=str(drawn.randrange(number // 3)),
            provider=str(drawn.randrange(number // 3)),
            jurisdiction=str(drawn.randrange(number // 3)),
        )
        for builder in people([("", "")] * number)
    ]
    began = time.process_time()
    found = independent_builders(everyone, distinct)
    assert time.process_time() - began < 20
    assert apart(found, distinct)
    assert len(found) >= number // 5


def test_by_two_attributes_the_count_is_exact_for_many() -> None:
    """As many builders as there are edges in a maximum matching of a ring, with chords."""
    everyone = people([(str(n % 60), str((n * 7 + n // 60) % 60)) for n in range(240)])
    assert len(independent_builders(everyone, ("operator", "provider"))) == 60


def test_whose_word_on_outputs_is_enough(world: World) -> None:
    before = parse(world.policy())
    assert before.outputs == "own"
    world.head["outputs"] = '"quorum"'
    after = parse(world.policy())
    assert after.outputs == "quorum"
    assert list(compare_policies(before, after)) == ["outputs: own → quorum"]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ('"all"', "line 6: outputs is 'all'"),
        ('""', "line 6: outputs is empty"),
        ("true", "line 6: outputs must be a string"),
        ('["own"]', "line 6: outputs must be a string"),
    ],
)
def test_no_other_word_on_outputs_is_read(world: World, value: str, problem: str) -> None:
    world.head["outputs"] = value
    with pytest.raises(InputError, match=problem):
        parse(world.policy())


def test_a_revocation_begins_at_its_very_moment(world: World) -> None:
    policy = parse(world.policy())
    moment = datetime(2026, 5, 1, tzinfo=UTC)
    revoked = replace(policy.builders[0], revoked_at=moment)
    said = "2026-04-30T12:00:00Z"
    assert [why for why, _ in untimely(moment, said, revoked, NOW)] == [Discount.REVOKED]
    assert [*untimely(moment - timedelta(seconds=1), said, revoked, NOW)] == []


def test_logs_that_the_policy_does_not_know_are_none(world: World) -> None:
    policy = parse(world.policy())
    assert too_few_logs(["log"], policy) == ""
    assert "in 0 logs of the policy, which demands 1" in too_few_logs(["a", "b"], policy)


def test_a_policy_ends_at_its_very_moment(world: World) -> None:
    world.head["expires"] = "2026-06-01T00:00:01Z"
    assert parse(world.policy()).expires == NOW + timedelta(seconds=1)
    world.head["expires"] = "2026-06-01T00:00:00Z"
    with pytest.raises(InputError, match="expired on 2026-06-01 00:00 UTC, and it is 2026-06-01"):
        parse(world.policy())


def test_a_builder_is_revoked_after_it_begins(world: World) -> None:
    bob = world.builders["bob"]
    bob["notBefore"] = "2026-01-01T00:00:00Z"
    bob["revokedAt"] = "2026-01-01T00:00:01Z"
    assert parse(world.policy()).builders[1].revoked_at is not None
    bob["revokedAt"] = bob["notBefore"]
    with pytest.raises(InputError, match="bob"):
        parse(world.policy())
