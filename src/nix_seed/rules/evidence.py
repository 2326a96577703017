"""From the bytes of bundles to claims that can be counted, with each one's fate kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography.x509 import load_der_x509_certificate

from nix_seed.formats.intoto.bundle import Bundle, Certificate
from nix_seed.formats.tlog.checkpoint import SignedCheckpoint
from nix_seed.rules.bundle_verify import (
    BundleCheck,
    Expected,
    Fate,
    Reason,
    SignedBy,
    Trust,
    Verdict,
    evaluate_bundle,
)
from nix_seed.rules.claims import Claim
from nix_seed.rules.policy import Policy, Signer

__all__ = ["Finding", "LogFindings", "LogJudge", "claims_of", "examine", "trust_of"]


@dataclass(frozen=True, slots=True)
class LogFindings:
    """Which of the policy's logs hold an envelope, and by when each did.

    *checkpoints* are those that the logs signed, *entries* the index and leaf hash in each log.
    *words* say of each log entry that proves nothing why, one line each.
    """

    logs: frozenset[str] = frozenset()
    times: tuple[tuple[str, datetime], ...] = ()
    checkpoints: tuple[tuple[str, SignedCheckpoint], ...] = ()
    words: tuple[str, ...] = ()
    entries: tuple[tuple[str, int, bytes], ...] = ()


LogJudge = Callable[[Bundle, SignedBy, str], LogFindings]
"""Judges the log entries of a bundle whose signature is good; the string names it in words."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A bundle as it was found at *place*, its verdict, and what the logs say of it."""

    name: str
    place: str
    verdict: Verdict
    logs: LogFindings


def trust_of(policy: Policy, certificates: BundleCheck | None) -> Trust:
    """Return whose signatures *policy* lets one look at; *certificates* judges keyless ones."""
    return Trust.in_signers((each.signer for each in policy.builders), certificates)


_ANY_BUILD = Expected(subject=None)


def examine(
    place: str, text: bytes, trust: Trust, judge_logs: LogJudge, expected: Expected = _ANY_BUILD
) -> Finding:
    """Judge one bundle's bytes. Never raises: what goes wrong inside is *could not check*.

    Which image it is about is left to the quorum, which must see dissents as well.
    """
    name = f"bundle {hashlib.sha256(text).hexdigest()[:12]}"
    verdict = evaluate_bundle(text, trust, expected, name)
    if not verdict.verified or verdict.bundle is None or verdict.signer is None:
        return Finding(name, place, verdict, LogFindings())
    try:
        logs = judge_logs(verdict.bundle, verdict.signer, name)
    except Exception as error:
        words = f"{name}: an unexpected {type(error).__name__} in judging its logs: {error}"
        return Finding(name, place, Verdict(Fate.UNCHECKED, Reason.INTERNAL, words), LogFindings())
    return Finding(name, place, verdict, logs)


def claims_of(
    findings: Iterable[Finding], policy: Policy, distrusted: Container[str] = ()
) -> tuple[Claim, ...]:
    """Return the claims of verified findings, in their order; *distrusted* logs prove nothing.

    Bundles over one envelope are one claim: each may bring the proof of another log.
    """
    gathered: dict[tuple[Signer, bytes], list[Finding]] = {}
    for finding in findings:
        verdict = finding.verdict
        if verdict.predicate is None or verdict.signer is None or verdict.bundle is None:
            continue
        gathered.setdefault((verdict.signer, verdict.bundle.envelope.pae), []).append(finding)
    return tuple(
        _claim(signer, together, policy, distrusted) for (signer, _), together in gathered.items()
    )


def _claim(
    signer: Signer, findings: Sequence[Finding], policy: Policy, distrusted: Container[str]
) -> Claim:
    predicate = findings[0].verdict.predicate
    assert predicate is not None
    logs = {log for each in findings for log in each.logs.logs if log not in distrusted}
    times = [time for each in findings for time in each.logs.times if time[0] in logs]
    return Claim(
        findings[0].name, signer, predicate, frozenset(logs), _time(findings[0], times, policy)
    )


def _time(
    finding: Finding, times: Sequence[tuple[str, datetime]], policy: Policy
) -> datetime | None:
    """Return a moment by which the claim is proved to have existed.

    By a certificate, judged by then, it is the certificate's end. By logs it is the moment by which
    as many logs as the policy demands held it: fewer than these may lie together.
    """
    material = finding.verdict.bundle and finding.verdict.bundle.material
    if isinstance(material, Certificate):
        return load_der_x509_certificate(material.der).not_valid_after_utc
    earliest: dict[str, datetime] = {}
    for log, time in times:
        earliest[log] = min(time, earliest.get(log, time))
    wanted = max(policy.quorum.logs, 1)
    return sorted(earliest.values())[wanted - 1] if len(earliest) >= wanted else None
