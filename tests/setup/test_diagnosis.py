"""What checks come to, and how facts of a machine are judged."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, strategies as st

from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError, NixFailed
from nix_seed.flake.rules.nix_version import NixVersion, parse_nix_version
from nix_seed.setup.rules.diagnosis import (
    Clause,
    Diagnosis,
    Health,
    diagnose_clause,
    diagnose_error,
    exit_code,
    judge_clock,
    judge_engines,
    judge_nix_version,
    judge_room,
    judge_settings,
)

FINE, WARNING, FALSE, UNCHECKED = Health


def of(*outcomes: Health) -> list[Diagnosis]:
    return [Diagnosis("a", "b", outcome, "said", "fix") for outcome in outcomes]


@given(st.lists(st.sampled_from(list(Health))))
def test_false_is_worse_than_unchecked_and_warnings_do_not_count(outcomes: list[Health]) -> None:
    code = exit_code(of(*outcomes))
    assert (code == 1) is (FALSE in outcomes)
    assert (code == 0) is (bool(outcomes) and set(outcomes) <= {FINE, WARNING})
    assert code in (0, 1, 3)


def test_nothing_checked_is_no_yes() -> None:
    assert exit_code([]) == 3


@pytest.mark.parametrize("outcome", [WARNING, FALSE, UNCHECKED])
def test_what_is_not_fine_has_a_fix(outcome: Health) -> None:
    with pytest.raises(ValueError, match="a, b: what is not fine needs a fix"):
        Diagnosis("a", "b", outcome, "said")


@pytest.mark.parametrize(
    ("error", "outcome", "said", "fix"),
    [
        (CheckedFalse("lies", hint="mend it"), FALSE, "lies", "mend it"),
        (InputError("wrong"), FALSE, "wrong", "see its own message"),
        (NixFailed("failed", detail="its words"), FALSE, "failed\nits words", None),
        (CouldNotCheck("down", hint="later"), UNCHECKED, "down", "later"),
        (
            ZeroDivisionError("oh"),
            UNCHECKED,
            "an unexpected ZeroDivisionError: oh",
            "this is a fault of nix-seed",
        ),
    ],
)
def test_errors_in_a_check(error: Exception, outcome: Health, said: str, fix: str | None) -> None:
    found = diagnose_error("a", "b", error)
    assert (found.outcome, found.said) == (outcome, said)
    assert fix is None or found.fix == fix


def test_clauses_of_the_contract_keep_their_fix() -> None:
    check = Clause("name", "shell", "why", "fix")
    assert diagnose_clause("bwrap", check, "v1", passed=True) == Diagnosis(
        "bwrap", "name", FINE, "v1", why="why"
    )
    assert diagnose_clause("bwrap", check, "", passed=False) == Diagnosis(
        "bwrap", "name", FALSE, "it failed, and said nothing", "fix", "why"
    )


@pytest.mark.parametrize(
    ("text", "fork", "version", "outcome"),
    [
        ("nix (Nix) 2.8.0\n", "CppNix", "2.8.0", WARNING),
        ("nix (Nix) 2.17.1", "CppNix", "2.17.1", WARNING),
        ("nix (Nix) 2.18.0", "CppNix", "2.18.0", FINE),
        ("nix (Nix) 2.7.9", "CppNix", "2.7.9", FALSE),
        ("nix (Nix) 2.24.0pre20240712_142e566a", "CppNix", "2.24.0pre20240712_142e566a", FINE),
        ("nix (Lix, like Nix) 2.91.1", "Lix", "2.91.1", FINE),
        ("nix (Determinate Nix 3.8.2) 2.30.1", "Determinate Nix", "2.30.1", FINE),
        ("nix (Lix, like Nix) 2.93.0-devpre20250301", "Lix", "2.93.0-devpre20250301", FINE),
        ("nix (Nix) 3.0", "CppNix", "3.0", FINE),
        ("nix (Tvix) 2.3", "Tvix", "2.3", FALSE),
    ],
)
def test_versions_of_nix(text: str, fork: str, version: str, outcome: Health) -> None:
    assert parse_nix_version(text) == NixVersion(fork, version)
    found = judge_nix_version(text)
    assert found.outcome is outcome
    said = f"{version} ({fork})"
    if outcome is WARNING:
        said += ": too old to evaluate a current nixpkgs, which wants 2.18"
        assert "install a newer one: apt-get install nix-bin on Debian 13" in (found.fix or "")
    assert found.said == said


def test_a_program_that_is_not_nix_is_not_judged() -> None:
    found = judge_nix_version("nix 1.0, a shell")
    assert (found.outcome, found.said) == (UNCHECKED, "it says 'nix 1.0, a shell'")


GOOD = {"experimental-features": "nix-command flakes", "sandbox": "true", "build-hook": "/x a"}


@pytest.mark.parametrize(
    ("changes", "hook", "name", "outcome", "said"),
    [
        ({}, True, "build-hook", FINE, "/x a"),
        ({"build-hook": ""}, False, "build-hook", FALSE, "it is set to nothing"),
        ({}, False, "build-hook", FALSE, "/x is not there"),
        ({"sandbox": "false"}, True, "sandbox", WARNING, "it is false: builds see this machine"),
        ({"sandbox": "relaxed"}, True, "sandbox", WARNING, "it is relaxed"),
        (
            {"experimental-features": "flakes"},
            True,
            "experimental features",
            WARNING,
            "nix-command: off",
        ),
    ],
)
def test_settings_of_nix(
    changes: dict[str, str], hook: bool, name: str, outcome: Health, said: str
) -> None:
    found = {
        each.name: each for each in judge_settings(GOOD | changes, linux=True, hook_exists=hook)
    }
    assert (found[name].outcome, found[name].said[: len(said)]) == (outcome, said)
    assert {each.outcome for other, each in found.items() if other != name} == {FINE}


def test_a_mac_has_no_sandbox_by_default() -> None:
    found = list(judge_settings(GOOD | {"sandbox": "false"}, linux=False, hook_exists=True))
    assert {each.outcome for each in found} == {FINE}


def test_one_engine_is_enough() -> None:
    reasons = {"bwrap": None, "docker": "Docker Engine 20.10 cannot read zstd layers; 23 can"}
    assert [each.outcome for each in judge_engines(reasons)] == [FINE, WARNING]
    none = list(judge_engines({"bwrap": "bwrap is not on PATH; install it: apt-get install x"}))
    assert [(each.name, each.outcome) for each in none] == [("bwrap", FALSE), ("any", FALSE)]
    assert none[0].fix == "install it: apt-get install x"


@pytest.mark.parametrize(
    ("seconds", "outcome", "said"),
    [
        ([0], FINE, "0 s behind s0"),
        ([29], FINE, "29 s ahead of s0"),
        ([-31], WARNING, "31 s behind s0"),
        ([301], FALSE, "301 s ahead of s0"),
        ([-86400], FALSE, "86400 s behind s0"),
        ([3600, 2], FINE, "2 s ahead of s1"),
    ],
)
def test_the_kindest_clock_counts(seconds: list[int], outcome: Health, said: str) -> None:
    readings = [(f"s{number}", timedelta(seconds=each)) for number, each in enumerate(seconds)]
    found = judge_clock(readings)
    assert found is not None
    assert (found.outcome, found.said) == (outcome, said)


def test_no_clock_no_answer() -> None:
    assert judge_clock([]) is None


@pytest.mark.parametrize(
    ("free", "problem", "outcome"),
    [
        (6 << 30, None, FINE),
        (2 << 30, None, WARNING),
        (1 << 29, None, FALSE),
        (1 << 40, "Read-only file system", FALSE),
    ],
)
def test_room_on_disk(free: int, problem: str | None, outcome: Health) -> None:
    found = judge_room("cache", "/c", free, problem, "NIX_SEED_CACHE")
    assert found.outcome is outcome
    assert outcome is FINE or found.fix.endswith("NIX_SEED_CACHE=DIR")
