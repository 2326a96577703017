"""Who signs, as the command line says it: a key file, or the identity a CI job has."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from nix_seed.cli.command import EXISTING_FILE, option, together
from nix_seed.cli.lazily import lazily
from nix_seed.cli.options import policy_option
from nix_seed.cli.trust.key import PASSPHRASE
from nix_seed.core.files import read_given
from nix_seed.release.attester import Attester, builder_of

with lazily():
    from nix_seed.flake import checkout
    from nix_seed.release import load
    from nix_seed.sbom import sbom
    from nix_seed.trust import sign, sigstore as keyless


def signer_of(key: Path | None, sigstore: Path | None = None) -> sign.Signer:
    """Return the signer with *key*, or without one a keyless one (*sigstore*: which instance)."""
    if key is not None:
        return sign.KeySigner.open(key, os.environ.get(PASSPHRASE))

    return keyless.KeylessSigner(None if sigstore is None else read_given(sigstore))


def attester_of(
    signer: sign.Signer,
    given: str | None,
    policy_file: Path | None,
    sboms: Sequence[sbom.Format] | None = None,
) -> Attester:
    """Return who attests: *signer*, under the id that is *given* or that the policy has for it.

    Without a *policy_file* it is the one in this directory, if there is one.
    """
    if policy_file is None and not checkout.DEFAULT_POLICY.is_file():
        return Attester(builder_of(None, signer, given), signer, sboms=sboms)
    loaded = load.load_policy(policy_file or checkout.DEFAULT_POLICY)
    builder = builder_of(loaded.policy, signer, given)
    logs = sign.open_logs(loaded.policy, loaded.directory)
    return Attester(builder, signer, logs, sboms, loaded.policy)


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
