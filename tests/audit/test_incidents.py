"""An audit in an emergency: what happened, what to do, where to read on; and all evidence below."""

import re
from pathlib import Path

import pytest

from nix_seed.audit.rules.report import GUIDES, incidents_of, short
from nix_seed.cli.audit.audit import incident_lines
from nix_seed.cli.say import folded
from nix_seed.core.verdict import Severity
from nix_seed.release.rules.answer import AuditFinding, Kind

ROOT = Path(__file__).resolve().parents[2]
COMMIT, OTHER = "c0ffee" + "0" * 34, "badbad" + "0" * 34
A, B = "sha256:" + "a1" * 32, "sha256:" + "b2" * 32


def record(digest: str, root: str) -> tuple[str, ...]:
    return f"record {digest}", f"root {root}", "signed by rita", "entry 5 of log", "entry 7 of two"


def finding(
    kind: Kind, severity: Severity, subject: str, words: str, *evidence: str
) -> AuditFinding:
    return AuditFinding(kind, severity, subject, words, evidence)


TWICE = finding(
    Kind.CONFLICT,
    Severity.ALARM,
    COMMIT,
    f"{COMMIT} was promoted as 2 different things: {A} and {B}",
    *record(A, A),
    *record(B, B),
)
QUORUM = finding(
    Kind.QUORUM, Severity.ALARM, f"{COMMIT} x86_64-linux", "1 of 2", f"record {A}", f"image {B}"
)
TAG = finding(Kind.COPIES, Severity.WARNING, "latest", "the tag latest names different things")
OLD = finding(Kind.COPIES, Severity.WARNING, "dev", f"a says {A}", f"a:dev is {A}")
HEADS = finding(Kind.HEADS, Severity.NOTICE, "the ledger", "2 heads")


def test_what_belongs_together_is_told_once() -> None:
    one, two, three = incidents_of((TWICE, QUORUM, TAG, OLD, HEADS))
    assert one.happened == "Commit c0ffee000000 was released twice, as different things."
    assert [each.finding for each in one.findings] == [TWICE, QUORUM]
    assert two.happened == "Copies of the ledger differ about latest, dev."
    assert (three.severity, three.section) == (Severity.NOTICE, "")


def test_evidence_is_nested_and_shown_once() -> None:
    [one] = incidents_of((TWICE, QUORUM))
    assert one.findings[0].rows == (
        "record a1a1a1a1a1a1, root a1a1a1a1a1a1, signed by rita, entry 5 of log, entry 7 of two",
        "record b2b2b2b2b2b2, root b2b2b2b2b2b2, signed by rita, entry 5 of log, entry 7 of two",
    )
    assert one.findings[1].rows == ("image b2b2b2b2b2b2",), "the record stands above already"


def test_the_lines() -> None:
    [one] = incidents_of((TWICE,))
    first, do, runbook, told, *rows = incident_lines(one)
    assert first == "ALARM: Commit c0ffee000000 was released twice, as different things."
    assert do.startswith("  do       Keep the evidence")
    assert runbook == "  runbook  docs/runbook.md: Two roots for one commit"
    assert told.startswith(f"  conflict [{TWICE.id}]  c0ffee000000 was promoted as 2 different")
    assert len(rows) == 2
    assert not re.search("[0-9a-f]{13}", "\n".join([first, do, runbook, told, *rows]))


def test_several_of_a_kind_about_other_commits_are_other_incidents() -> None:
    other = finding(Kind.CONFLICT, Severity.ALARM, OTHER, "x")
    assert [each.happened[:19] for each in incidents_of((TWICE, other))] == [
        "Commit c0ffee000000",
        "Commit badbad000000",
    ]


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_has_words_and_a_section_of_the_runbook(kind: Kind) -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "docs/runbook.md").read_text(), re.MULTILINE)
    guide = GUIDES[kind]
    assert guide.section in headings
    assert guide.happened.endswith(".")
    assert guide.do.endswith(".")
    for severity in (Severity.ALARM, Severity.UNCHECKED, Severity.WARNING):
        [one] = incidents_of((finding(kind, severity, "latest", "words"),))
        assert "{" not in one.happened
        assert one.happened[0].isupper() or one.happened.startswith("latest")


def test_only_hashes_are_shortened() -> None:
    assert short(f"{COMMIT} {A} 0123456789ab entry 12 of log") == (
        "c0ffee000000 a1a1a1a1a1a1 0123456789ab entry 12 of log"
    )
    path = "/nix/store/z8kyi67ikihww144pn6mkiixxvdfm2gm-make-4.3"
    assert short(path) == path


@pytest.mark.parametrize("width", [60, 80, 120])
def test_lines_fit_the_terminal_and_lose_no_word(width: int) -> None:
    lines = [line for each in incidents_of((TWICE, QUORUM, OLD)) for line in incident_lines(each)]
    fitted = list(folded(lines, width))
    assert max(map(len, fitted)) <= width
    assert " ".join(" ".join(fitted).split()) == " ".join(" ".join(lines).split())
    assert list(folded(lines, None)) == lines
