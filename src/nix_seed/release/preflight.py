"""What is refused before anything is attested; also without what attesting an image loads."""

from __future__ import annotations

from datetime import UTC, datetime

from nix_seed.core.errors import InputError
from nix_seed.core.values import dataclass
from nix_seed.flake.checkout import Checkout, read_checkout
from nix_seed.formats.intoto import statement as intoto
from nix_seed.release.attester import Attester, SourceTree
from nix_seed.trust.rules.policy_checks import check_counts
from nix_seed.trust.sign import check_writable_logs


@dataclass(frozen=True, slots=True)
class AttestPreflight:
    """What is settled before any work: the *checkout*, and the *source* that is to be stated."""

    checkout: Checkout
    source: intoto.Source


def prepare_attest(
    tree: SourceTree, attester: Attester, system: str | None = None
) -> AttestPreflight:
    """Refuse what would end in no statement, or in one that counts for nothing; send nothing.

    ``InputError`` for a tree with changes, for a source or *system* that the policy does not want
    of this builder, for a signer without an identity; and what each log raises that cannot be
    written to.
    """
    checkout = read_checkout(tree.directory)
    if checkout.dirty and not tree.allow_dirty:
        raise InputError(
            f"{tree.directory} has changes that no commit holds",
            detail="\n".join(checkout.changes[:10]),
            hint="commit them; or, with --allow-dirty, have the attestation say so, which counts "
            "for no quorum",
        )
    source = _source(checkout, tree)
    if attester.policy is not None:
        check_counts(attester.policy, attester.builder, source.uri, system, datetime.now(UTC))
    check_writable_logs(attester.logs, attester.signer.who)
    return AttestPreflight(checkout, source)


def _source(checkout: Checkout, tree: SourceTree) -> intoto.Source:
    if tree.uri is not None and checkout.origin is not None and tree.uri != checkout.origin:
        raise InputError(
            f"{tree.directory} comes from {checkout.origin}, not from {tree.uri}",
            hint="leave --source out: the remote called origin says it",
        )
    uri = checkout.origin or tree.uri
    if uri is None:
        raise InputError(
            f"{tree.directory} has no remote called origin that says where it is published",
            hint="add one (git remote add origin URL), or name it: --source URL",
        )
    return intoto.Source(uri, checkout.commit, checkout.lock_hash, checkout.dirty)
