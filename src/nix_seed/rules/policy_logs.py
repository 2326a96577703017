"""Which of the policy's logs hold an envelope, by the entries in its bundle, and since when."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from nix_seed.formats.intoto.bundle import Bundle, Certificate
from nix_seed.formats.tlog.body import LoggedSignature, Verifier
from nix_seed.formats.tlog.checkpoint import Checkpoint
from nix_seed.rules.evidence import Finding, LogFindings, LogJudge
from nix_seed.rules.log_verify import (
    EntryResult,
    LogTrust,
    TrustedLog,
    TrustedWitness,
    evaluate_entries,
)
from nix_seed.rules.policy import Policy
from nix_seed.rules.verifying_key import PublicKey

__all__ = ["find_split_views", "judge_logs_by", "log_trust"]

_DETAILS: Final = {
    "ecdsa-p256": "PKIX_ECDSA_P256_SHA_256",
    "ecdsa-p384": "PKIX_ECDSA_P384_SHA_384",
    "ed25519": "PKIX_ED25519",
}


def log_trust(policy: Policy) -> LogTrust:
    """Return the logs and witnesses of *policy*, as log entries are judged by."""
    return LogTrust(
        tuple(TrustedLog(log.id, log.kind, log.origin, log.key) for log in policy.logs),
        tuple(TrustedWitness(each.id, each.key) for each in policy.witnesses),
        policy.quorum.witnesses,
    )


def judge_logs_by(policy: Policy) -> LogJudge:
    """Return what judges bundles whose signature was verified already, by its key's signer."""
    trust = log_trust(policy)
    keys = {each.signer for each in policy.builders if isinstance(each.signer, PublicKey)}

    def judge(bundle: Bundle, what: str) -> LogFindings:
        logged = _logged(bundle, keys, what)
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
        )

    return judge


def find_split_views(findings: Iterable[Finding]) -> Mapping[str, str]:
    """Return each log that showed two trees of one size, and how, by its own signatures.

    That is all that can be told without the log: between different sizes it takes a proof.
    """
    seen: dict[tuple[str, int], Checkpoint] = {}
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


def _logged(bundle: Bundle, keys: Iterable[PublicKey], what: str) -> LoggedSignature:
    envelope = bundle.envelope
    signature = envelope.signatures[0].sig
    return LoggedSignature(
        hashlib.sha256(envelope.pae).digest(),
        hashlib.sha256(envelope.payload).digest(),
        signature,
        _verifier(bundle, envelope.pae, signature, keys, what),
    )


def _verifier(
    bundle: Bundle, signed: bytes, signature: bytes, keys: Iterable[PublicKey], what: str
) -> Verifier:
    if isinstance(bundle.material, Certificate):
        der = bundle.material.der
        key = PublicKey.of_certificate(der, what)
        return Verifier(der, True, _DETAILS[key.algorithm])
    for key in keys:
        if key.verifies(signature, signed):
            return Verifier(key.der, False, _DETAILS[key.algorithm])
    raise ValueError(f"{what} was verified by no key of the policy")


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
