"""What a CI step finds on its machine: secrets, which it keeps to itself, and a Nix or none."""

import os

from nix_seed.cli.trust.key import PASSPHRASE
from nix_seed.core.processes import current_system
from nix_seed.flake.nix import Nix
from nix_seed.setup.ci_host import CiHost

# Never seen by Nix or anything else that is started: a build that may use the network (a download
# by hash) can read its builder's variables.
KEPT_FROM_CHILDREN = (
    "SEED_REGISTRY_TOKEN",
    "SEED_KEY",
    PASSPHRASE,
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
    "ACTIONS_ID_TOKEN_REQUEST_URL",
    "ACTIONS_RUNTIME_TOKEN",
    "SIGSTORE_ID_TOKEN",
    "CI_REGISTRY_PASSWORD",
    "SEED_SOURCE_TOKEN",
    "SEED_ATTESTATIONS_TOKEN",
)


def take_secrets() -> dict[str, str]:
    """Take the secrets out of this process's environment: nothing that is started inherits them."""
    found = {name: os.environ.pop(name, "") for name in KEPT_FROM_CHILDREN}
    return {name: value for name, value in found.items() if value}


def tell_machine(*, only: bool) -> None:
    """Say whether there is a Nix, and which; with *only*, just what setting up took."""
    take_secrets()  # Nix is asked for its version
    host, nix = CiHost(), Nix()
    outputs = {"seconds": "" if host.setup_seconds is None else str(host.setup_seconds)}
    if not only:
        found = nix.is_at_hand()
        host.say(f"system  {current_system()}")
        host.say(f"nix     {nix.version() if found else 'none yet'}")
        outputs["nix"] = str(found).lower()
    host.set_outputs(outputs)
