"""Which of the policy's logs hold an envelope, by the entries in its bundle, and since when."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from nix_seed.core.digests import Digest
from nix_seed.formats.intoto.bundle import Bundle, Certificate
from nix_seed.formats.tlog.body import LoggedSignature
from nix_seed.formats.tlog.note import SignedCheckpoint
from nix_seed.logs.rules.entry import (
    EntryResult,
    LogTrust,
    evaluate_entries,
    logged_signature,
    verifier_of,
)
from nix_seed.logs.rules.signer import PublicKey
from nix_seed.trust.rules.bundle import SignedBy
from nix_seed.trust.rules.policy import Policy


@dataclass(frozen=True, slots=True, order=True)
class LoggedAt:
    """Entry *index* of the log that the policy calls *log*, and its leaf hash."""

    log: str
    index: int
    leaf_hash: Digest


@dataclass(frozen=True, slots=True)
class LogFindings:
    """Which of the policy's logs hold an envelope, and by when each did.

    *checkpoints* are those that the logs signed, *entries* where each log holds it.
    *reason* says of each log entry that proves nothing why, one line each.
    """

    logs: frozenset[str] = frozenset()
    times: tuple[tuple[str, datetime], ...] = ()
    checkpoints: tuple[tuple[str, SignedCheckpoint], ...] = ()
    reason: tuple[str, ...] = ()
    entries: tuple[LoggedAt, ...] = ()


def log_trust(policy: Policy) -> LogTrust:
    """Return the logs and witnesses of *policy*, as log entries are judged by."""
    return LogTrust(policy.logs, policy.witnesses, policy.quorum.witnesses)


def judge_logs(bundle: Bundle, signer: SignedBy, label: str, trust: LogTrust) -> LogFindings:
    """Judge the log entries of a bundle that *signer* was proved to have signed."""
    results = evaluate_entries(bundle.tlog_entries, _logged(bundle, signer, label), trust)
    return LogFindings(
        logs=frozenset(each.log for each in results if each.proved and each.log),
        times=tuple(_times(results, trust.witness_threshold)),
        checkpoints=tuple(
            (each.log, each.checkpoint) for each in results if each.log and each.checkpoint
        ),
        reason=tuple(
            f"log entry {each.fate.value}: {each.reason}" for each in results if not each.proved
        ),
        entries=tuple(
            LoggedAt(each.log, each.index, Digest(each.leaf.hex()))
            for each in results
            if each.proved and each.log is not None and each.index is not None
        ),
    )


def _logged(bundle: Bundle, signer: SignedBy, label: str) -> LoggedSignature:
    material = bundle.material
    if isinstance(material, Certificate):
        key = PublicKey.of_certificate(material.der, label)
    elif isinstance(signer, PublicKey):
        key = signer
    else:
        raise ValueError(f"{label} has no certificate, and yet an identity signed it")
    return logged_signature(bundle.envelope, verifier_of(material, key))


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
