"""Which of the policy's logs hold an envelope, by the entries in its bundle, and since when."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

from nix_seed.formats.intoto.bundle import Bundle, Certificate
from nix_seed.formats.tlog.body import LoggedSignature
from nix_seed.formats.tlog.entry import LogEntry
from nix_seed.formats.tlog.merkle import leaf_hash
from nix_seed.formats.tlog.note import SignedCheckpoint
from nix_seed.logs.rules.entry import (
    EntryResult,
    LogTrust,
    TrustedLog,
    TrustedWitness,
    evaluate_entries,
    logged_signature,
    verifier_of,
)
from nix_seed.logs.rules.signer import PublicKey
from nix_seed.trust.rules.bundle import SignedBy
from nix_seed.trust.rules.claims import Finding, LogFindings, LogJudge
from nix_seed.trust.rules.policy import Policy


def log_trust(policy: Policy) -> LogTrust:
    """Return the logs and witnesses of *policy*, as log entries are judged by."""
    return LogTrust(
        tuple(TrustedLog(log.id, log.kind, log.origin, log.key) for log in policy.logs),
        tuple(TrustedWitness(each.id, each.key) for each in policy.witnesses),
        policy.quorum.witnesses,
    )


def judge_logs_by(policy: Policy) -> LogJudge:
    """Return what judges the log entries of bundles whose signature was verified already."""
    trust = log_trust(policy)

    def judge(bundle: Bundle, signer: SignedBy, what: str) -> LogFindings:
        logged = _logged(bundle, signer, what)
        results = evaluate_entries(bundle.tlog_entries, logged, trust)
        return LogFindings(
            logs=frozenset(each.log for each in results if each.proved and each.log),
            times=tuple(_times(results, policy.quorum.witnesses)),
            checkpoints=tuple(
                (each.log, each.checkpoint) for each in results if each.log and each.checkpoint
            ),
            words=tuple(
                f"log entry {each.fate.value}: {each.reason}" for each in results if not each.proved
            ),
            entries=tuple(_entries(results, bundle)),
        )

    return judge


def find_split_views(findings: Iterable[Finding]) -> Mapping[str, str]:
    """Return each log that showed two trees of one size, and how, by its own signatures.

    That is all that can be told without the log: between different sizes it takes a proof.
    """
    seen: dict[tuple[str, int], SignedCheckpoint] = {}
    found: dict[str, str] = {}
    for finding in findings:
        for log, checkpoint in finding.logs.checkpoints:
            before = seen.setdefault((log, checkpoint.head.size), checkpoint)
            if before.head.root != checkpoint.head.root:
                found[log] = (
                    f"the log {log} shows a split view: it signed two roots for size "
                    f"{checkpoint.head.size}"
                )
    return found


def _logged(bundle: Bundle, signer: SignedBy, what: str) -> LoggedSignature:
    material = bundle.material
    if isinstance(material, Certificate):
        key = PublicKey.of_certificate(material.der, what)
    elif isinstance(signer, PublicKey):
        key = signer
    else:
        raise ValueError(f"{what} has no certificate, and yet an identity signed it")
    return logged_signature(bundle.envelope, verifier_of(material, key))


def _entries(results: Sequence[EntryResult], bundle: Bundle) -> Iterator[tuple[str, int, bytes]]:
    """Yield log, index in its tree, and leaf hash of each proved entry."""
    for result, entry in zip(results, bundle.tlog_entries, strict=True):
        if result.proved and result.log is not None and result.index is not None:
            yield result.log, result.index, leaf_hash(LogEntry.from_json(entry, "").body)


def _times(results: Sequence[EntryResult], witnesses: int) -> Iterator[tuple[str, datetime]]:
    """Yield, for each log, a moment by which it held the entry.

    Of the witnesses' times, the one by which as many as the policy demands had seen it: fewer than
    these may lie together.
    """
    for each in results:
        if not each.proved or each.log is None:
            continue
        if each.time is not None:
            yield each.log, datetime.fromtimestamp(each.time, UTC)
        elif witnesses:
            seen = sorted(time for _, time in each.witnesses)
            yield each.log, datetime.fromtimestamp(seen[witnesses - 1], UTC)
