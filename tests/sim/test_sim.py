"""The simulation, bounded: just below the thresholds, at them, and what is gone meanwhile.

``python bench/simulate.py`` plays every combination.
"""

from __future__ import annotations

import pytest

from sim.episodes import Episode, Severity, expected, judge, releases_without, returning
from sim.hindrance import Hindrance, every_hindrance, may_block, releases_despite
from sim.liars import BY_LOGS, BY_PROMOTERS, BY_REGISTRY
from sim.scene import Terms
from sim.strategies import STRATEGIES, Power

TERMS = Terms(builders=3, threshold=2, logs=2, needed=2, promoters=2, wanted=2)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("spoken", [False, True], ids=["unbuilt", "released"])
def test_no_plan_works_below_the_threshold_of_builders(strategy: str, spoken: bool) -> None:
    """Everything else is the adversary's: all logs, all promoters, the registry."""
    power = Power(builders=1, logs=2, promoters=2, registry=True)
    assert expected(TERMS, power) is Severity.NOTHING
    result = judge(Episode(TERMS, power, strategy, spoken))
    assert result.accepted == ()
    assert result.asked >= 3


@pytest.mark.parametrize(
    ("strategy", "power", "spoken", "severity"),
    [
        ("stolen keys", Power(2, 0, 2, True), True, Severity.AGAINST_HONEST),
        ("stolen keys", Power(2, 0, 2, False), True, Severity.NOTHING),
        ("stolen keys", Power(2, 0, 2, False), False, Severity.LONE),
        ("stolen keys", Power(2, 0, 1, True), True, Severity.NOTHING),
        ("tempted promoters", Power(2, 0, 0, True), True, Severity.AGAINST_HONEST),
        ("tempted promoters", Power(2, 0, 0, False), True, Severity.NOTHING),
        ("private logs", Power(2, 2, 2, True), True, Severity.UNSEEN),
        ("private logs", Power(2, 1, 2, True), True, Severity.NOTHING),
        ("replayed release", Power(2, 0, 2, True), False, Severity.LONE),
        ("second root", Power(3, 2, 2, False), True, Severity.NOTHING),
        ("unlogged", Power(3, 2, 2, True), False, Severity.NOTHING),
    ],
    ids=str,
)
def test_at_the_thresholds(strategy: str, power: Power, spoken: bool, severity: Severity) -> None:
    """Attacks that must succeed show that the others could have been seen to."""
    result = judge(Episode(TERMS, power, strategy, spoken))
    assert result.severity is severity
    assert result.severity <= expected(TERMS, power)


@pytest.mark.parametrize("strategy", ["stolen keys", "private logs", "rolled back"])
def test_who_saw_the_release_accepts_no_other(strategy: str) -> None:
    """Not even from whoever controls everything."""
    assert returning(Episode(TERMS, Power(3, 2, 2, True), strategy, True)) == ()


OTHER = Terms(builders=3, threshold=2, logs=2, needed=1, promoters=2, wanted=1)


@pytest.mark.parametrize(
    ("down", "released"),
    [
        ((0, 0, 0), True),
        ((1, 1, 1), True),
        ((2, 0, 0), False),
        ((0, 2, 0), False),
        ((0, 0, 2), False),
    ],
    ids=str,
)
def test_what_may_be_away(down: tuple[int, int, int], released: bool) -> None:
    assert releases_without(OTHER, down) is released


SPARE = Terms(builders=2, threshold=2, logs=3, needed=2, promoters=3, wanted=2)


@pytest.mark.parametrize("plan", [*BY_PROMOTERS, *BY_REGISTRY, *BY_LOGS])
@pytest.mark.slow
def test_a_release_despite_those_whom_the_policy_can_do_without(plan: str) -> None:
    """One promoter lies, too few to sign, and one log is away; or one log lies."""
    case = Hindrance(SPARE, plan, promoters=1 if plan in BY_PROMOTERS else 0, logs=1)
    assert case in set(every_hindrance(SPARE))
    assert releases_despite(case) is not may_block(case)


def test_promoters_too_few_to_sign_may_block_nothing() -> None:
    cases = [case for case in every_hindrance(SPARE) if case.by != "logs"]
    assert not any(may_block(case) for case in cases)
    enough = Hindrance(OTHER, "another root", promoters=1, logs=0)
    assert may_block(enough)
    assert not releases_despite(enough)


@pytest.mark.parametrize("plan", ["without documents", "ever another record", "many heads"])
@pytest.mark.slow
def test_a_release_despite_several_liars(plan: str) -> None:
    terms = Terms(builders=2, threshold=2, logs=1, needed=1, promoters=5, wanted=3)
    assert releases_despite(Hindrance(terms, plan, promoters=2, logs=0))
