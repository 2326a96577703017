"""One image of many commits: code changes, and its seed does not. It verifies all the same."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from nix_seed.formats.oci.reference import parse_reference
from nix_seed.trust.rules import claims
from nix_seed.trust.rules.claims import MOST_COMMITS
from support.audits import Ledger, commit

MANY = range(2, 2 + MOST_COMMITS + 3)
FEW = 6


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> range:
    """More commits than are asked about, where that is fewer than it is: a release takes long."""
    monkeypatch.setattr(claims, "MOST_COMMITS", FEW)
    return range(2, 2 + FEW + 3)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.fresh(tmp_path, releases=1)


def attest(ledger: Ledger, commits: Iterable[int], *names: str) -> None:
    for number in commits:
        ledger.attest_all(*names, commit=commit(number))


@pytest.mark.slow
def test_when_each_of_many_commits_was_released(ledger: Ledger, few: range) -> None:
    for _ in few:
        ledger.release()
    done = ledger.verify(f"{ledger.repository}:latest")
    assert done.code == 0, done.printed
    assert "promoted by rita" in done.printed


@pytest.mark.slow
def test_when_the_first_of_many_commits_was_released(ledger: Ledger, few: range) -> None:
    """The record lies beside the index that is asked about."""
    attest(ledger, few)
    done = ledger.verify(f"{ledger.repository}:latest")
    assert done.code == 0, done.printed


def test_one_builder_names_as_many_commits_as_he_likes(ledger: Ledger) -> None:
    attest(ledger, MANY, "carol")
    done = ledger.verify(f"{ledger.repository}:latest")
    assert done.code == 0, done.printed


@pytest.mark.slow
def test_what_is_left_out_is_not_taken_for_false(tmp_path: Path) -> None:
    """Beside one system's image alone lies no record: which of many was released is not seen."""
    ledger = Ledger.fresh(tmp_path, releases=0)
    attest(ledger, MANY)
    image = str(parse_reference(ledger.repository).at(ledger.image.descriptor.digest))
    done = ledger.verify(image)
    assert done.code == 3, done.printed
    words = f"attested for {len(MANY)} commits, and {MOST_COMMITS} of them were asked about"
    assert words in done.printed
    named = ledger.verify(image, "--commit", str(commit(2)))
    assert named.code == 1, named.printed


@pytest.mark.slow
def test_many_commits_of_no_quorum_are_no_proof_of_a_lie(tmp_path: Path, few: range) -> None:
    ledger = Ledger.fresh(tmp_path, releases=0)
    attest(ledger, few, "carol")
    image = str(parse_reference(ledger.repository).at(ledger.image.descriptor.digest))
    done = ledger.verify(image, "--quorum-only")
    assert done.code == 3, done.printed
    assert f"{FEW} of them were asked about" in done.printed
