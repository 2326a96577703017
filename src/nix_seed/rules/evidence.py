"""From the bytes of bundles to claims that can be counted, with each one's fate kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from nix_seed.formats.intoto.bundle import Bundle
from nix_seed.rules.bundle_verify import (
    BundleCheck,
    Expected,
    Fate,
    Reason,
    Trust,
    Verdict,
    evaluate_bundle,
)
from nix_seed.rules.claims import Claim
from nix_seed.rules.policy import Policy
from nix_seed.rules.verifying_key import PublicKey

__all__ = ["Finding", "LogFindings", "LogJudge", "claims_of", "examine", "trust_of"]


@dataclass(frozen=True, slots=True)
class LogFindings:
    """Which of the policy's logs hold an envelope, and by when it is proved to have existed.

    *words* say of each log entry that proves nothing why, one line each.
    """

    logs: frozenset[str] = frozenset()
    time: datetime | None = None
    words: tuple[str, ...] = ()


LogJudge = Callable[[Bundle, str], LogFindings]
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
    signers = [builder.signer for builder in policy.builders]
    return Trust(
        keys=tuple(each for each in signers if isinstance(each, PublicKey)),
        identities=tuple(each for each in signers if not isinstance(each, PublicKey)),
        certificates=certificates,
    )


def examine(place: str, text: bytes, trust: Trust, judge_logs: LogJudge) -> Finding:
    """Judge one bundle's bytes. Never raises: what goes wrong inside is *could not check*.

    Which image it is about is left to the quorum, which must see dissents as well.
    """
    name = f"bundle {hashlib.sha256(text).hexdigest()[:12]}"
    verdict = evaluate_bundle(text, trust, Expected(subject=None), name)
    if not verdict.verified or verdict.bundle is None:
        return Finding(name, place, verdict, LogFindings())
    try:
        logs = judge_logs(verdict.bundle, name)
    except Exception as error:
        words = f"{name}: an unexpected {type(error).__name__} in judging its logs: {error}"
        return Finding(name, place, Verdict(Fate.UNCHECKED, Reason.INTERNAL, words), LogFindings())
    return Finding(name, place, verdict, logs)


def claims_of(findings: Iterable[Finding]) -> tuple[Claim, ...]:
    """Return the claims of verified findings, in their order.

    Bundles over one envelope are one claim: each may bring the proof of another log. Of several
    proved times the earliest holds, for a thing that existed then existed later as well.
    """
    claims: dict[tuple[object, bytes], Claim] = {}
    for finding in findings:
        verdict = finding.verdict
        if verdict.predicate is None or verdict.signer is None or verdict.bundle is None:
            continue
        key = (verdict.signer, verdict.bundle.envelope.pae)
        claim = claims.get(key) or Claim(finding.name, verdict.signer, verdict.predicate)
        claims[key] = replace(
            claim,
            logs=claim.logs | finding.logs.logs,
            time=min(filter(None, (claim.time, finding.logs.time)), default=None),
        )
    return tuple(claims.values())
