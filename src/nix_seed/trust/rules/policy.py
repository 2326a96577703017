"""Whom to believe, and how many of them: ``trust.toml`` as values (docs/verify.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Literal
from unicodedata import category, normalize

from nix_seed.core.digests import Digest
from nix_seed.logs.rules.entry import TrustedLog, TrustedWitness
from nix_seed.logs.rules.signer import CertificateIdentity, PublicKey

Attribute = Literal["operator", "provider", "jurisdiction"]
LogKind = Literal["tiles", "rekor-v2", "rekor-v1"]
OutputsRule = Literal["own", "quorum", "none"]


Signer = PublicKey | CertificateIdentity
"""Who signs: the holder of a key, or whom an OIDC issuer vouches for; both compared exactly."""


def same_name(text: str) -> str:
    """Return *text* such that spellings a reader takes for one name are equal.

    Case, blanks, what cannot be seen and Unicode's compatibility forms make no difference.
    """
    seen = "".join(c for c in normalize("NFKC", text) if category(c) != "Cf")
    return " ".join(normalize("NFKC", seen.casefold()).split())


def signer_name(signer: Signer) -> str:
    """Return how people are shown *signer*."""
    return f"key {signer.fingerprint}" if isinstance(signer, PublicKey) else str(signer)


def is_signer(trusted: Signer, actual: Signer) -> bool:
    """Whether *trusted*, as a policy names it, is the *actual* one."""
    if isinstance(trusted, CertificateIdentity) and isinstance(actual, CertificateIdentity):
        return trusted.admits(actual)
    return trusted == actual


@dataclass(frozen=True, slots=True)
class Builder:
    """A builder whose word counts for *systems*, from *not_before* until *revoked_at*."""

    id: str
    signer: Signer
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
class PolicyLog(TrustedLog):
    """A transparency log that the policy trusts, and where it is."""

    url: str | None
    operator: str | None

    def place(self, beside: Path) -> str | None:
        """Return its address or directory; the policy's file lies in the directory *beside*."""
        local = self.url is not None and "://" not in self.url
        return str(beside / self.url) if local and self.url else self.url


@dataclass(frozen=True, slots=True)
class Witness(TrustedWitness):
    """A witness of logs that the policy trusts."""

    operator: str | None


@dataclass(frozen=True, slots=True)
class Promoter:
    """Who may promote a release, or sign the next policy."""

    id: str
    signer: Signer


@dataclass(frozen=True, slots=True)
class Quorum:
    """How many builders must agree, *distinct* in what; in how many logs; under how many witnesses.

    *promoters* is how many promoters must sign a promotion or the next policy.
    """

    threshold: int
    distinct: tuple[Attribute, ...]
    logs: int
    witnesses: int
    promoters: int


@dataclass(frozen=True, slots=True)
class BuiltDemands:
    """What a claim must say of how it was built, to count."""

    here: bool
    sandbox: bool
    no_reused_layers: bool


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

    @property
    def logged(self) -> Policy:
        """The policy by which releases are made: of logged evidence alone."""
        return replace(self, quorum=replace(self.quorum, logs=max(1, self.quorum.logs)))


LedgerKind = Literal["evm"]


@dataclass(frozen=True, slots=True)
class LedgerSpec:
    """An EVM contract that keeps a ledger: where it is, whom to ask, what counts as settled.

    *address* is ``0x`` and 40 hex digits, in the capitals it was written with (EIP-55 makes them a
    checksum, which the client checks). *confirmations* is how many blocks must lie on top of an
    entry's; None leaves it to the nodes' own ``finalized``. *from_block* is where a replay begins.
    """

    id: str
    kind: LedgerKind
    chain_id: int
    address: str
    rpc: tuple[str, ...]
    confirmations: int | None
    from_block: int = 0
