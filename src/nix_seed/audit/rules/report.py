"""What an audit says: typed findings, the logs and copies it read, and one verdict.

*Checked and false* is an alarm; what could not be checked is neither that nor nothing. Warnings and
notices are for people: nothing that anyone relies on is false.

What an audit found, told as what happened: a sentence, what to do, and the evidence below it.

Several findings are often one incident: a second root shows in the ledger, a tag and a quorum.
They are told together by what they are about, under the one that weighs most.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from nix_seed.audit.rules.record import LedgerRecord
from nix_seed.core.digests import Digest
from nix_seed.core.values import dataclass
from nix_seed.core.verdict import Fate, Severity
from nix_seed.core.words import plural, shortened
from nix_seed.release.rules.answer import AuditFinding, Kind


@dataclass(frozen=True, slots=True)
class LogStatus:
    """A log: of *size* entries now, those from *since* on were *read* now.

    *since* is 0 where all of it was; *read* is None for a log that cannot be read, and *reason*
    says what was done instead.
    """

    id: str
    kind: str
    size: int
    since: int
    read: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class CopyStatus:
    """A copy of the ledger: how many records lie in it, and how many of its lists were read."""

    name: str
    records: int
    lists: int


@dataclass(frozen=True, slots=True)
class AuditReport:
    """All that an audit found. *records* are in the order of the ledger.

    The first *before* of them were audited by an earlier run, from whose checkpoint this one went
    on. *policies* are the digests of the policies that were known. *accepted* of the findings are
    notices only because someone accepted them.
    """

    repository: str
    policies: tuple[Digest, ...]
    epoch: int
    records: tuple[LedgerRecord, ...]
    before: int
    copies: tuple[CopyStatus, ...]
    logs: tuple[LogStatus, ...]
    findings: tuple[AuditFinding, ...]
    accepted: int = 0

    def of(self, *severities: Severity) -> tuple[AuditFinding, ...]:
        """Return the findings of these severities."""
        return tuple(each for each in self.findings if each.severity in severities)

    @property
    def alarms(self) -> tuple[AuditFinding, ...]:
        """What was checked, and is false."""
        return self.of(Severity.ALARM)

    @property
    def clean(self) -> bool:
        """Whether everything was checked and nothing is false, by nobody's leave."""
        return self.fate is Fate.VERIFIED and self.accepted == 0

    @property
    def fate(self) -> Fate:
        """The verdict: false where there is an alarm."""
        if self.alarms:
            return Fate.FALSE
        return Fate.UNCHECKED if self.of(Severity.UNCHECKED) else Fate.VERIFIED

    @property
    def exit_code(self) -> int:
        """0 clean, 1 an alarm, 3 not everything could be checked."""
        return self.fate.exit_code

    @property
    def reason(self) -> str:
        """The answer in one line."""
        releases = plural(len(self.records), "record")
        if self.fate is Fate.VERIFIED:
            warnings = len(self.of(Severity.WARNING))
            also = f"; warnings: {warnings}" if warnings else ""
            return f"{releases}, and nothing is false{also}"
        found = self.alarms or self.of(Severity.UNCHECKED)
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        return f"{releases}: {found[0].reason}{more}"


def sort_findings(findings: Iterable[AuditFinding]) -> tuple[AuditFinding, ...]:
    """Return *findings*, each once: the worst first, of these by kind, else as they came."""
    severities, kinds = list(Severity), list(Kind)
    once = dict.fromkeys(findings)
    return tuple(sorted(once, key=lambda e: (severities.index(e.severity), kinds.index(e.kind))))


def accept(
    findings: Iterable[AuditFinding], known: Collection[str]
) -> tuple[tuple[AuditFinding, ...], int]:
    """Return *findings*; those whose id someone has looked into and accepted are notices.

    And how many of these would have made the exit code another one.
    """
    taken, heavy = [], 0
    for each in findings:
        if each.id in known:
            heavy += each.severity in (Severity.ALARM, Severity.UNCHECKED)
            taken.append(replace(each, severity=Severity.NOTICE, reason=f"accepted: {each.reason}"))
        else:
            taken.append(each)
    return tuple(taken), heavy


_HASH: Final = re.compile(r"\b(?:sha256:)?([0-9a-f]{12})(?:[0-9a-f]{52}|[0-9a-f]{28})\b")
_COMMIT: Final = re.compile(r"(?<![0-9a-f])[0-9a-f]{40}(?![0-9a-f])|(?<![0-9a-f:])[0-9a-f]{64}\b")


def short(text: str) -> str:
    """Return *text* with 12 digits of each hash in it: enough to tell them apart."""
    return _HASH.sub(r"\1", text)


@dataclass(frozen=True, slots=True)
class Guide:
    """How a kind of finding is told: *happened*, about ``{it}``; what to *do*; where to read on.

    *section* is a heading of docs/runbook.md.
    """

    happened: str
    do: str
    section: str


_KEEP: Final = "Keep the evidence, and use nothing of it. "
_TWO: Final = "Two roots for one commit"
_HIDDEN: Final = "Something is missing, or kept from you"
_DISAGREE: Final = "Builders disagree"
_POLICY: Final = "Change the policy"

GUIDES: Final[Mapping[Kind, Guide]] = {
    Kind.CONFLICT: Guide(
        "{it} was released twice, as different things.",
        _KEEP + "Ask whoever signed; the key behind the false one is stolen, or its holder lies.",
        _TWO,
    ),
    Kind.EQUIVOCATION: Guide(
        "What is shown of {it} differs from place to place.",
        _KEEP + "Compare with what others see: whoever serves these copies shows each another.",
        _TWO,
    ),
    Kind.CONTRADICTION: Guide(
        "Somebody signed another release of {it} than the one that stands.",
        _KEEP + "Ask whoever signed, and take the key out of the policy unless they can explain.",
        _TWO,
    ),
    Kind.GAP: Guide(
        "What {it} rests on is missing, or is not what its record says.",
        "Ask other copies (--from). If none has it, believe nothing that rests on it.",
        _HIDDEN,
    ),
    Kind.SKIPPED: Guide(
        "A later release passes over {it}.",
        "Ask whoever signed the later one what they saw: somebody hid the earlier one from them.",
        _HIDDEN,
    ),
    Kind.HEADS: Guide(
        "The ledger has several newest records.",
        "Nothing: the next release comes after all of them.",
        _TWO,
    ),
    Kind.VANISHED: Guide(
        "A record that was there before is gone.",
        "Put it back from a copy or a backup. Find out who may delete there.",
        _HIDDEN,
    ),
    Kind.WITHHELD: Guide(
        "A log holds what one of the policy's signers signed, and nobody shows it.",
        "Ask that signer what it was. If they do not know, their key is stolen.",
        _HIDDEN,
    ),
    Kind.LOG: Guide(
        "The log {it} is not what it was, or takes what it must refuse.",
        "Keep both checkpoints, publish them, and take the log out of the policy.",
        "A log shuts down, or moves",
    ),
    Kind.LEDGER: Guide(
        "A ledger of the policy and the records differ about {it}.",
        "Enter the release there, or find out who did.",
        _HIDDEN,
    ),
    Kind.QUORUM: Guide(
        "{it} does not have the builders' word that its release needed.",
        "Find out who is right before anybody uses it: build it once more, elsewhere.",
        _DISAGREE,
    ),
    Kind.REVOKED: Guide(
        "{it} is trusted no more, and releases rest on its word.",
        "Look whether each release still verifies; have another builder or promoter stand for it.",
        "A builder was compromised",
    ),
    Kind.POLICY: Guide(
        "Releases were made by a policy that is unknown, foreign or expired.",
        "Name an earlier policy's file with --policy-history. If nobody has it, ask who signed.",
        _POLICY,
    ),
    Kind.PROMOTER: Guide(
        "Promoters signed what is no release of {it}.",
        "Ask each of them; take out of the policy whoever cannot explain.",
        "A promoter lost its key, or it was stolen",
    ),
    Kind.PENDING: Guide(
        "A release of {it} is not finished.",
        "Nothing, if it is under way. Else promote again, which goes on from there.",
        _TWO,
    ),
    Kind.COPIES: Guide(
        "Copies of the ledger differ about {it}.",
        "Bring the copy that is behind up to date; find out who moved a tag.",
        _HIDDEN,
    ),
    Kind.TAG: Guide(
        "The tag {it} names what was not released under it.",
        "Promote again to put it right; verify by digest or commit meanwhile.",
        _HIDDEN,
    ),
    Kind.UNREAD: Guide(
        "{it} could not be read, so nothing is known of it.",
        "Try again, or name another copy or place: --from, --log ID=PLACE.",
        "A log is down",
    ),
}


_NOTICES: Final = Guide("Worth knowing; nothing is known to be wrong.", "Nothing.", "")

_TWICE: Final[Mapping[Kind, str]] = {
    Kind.EQUIVOCATION: "{it} was released as different things, and nobody is shown both."
}
"""How it is told where the evidence has more than one root."""

_OF_ENTRY: Final = ("leaf ", "signed ", "payload ")
_OF_RECORD: Final = ("root ", "index ", "signed by ", "entry ")
_MOST: Final = 5  # names in a sentence


@dataclass(frozen=True, slots=True)
class ShownFinding:
    """A *finding* as a line, and as evidence what none before it had shown, a row each."""

    finding: AuditFinding
    reason: str
    rows: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Incident:
    """What happened, in a sentence; what to *do*; the runbook's *section*; and its findings."""

    severity: Severity
    happened: str
    do: str
    section: str
    findings: tuple[ShownFinding, ...]


def incidents_of(
    findings: Sequence[AuditFinding], records: Sequence[LedgerRecord] = ()
) -> tuple[Incident, ...]:
    """Return the incidents that *findings*, the worst first, show; each finding is in one.

    *records* tell of which commit a finding is whose evidence is a record.
    """
    commits = {f"record {each.digest}": str(each.commit) for each in records}
    alarms = {_about(each, commits) for each in findings if each.severity is Severity.ALARM}
    groups: dict[tuple[str, ...], list[AuditFinding]] = {}
    for each in findings:
        about = _about(each, commits)
        # What only goes with an alarm is told with it; else each kind of finding is told once.
        key = (about,) if about in alarms else (each.severity, each.kind)
        if each.severity is Severity.NOTICE and about not in alarms:
            key = (each.severity,)
        groups.setdefault(key, []).append(each)
    return tuple(
        _incident(dict.fromkeys(_about(each, commits) for each in group), group)
        for group in groups.values()
    )


def verdict_sentence(found: AuditReport, incidents: Sequence[Incident]) -> str:
    """Return the answer in one line: of several *incidents*, what happened in the worst."""
    if found.fate is Fate.VERIFIED or not incidents:
        return found.reason
    more = f" (and {len(incidents) - 1} more)" if len(incidents) > 1 else ""
    return f"{plural(len(found.records), 'record')}: {incidents[0].happened.rstrip('.')}{more}"


def _about(finding: AuditFinding, commits: Mapping[str, str]) -> str:
    """Return the commit that the finding is about, or else what it names itself."""
    named = _COMMIT.search(finding.subject)
    if named is not None and not finding.subject.startswith("sha256:"):
        return named[0]
    found = [commits[line] for line in finding.evidence if line in commits]
    return found[0] if found else finding.subject


def _incident(about: Iterable[str], findings: Sequence[AuditFinding]) -> Incident:
    first = findings[0]
    guide = _NOTICES if first.severity is Severity.NOTICE else GUIDES[first.kind]
    names = [f"commit {each[:12]}" if _COMMIT.fullmatch(each) else short(each) for each in about]
    some = shortened(names, _MOST)
    sentence = guide.happened
    if len({line for line in first.evidence if line.startswith("root ")}) > 1:
        sentence = _TWICE.get(first.kind, sentence)
    happened = sentence.replace("{it}", some)
    happened = happened[0].upper() + happened[1:] if sentence.startswith("{it} ") else happened
    seen: set[str] = set()
    shown = tuple(_shown(each, seen) for each in findings)
    return Incident(first.severity, happened, guide.do, guide.section, shown)


def _shown(finding: AuditFinding, seen: set[str]) -> ShownFinding:
    reason = short(finding.reason)
    rows = [
        row
        for row in dict.fromkeys(_rows(finding.evidence))
        if not any(each == row or each.startswith(f"{row},") for each in seen)
        and not _is_told(row, reason)
    ]
    seen.update(rows)
    return ShownFinding(finding, reason, tuple(rows))


def _is_told(row: str, reason: str) -> bool:
    """Whether *row*, ``PLACE:TAG is DIGEST``, says what stands in *reason* already."""
    place, _, digest = row.partition(" is ")
    return bool(digest) and digest in reason and place.rpartition(":")[0] in reason


def _rows(evidence: Iterable[str]) -> Iterator[str]:
    """Yield the lines of *evidence*; those of one record, or log entry, in a row of its own."""
    row: list[str] = []
    for line in (line for text in evidence for line in text.splitlines()):
        of_record = bool(row) and row[0].startswith("record ")
        if row and not line.startswith(_OF_RECORD if of_record else _OF_ENTRY):
            yield ", ".join(row)
            row = []
        row.append(short(line))
    if row:
        yield ", ".join(row)
