"""Whom to believe, and how many of them: ``trust.toml`` as values (docs/verify.md).

Which of the policy's logs hold an envelope, and since when, is told from the entries in its bundle.
A repository's policies are the one in force, and those that came before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self
from unicodedata import category, normalize

from nix_seed.core.digests import Digest
from nix_seed.core.errors import InputError
from nix_seed.core.values import dataclass
from nix_seed.formats.intoto.bundle import Bundle, Certificate
from nix_seed.formats.tlog.entry import LoggedSignature
from nix_seed.formats.tlog.note import SignedCheckpoint
from nix_seed.logs.rules import entry
from nix_seed.trust.rules.signer import CertificateIdentity, PublicKey, SignedBy

Attribute = Literal["operator", "provider", "jurisdiction"]
OutputsRule = Literal["own", "quorum", "none"]


def same_name(text: str) -> str:
    """Return *text* such that spellings a reader takes for one name are equal.

    Case, blanks, what cannot be seen and Unicode's compatibility forms make no difference.
    """
    seen = "".join(c for c in normalize("NFKC", text) if category(c) != "Cf")
    return " ".join(normalize("NFKC", seen.casefold()).split())


def signer_name(signer: SignedBy) -> str:
    """Return how people are shown *signer*."""
    return f"key {signer.fingerprint}" if isinstance(signer, PublicKey) else str(signer)


def is_signer(trusted: SignedBy, actual: SignedBy) -> bool:
    """Whether *trusted*, as a policy names it, is the *actual* one."""
    if isinstance(trusted, CertificateIdentity) and isinstance(actual, CertificateIdentity):
        return trusted.admits(actual)
    return trusted == actual


@dataclass(frozen=True, slots=True)
class Builder:
    """A builder whose word counts for *systems*, from *not_before* until *revoked_at*."""

    id: str
    signer: SignedBy
    systems: frozenset[str]
    operator: str | None
    provider: str | None
    jurisdiction: str | None
    not_before: datetime | None
    revoked_at: datetime | None

    def attribute(self, name: Attribute) -> str | None:
        """Return the value of the attribute *name*, alike for all spellings of one name."""
        value: str | None = getattr(self, name)
        return None if value is None else same_name(value)


@dataclass(frozen=True, slots=True)
class PolicyLog(entry.TrustedLog):
    """A transparency log that the policy trusts, and where it is."""

    url: str | None
    operator: str | None

    def place(self, beside: Path) -> str | None:
        """Return its address or directory; the policy's file lies in the directory *beside*."""
        local = self.url is not None and "://" not in self.url
        return str(beside / self.url) if local and self.url else self.url


@dataclass(frozen=True, slots=True)
class Witness(entry.TrustedWitness):
    """A witness of logs that the policy trusts."""

    operator: str | None


@dataclass(frozen=True, slots=True)
class Promoter:
    """Who may promote a release, or sign the next policy."""

    id: str
    signer: SignedBy


@dataclass(frozen=True, slots=True)
class Quorum:
    """How many builders must agree, *distinct* in what; in how many logs; under how many witnesses.

    *promoters* is how many promoters must sign a promotion or the next policy.
    """

    threshold: int
    distinct: tuple[Attribute, ...]
    logs: int = 0
    witnesses: int = 0
    promoters: int = 0


@dataclass(frozen=True, slots=True)
class BuiltDemands:
    """What a claim must say of how it was built, to count."""

    here: bool = field(metadata={"key": "requireBuiltHere"})
    sandbox: bool = field(metadata={"key": "requireSandbox"})
    no_reused_layers: bool = field(metadata={"key": "refuseReusedLayers"})


@dataclass(frozen=True, slots=True)
class Policy:
    """A whole policy; *digest* is of the exact bytes of its file.

    *accepts* are earlier policies, by digest, whose promotions still stand, and how many systems
    made a release complete by each. *licences* are those (or packages) that whoever uses this
    policy has accepted. *outputs* is whose word is enough to take what the project itself built:
    that of any builder, of as many as the quorum wants, or nobody's.
    """

    epoch: int
    expires: datetime
    source: str | None
    systems: tuple[str, ...]
    quorum: Quorum
    built: BuiltDemands
    builders: tuple[Builder, ...]
    logs: tuple[PolicyLog, ...]
    witnesses: tuple[Witness, ...]
    promoters: tuple[Promoter, ...]
    trusted_root: str | None
    digest: Digest
    accepts: Mapping[Digest, int] = field(default_factory=dict)
    ledgers: tuple[LedgerSpec, ...] = ()
    licences: tuple[str, ...] = ()
    outputs: OutputsRule = "own"

    def repository(self) -> str:
        """Return the source; ``InputError`` if it names none: releases are of one repository."""
        if self.source is None:
            raise InputError(
                "the policy does not say of which repository it is",
                hint='add source = "https://…" to it: releases and ledgers are of one repository',
            )
        return self.source

    @property
    def logged(self) -> Policy:
        """The policy by which releases are made: of logged evidence alone."""
        return replace(self, quorum=replace(self.quorum, logs=max(1, self.quorum.logs)))


@dataclass(frozen=True, slots=True)
class LedgerSpec:
    """An EVM contract that keeps a ledger: where it is, whom to ask, what counts as settled.

    *address* is ``0x`` and 40 hex digits, in the capitals it was written with (EIP-55 makes them a
    checksum, which the client checks). *confirmations* is how many blocks must lie on top of an
    entry's; None leaves it to the nodes' own ``finalized``. *from_block* is where a replay begins.
    """

    id: str
    kind: Literal["evm"]
    chain_id: int
    address: str
    rpc: tuple[str, ...]
    confirmations: int | None
    from_block: int = 0


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


def log_trust(policy: Policy) -> entry.LogTrust:
    """Return the logs and witnesses of *policy*, as log entries are judged by."""
    return entry.LogTrust(policy.logs, policy.witnesses, policy.quorum.witnesses)


def judge_logs(bundle: Bundle, signer: SignedBy, label: str, trust: entry.LogTrust) -> LogFindings:
    """Judge the log entries of a bundle that *signer* was proved to have signed."""
    results = entry.evaluate_entries(bundle.tlog_entries, _logged(bundle, signer, label), trust)
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
    return entry.logged_signature(bundle.envelope, key.verifier(material))


def _times(results: Sequence[entry.EntryResult], witnesses: int) -> Iterator[tuple[str, datetime]]:
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


@dataclass(frozen=True, slots=True)
class PolicyBook:
    """The *present* policy, and *earlier* ones by their digest."""

    present: Policy
    earlier: Mapping[Digest, Policy]

    @classmethod
    def of(cls, present: Policy, earlier: Iterable[Policy]) -> Self:
        """Put a book together; ``InputError`` for two policies that cannot be of one history."""
        found = {policy.digest: policy for policy in earlier if policy.digest != present.digest}
        for policy in found.values():
            if policy.epoch >= present.epoch:
                raise InputError(
                    f"the policy {policy.digest} has epoch {policy.epoch}, and that in force has "
                    f"{present.epoch}: it is no earlier one",
                    hint="--policy is the policy in force, --policy-history those before it",
                )
            if policy.source != present.source:
                raise InputError(
                    f"the policy {policy.digest} is of {policy.source}, not of {present.source}"
                )
        return cls(present, found)

    @property
    def all(self) -> tuple[Policy, ...]:
        """Every policy, the one in force first."""
        return self.present, *self.earlier.values()

    def of_record(self, digest: Digest) -> Policy:
        """Return the policy that a record names; where it is unknown, the one in force."""
        return self.earlier.get(digest, self.present)

    def knows(self, digest: Digest) -> bool:
        """Whether the policy with this digest is at hand."""
        return digest == self.present.digest or digest in self.earlier
