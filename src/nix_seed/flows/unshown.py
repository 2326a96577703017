"""What a log's index has of a commit in a builder's name, and no registry shows.

A registry that hides a dissent hides it well; a log that can be asked by the commit does not forget
it. Rekor v1 has such an index. Logs of tiles have none: there it takes an audit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from nix_seed.clients.logs.base import Log
from nix_seed.flows.attach import Discovered
from nix_seed.formats.intoto.commit import Commit
from nix_seed.formats.tlog.entry import LogEntry
from nix_seed.formats.tlog.merkle import leaf_hash
from nix_seed.ground.digests import Digest
from nix_seed.ground.errors import CouldNotCheck
from nix_seed.rules.audit_entries import Explained, PromoterEntry, Sieve
from nix_seed.rules.bundle_verify import Expected, Trust, evaluate_bundle
from nix_seed.rules.policy import Builder, Policy, Signer

__all__ = ["check_unshown"]

_ANYTHING = Expected(subject=None, predicate_types=None)


def check_unshown(
    logs: Sequence[Log], commit: Commit, policy: Policy, shown: Discovered, trust: Trust
) -> tuple[str, ...]:
    """Ask the *logs* that have an index for all of *commit*; return which were out of reach.

    *trust* is that in the policy's builders: what none of them signed explains no entry. Raises
    ``CouldNotCheck`` where a builder signed what nothing *shown* explains, or a log that is there
    does not give all that its index has; ``CheckedFalse`` where it lies.
    """
    explained = _explained(shown, trust)
    absent = []
    for log in logs:
        if log.trusted.kind != "rekor-v1":
            continue
        try:
            log.checkpoint()
        except CouldNotCheck as error:
            absent.append(f"what {log.trusted.id} holds of {commit} is not known: {error.message}")
            continue
        for entry in _of_builders(log, commit, policy):
            if not explained.explains(entry):
                raise _unshown(entry, commit)
    return tuple(absent)


def _of_builders(log: Log, commit: Commit, policy: Policy) -> Iterator[PromoterEntry]:
    for value in log.lookup(commit.key.raw):
        entry = LogEntry.from_json(value, f"an entry of {log.trusted.id}")
        time = datetime.fromtimestamp(entry.integrated_time, UTC)
        then = replace(policy, builders=tuple(b for b in policy.builders if not _revoked(b, time)))
        sieve = Sieve(log.trusted.id, [then], builders=True)
        sieve.look(entry.index, entry.body, leaf_hash(entry.body))
        yield from sieve.found


def _revoked(builder: Builder, time: datetime) -> bool:
    """Whether what *builder* signed at *time* counts no more, and so is no dissent either."""
    return builder.revoked_at is not None and time >= builder.revoked_at


def _explained(shown: Discovered, trust: Trust) -> Explained:
    """Return what was signed and is there to be judged; a broken signature hides a dissent.

    What a builder signed and says badly, or says of something else, is shown all the same: it
    blocks nothing here. An audit, which only tells, explains less (``Gathering``).
    """
    votes: set[tuple[Signer, Digest]] = set()
    for each in shown.attestations:
        verdict = evaluate_bundle(each.text, trust, _ANYTHING, each.place)
        if verdict.signer is not None and verdict.bundle is not None:
            signed = verdict.bundle.envelope
            votes |= {(verdict.signer, Digest.of(e)) for e in (signed.pae, signed.payload)}
    return Explained(votes=frozenset(votes))


def _unshown(entry: PromoterEntry, commit: Commit) -> CouldNotCheck:
    return CouldNotCheck(
        f"{entry.promoter} signed something about {commit}, which is entry {entry.index} of the "
        f"log {entry.log}, and no repository shows it: it may be a dissent",
        hint="nothing was published; get the attestation from the builder, and name the repository "
        "where it lies: --evidence REF",
    )
