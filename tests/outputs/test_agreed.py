"""Which NAR may be taken for a path: never one that the policy does not stand for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from nix_seed.core.digests import Digest, NarHash
from nix_seed.core.errors import InputError
from nix_seed.formats.intoto.statement import Commit, Statement
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.outputs.rules.agreed import (
    ANYTHING,
    NotServed,
    Question,
    Served,
    SetAside,
    Word,
    agreed,
    judge_statement,
)
from nix_seed.outputs.rules.statement import (
    MOST_OUTPUTS,
    PREDICATE_TYPE,
    OutputFact,
    OutputsStatement,
    make_statement,
    outputs_subject,
    read_statement,
    split_outputs,
)
from nix_seed.trust.rules.claims import SignedEnvelope
from nix_seed.trust.rules.policy import Builder, OutputsRule, Policy
from nix_seed.trust.rules.policy_file import parse_policy
from nix_seed.trust.rules.quorum import independent_builders
from nix_seed.trust.rules.signer import CertificateIdentity
from support.trust import World

SYSTEM = "x86_64-linux"
PATH = StorePath(f"{'a' * 32}-hello-1.0")
LIBRARY = StorePath(f"{'b' * 32}-libhello-1.0")
HASHES = [NarHash(f"{number}" * 64) for number in range(3)]


def _builder(number: int, operator: int) -> Builder:
    signer = CertificateIdentity("https://issuer.example", f"builder {number}")
    where = f"operator {operator}"
    return Builder(f"b{number}", signer, frozenset({SYSTEM}), where, None, None, None, None)


def _policy(tmp: World, rule: OutputsRule, builders: Sequence[Builder], threshold: int) -> Policy:
    now = datetime(2026, 6, 1, tzinfo=UTC)
    policy = parse_policy(tmp.policy().encode(), "trust.toml", now)
    quorum = replace(policy.quorum, threshold=threshold, distinct=("operator",))
    return replace(policy, outputs=rule, builders=tuple(builders), quorum=quorum)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def _word(builder: Builder, nar_hash: NarHash, reason: str = "") -> Word:
    said = Digest.of(f"{builder.id} {nar_hash} {reason}".encode())
    return Word(builder, OutputFact(PATH, nar_hash, 8, (LIBRARY,)), said, reason)


_SAYINGS = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from(HASHES), st.sampled_from(["", "no log"])),
    max_size=8,
)


@given(
    sayings=_SAYINGS,
    operators=st.lists(st.integers(0, 3), min_size=5, max_size=5),
    threshold=st.integers(1, 3),
    rule=st.sampled_from(["own", "quorum", "none"]),
    order=st.randoms(use_true_random=False),
)
def test_what_is_served_is_what_the_policy_stands_for(
    world: World,
    sayings: list[tuple[int, NarHash, str]],
    operators: list[int],
    threshold: int,
    rule: OutputsRule,
    order: object,
) -> None:
    builders = [_builder(number, operators[number]) for number in range(5)]
    policy = _policy(world, rule, builders[:4], threshold)  # the fifth is a stranger
    words = [_word(builders[who], said, reason) for who, said, reason in sayings]
    found = agreed(PATH, words, policy)
    mixed = list(words)
    order.shuffle(mixed)  # type: ignore[attr-defined]
    assert agreed(PATH, mixed, policy) == found
    known = [word for word in words if word.builder in policy.builders]
    counting = {
        said: {word.builder for word in known if word.nar_hash == said and not word.reason}
        for said in HASHES
    }
    if rule == "none":
        assert isinstance(found, NotServed)
    elif rule == "own":
        # Nobody can block what any builder of the policy says.
        assert isinstance(found, Served) == any(counting.values())
    if isinstance(found, Served):
        mine = [each for each in policy.builders if each in counting[found.nar_hash]]
        assert set(found.builders) <= set(mine)
        assert found.builders
        others = {word for word in known if word.nar_hash != found.nar_hash}
        # Whoever says otherwise is named.
        assert set(found.dissents) == others
        if rule == "quorum":
            independent = independent_builders(mine, policy.quorum.distinct)
            assert len(independent) >= threshold
            assert not others
    elif rule == "quorum" and len({word.nar_hash for word in known}) > 1:
        assert found.against
        for word in found.against:
            assert word.builder.id in found.reason


@given(sayings=_SAYINGS, rule=st.sampled_from(["own", "quorum"]))
def test_a_word_more_never_brings_another_nar_into_a_quorum(
    world: World, sayings: list[tuple[int, NarHash, str]], rule: OutputsRule
) -> None:
    builders = [_builder(number, number) for number in range(5)]
    policy = _policy(world, rule, builders, 2)
    words = [_word(builders[who], said, reason) for who, said, reason in sayings]
    found = [agreed(PATH, words[:end], policy) for end in range(len(words) + 1)]
    served = {each.nar_hash for each in found if isinstance(each, Served)}
    if rule == "quorum":
        assert len(served) <= 1


def test_own_takes_what_most_say_and_names_who_says_otherwise(world: World) -> None:
    builders = [_builder(number, number) for number in range(3)]
    policy = _policy(world, "own", builders, 2)
    words = [_word(builders[0], HASHES[1]), *(_word(each, HASHES[0]) for each in builders[1:])]
    found = agreed(PATH, words, policy)
    assert isinstance(found, Served)
    assert found.nar_hash == HASHES[0]
    assert found.words == "on the word of b1, b2; b0 got 1 other NAR"


def test_other_references_are_another_answer(world: World) -> None:
    builders = [_builder(number, number) for number in range(2)]
    policy = _policy(world, "quorum", builders, 2)
    one = _word(builders[0], HASHES[0])
    other = replace(one, builder=builders[1], fact=replace(one.fact, references=()))
    found = agreed(PATH, [one, other], policy)
    assert isinstance(found, NotServed)
    assert found.reason == "builders disagree: b0, b1 built different things"


def test_what_could_not_be_read_bars_a_quorum_and_not_ones_own(world: World) -> None:
    builders = [_builder(number, number) for number in range(2)]
    words = [_word(each, HASHES[0]) for each in builders]
    quorum, own = (_policy(world, rule, builders, 2) for rule in ("quorum", "own"))
    assert isinstance(agreed(PATH, words, quorum), Served)
    assert isinstance(agreed(PATH, words, own, ["bundle 1 is unreadable"]), Served)
    found = agreed(PATH, words, quorum, ["bundle 1 is unreadable"])
    assert isinstance(found, NotServed)
    assert "could not be checked: bundle 1 is unreadable" in found.reason


def test_a_word_is_of_its_path_alone(world: World) -> None:
    builders = [_builder(number, number) for number in range(2)]
    policy = _policy(world, "quorum", builders, 2)
    one, two = (_word(each, HASHES[0]) for each in builders)
    other = replace(two, fact=replace(two.fact, path=LIBRARY))
    found = agreed(PATH, [one, other], policy)
    assert isinstance(found, NotServed)
    assert found.reason == "1 of the 2 builders wanted agree"
    assert not isinstance(agreed(LIBRARY, [one], policy), Served)


def test_two_builders_of_one_operator_are_one_voice(world: World) -> None:
    builders = [_builder(0, 0), _builder(1, 0), _builder(2, 1)]
    policy = _policy(world, "quorum", builders, 2)
    words = [_word(each, HASHES[0]) for each in builders]
    found = agreed(PATH, words[:2], policy)
    assert isinstance(found, NotServed)
    assert found.reason == "1 of the 2 builders wanted agree"
    assert isinstance(agreed(PATH, words, policy), Served)


def test_what_is_served_is_of_a_word_that_counts(world: World) -> None:
    """Derivers may differ. The first builder's word, which no log holds, speaks for nothing."""
    builders = [_builder(number, number) for number in range(2)]
    policy = _policy(world, "own", builders, 2)
    unlogged, logged = _word(builders[0], HASHES[0], "no log"), _word(builders[1], HASHES[0])
    deriver = StorePath(f"{'d' * 32}-hello-1.0.drv")
    odd = replace(unlogged, fact=replace(unlogged.fact, deriver=deriver))
    found = agreed(PATH, [odd, logged], policy)
    assert isinstance(found, Served)
    assert (found.builders, found.fact) == ((builders[1],), logged.fact)


SAID = OutputsStatement(
    source="https://forge.example/owner/project",
    commit=Commit("c0ffee" + "0" * 34),
    system=SYSTEM,
    seed=Digest("5" * 64),
    builder="alice",
    finished_on="2026-01-31T12:34:56Z",
    outputs=(
        OutputFact(
            PATH,
            HASHES[1],
            304,
            (PATH, LIBRARY),
            StorePath(f"{'c' * 32}-hello-1.0.drv"),
            (LIBRARY,),
            ("packages.default", "packages.hello"),
        ),
        OutputFact(LIBRARY, HASHES[2], 120, ()),
    ),
    ref="refs/heads/main",
)


@pytest.mark.parametrize(
    ("said", "asked", "why"),
    [
        ({}, ANYTHING, ""),
        ({}, Question(SAID.commit, SAID.system, SAID.seed), ""),
        ({"builder": "b1"}, ANYTHING, "it names the builder 'b1', but b0 signed it"),
        ({"source": "https://forge.example/fork"}, ANYTHING, "it is about https://forge.example/"),
        ({"system": "aarch64-linux"}, ANYTHING, "b0 does not build for aarch64-linux"),
        ({}, Question(Commit("0" * 40)), "it is about the commit c0ffee"),
        ({}, Question(system="aarch64-linux"), "it is about x86_64-linux"),
        ({}, Question(seed=Digest("6" * 64)), "it was built in the seed sha256:5"),
    ],
)
def test_whose_word_a_statement_is(
    world: World, said: dict[str, Any], asked: Question, why: str
) -> None:
    builder = _builder(0, 0)
    policy = replace(_policy(world, "own", [builder], 1), source=SAID.source)
    envelope = SignedEnvelope(builder.signer, (), frozenset({"log"}), None)
    now = datetime(2026, 6, 1, tzinfo=UTC)
    changed = replace(SAID, **{"builder": "b0", **said})
    found = judge_statement(changed, envelope, policy, now, asked)
    if why:
        assert isinstance(found, SetAside)
        assert found.reason.startswith(why)
    else:
        assert found == (builder, "")
    stranger = replace(envelope, signer=_builder(1, 1).signer)
    assert isinstance(judge_statement(changed, stranger, policy, now, asked), SetAside)


def test_golden_statement() -> None:
    golden = Path(__file__).parent / "golden" / "statement.json"
    text = make_statement(SAID).dump()
    assert text == golden.read_bytes().rstrip(b"\n")
    assert read_statement(Statement.parse(text, "the statement"), "it") == SAID
    assert outputs_subject(SAID.commit).digest == Digest.parse(
        "sha256:0bf10e8f803894f455471f9b632e3b08210670b530b82b5d3d2093be9f7057ff"
    )


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda said: said["subject"].pop(0), "its subjects or members are not those"),
        (lambda said: said["subject"].pop(), "its subjects or members are not those"),
        (
            lambda said: said["subject"][0]["digest"].update(sha256="9" * 64),
            "its subjects or members are not those",
        ),
        (lambda said: said["predicate"].update(offline=False), "offline is false"),
        (lambda said: said["predicate"].update(more=1), "its subjects or members are not those"),
        (lambda said: said["predicate"]["outputs"].reverse(), "outputs must be sorted by path"),
        (lambda said: said["predicate"].update(outputs=[]), "from 1 to 1000 are read"),
        (
            lambda said: said["predicate"]["outputs"][0].update(path="/nix/store/../etc"),
            "is not a path in /nix/store",
        ),
        (
            lambda said: said["predicate"]["outputs"][0]["references"].reverse(),
            "its lists must be sorted",
        ),
        (lambda said: said["predicate"].update(finishedOn="yesterday"), "is not a time in UTC"),
        (lambda said: said.update(predicateType="urn:else"), "predicateType is 'urn:else'"),
    ],
)
def test_what_is_no_statement(change: object, problem: str) -> None:
    value = json.loads(make_statement(SAID).dump())
    change(value)  # type: ignore[operator]
    with pytest.raises(InputError, match=problem):
        read_statement(Statement.from_json(value, "it"), "it")


def test_more_outputs_than_a_statement_has_are_several() -> None:
    paths = [StorePath(f"{number:032d}".replace("e", "a") + "-x") for number in range(2500)]
    facts = [OutputFact(path, HASHES[0], 8, ()) for path in paths]
    parts = list(split_outputs(facts[::-1]))
    assert [len(part) for part in parts] == [MOST_OUTPUTS, MOST_OUTPUTS, 500]
    assert [fact for part in parts for fact in part] == facts
    assert PREDICATE_TYPE == "urn:nix-seed:outputs:v1"
