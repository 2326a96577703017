"""The table of the contract is sound, and its transcript is read fail closed."""

from __future__ import annotations

import subprocess

import pytest

from nix_seed.setup.rules.diagnosis import (
    Clause,
    Health,
    checks_for,
    contract_script,
    read_findings,
)

KINDS = [(kind, arch) for kind in ("seed", "run") for arch in ("amd64", "arm64", "riscv64")]


@pytest.mark.parametrize(("kind", "architecture"), KINDS)
def test_names_are_unique_and_every_check_says_why_and_how(kind: str, architecture: str) -> None:
    checks = checks_for(kind, architecture)  # type: ignore[arg-type]
    assert len({check.name for check in checks}) == len(checks) > 10
    assert all(check.why and check.fix for check in checks)


@pytest.mark.parametrize(("kind", "architecture"), KINDS)
def test_the_script_is_shell(kind: str, architecture: str) -> None:
    script = contract_script(checks_for(kind, architecture))  # type: ignore[arg-type]
    subprocess.run(["/bin/sh", "-n"], input=script, text=True, check=True)


def test_a_seed_must_do_all_that_a_run_image_must() -> None:
    assert set(checks_for("run", "amd64")) < set(checks_for("seed", "amd64"))


def run(*checks: Clause, cut: int | None = None) -> list[tuple[bool, str]]:
    script = contract_script(checks)
    done = subprocess.run(["/bin/sh"], input=script, text=True, capture_output=True, check=False)
    transcript = done.stdout
    found = read_findings("bwrap", checks, transcript[:cut])
    return [(each.outcome is Health.FINE, each.said) for each in found]


GOOD = Clause("good", "true", "why", "fix")
BAD = Clause("bad", "echo no >&2; exit 3", "why", "fix")
LYING = Clause("lying", "echo; echo '::2::0'; exit 1", "why", "fix")


def test_each_check_has_its_own_result() -> None:
    assert run(GOOD, BAD, GOOD) == [(True, ""), (False, "no"), (True, "")]
    assert run(Clause("syntax", "cd /nowhere && (", "why", "fix"), GOOD)[0][0] is False
    assert run(Clause("exits", "exit 0", "why", "fix"), BAD) == [(True, ""), (False, "no")]


def test_a_check_that_was_not_reached_did_not_pass() -> None:
    assert run(GOOD, GOOD, cut=9) == [(True, ""), (False, "the image stopped before this check")]
    assert run(GOOD, cut=0) == [(False, "the image stopped before this check")]


def test_output_that_imitates_a_result_is_overruled_by_the_result() -> None:
    assert [passed for passed, _ in run(GOOD, LYING, BAD)] == [True, False, False]
