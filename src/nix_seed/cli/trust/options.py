"""Who signs, as the command line says it: a key file, or the identity a CI job has."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nix_seed.cli.command import EXISTING_FILE, option, together
from nix_seed.cli.options import policy_option
from nix_seed.cli.trust.key import PASSPHRASE
from nix_seed.release.attester import Attester, builder_of

if TYPE_CHECKING:
    from nix_seed.sbom.sbom import Format
    from nix_seed.setup.rules.ci_inputs import Decision
    from nix_seed.trust.rules.policy import Policy
    from nix_seed.trust.sign import Signer


def signer_of(key: Path | None, sigstore: Path | None = None) -> Signer:
    """Return the signer with *key*, or without one a keyless one (*sigstore*: which instance)."""
    if key is not None:
        from nix_seed.trust.sign import KeySigner

        return KeySigner.open(key, os.environ.get(PASSPHRASE))
    from nix_seed.trust.sigstore import KeylessSigner

    return KeylessSigner(None if sigstore is None else sigstore.read_bytes())


def attester_of(
    signer: Signer,
    given: str | None,
    policy_file: Path | None,
    sboms: Sequence[Format] | None = None,
) -> Attester:
    """Return who attests: *signer*, under the id that is *given* or that the policy has for it.

    Without a *policy_file* it is the one in this directory, if there is one.
    """
    from nix_seed.flake.checkout import DEFAULT_POLICY
    from nix_seed.release.load import load_policy
    from nix_seed.trust.sign import open_logs

    if policy_file is None and not DEFAULT_POLICY.is_file():
        return Attester(builder_of(None, signer, given), signer, sboms=sboms)
    loaded = load_policy(policy_file or DEFAULT_POLICY)
    builder = builder_of(loaded.policy, signer, given)
    logs = open_logs(loaded.policy, loaded.directory)
    return Attester(builder, signer, logs, sboms, loaded.policy)


def why_stranger(signer: Signer, policy: Policy, decision: Decision) -> str | None:
    """Return why a CI job's own identity is rightly none that *policy* knows; None where it is.

    A key is a secret that somebody gave the job: one that the policy does not know is a mistake.
    """
    from nix_seed.logs.rules.signer import CertificateIdentity
    from nix_seed.setup.rules.ci_inputs import why_unknown
    from nix_seed.trust.rules.policy import is_signer

    known = [each.signer for each in policy.builders]
    known += [each.signer for each in policy.promoters]
    if not isinstance(signer.who, CertificateIdentity):
        return None
    if any(is_signer(each, signer.who) for each in known):
        return None
    why = why_unknown(decision, policy.source)
    return f"{why}, whose identity, {signer.identity}, the policy does not know" if why else None


key_option = option("--key FILE", "Sign with this key [keyless].")
sigstore_option = option(
    "--sigstore FILE",
    "ClientTrustConfig of a private Sigstore [the public one].",
    type=EXISTING_FILE,
)


signing_options = together(
    policy_option(
        "The policy that knows the builder and the logs [trust.toml, if there].", default=None
    ),
    key_option,
    sigstore_option,
    option("--source URL", "Where the source is published [remote origin]."),
)
"""Add who signs, by what policy, and where the source is published."""
