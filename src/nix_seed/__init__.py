"""Nix Seed: layered, offline OCI build images from Nix flakes, that anyone can check.

For programs this offers what the commands do, under their names; docs/library.md has examples. Each
is imported when it is first asked for: the command's start must not pay for it. ``audit`` is a
room's name, so its function is ``audit_release``.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nix_seed.audit.audit import audit as audit_release
    from nix_seed.audit.rules.report import AuditReport
    from nix_seed.core.errors import (
        CheckedFalse,
        CouldNotCheck,
        InputError,
        NixFailed,
        NixSeedError,
    )
    from nix_seed.formats.oci.reference import parse_reference
    from nix_seed.image.build import Built, assemble_image as build, store_image
    from nix_seed.image.plan import Plan, plan_image as plan
    from nix_seed.image.push import push
    from nix_seed.registry.credentials import Keyring
    from nix_seed.registry.open import Stores
    from nix_seed.registry.transfer import Transferred, pull
    from nix_seed.release.api import verify
    from nix_seed.release.attest import Attested, attest
    from nix_seed.release.load import load_policy
    from nix_seed.release.promote import Promoted, promote
    from nix_seed.release.rules.answer import Verification
    from nix_seed.trust.rules.policy import Policy
    from nix_seed.use.hydrate import Hydrated, hydrate
    from nix_seed.use.run import Command, RunResult, run

__all__ = [
    "Attested",
    "AuditReport",
    "Built",
    "CheckedFalse",
    "Command",
    "CouldNotCheck",
    "Hydrated",
    "InputError",
    "Keyring",
    "NixFailed",
    "NixSeedError",
    "Plan",
    "Policy",
    "Promoted",
    "RunResult",
    "Stores",
    "Transferred",
    "Verification",
    "__version__",
    "attest",
    "audit_release",
    "build",
    "hydrate",
    "load_policy",
    "parse_reference",
    "plan",
    "promote",
    "pull",
    "push",
    "run",
    "store_image",
    "verify",
]

__version__ = "0.1.0"

_MODULES = {
    "Attested": "release.attest",
    "AuditReport": "audit.rules.report",
    "Built": "image.build",
    "CheckedFalse": "core.errors",
    "Command": "use.run",
    "CouldNotCheck": "core.errors",
    "Hydrated": "use.hydrate",
    "InputError": "core.errors",
    "Keyring": "registry.credentials",
    "NixFailed": "core.errors",
    "NixSeedError": "core.errors",
    "Plan": "image.plan",
    "Policy": "trust.rules.policy",
    "Promoted": "release.promote",
    "RunResult": "use.run",
    "Stores": "registry.open",
    "Transferred": "registry.transfer",
    "Verification": "release.rules.answer",
    "attest": "release.attest",
    "audit_release": "audit.audit:audit",
    "build": "image.build:assemble_image",
    "hydrate": "use.hydrate",
    "load_policy": "release.load",
    "parse_reference": "formats.oci.reference",
    "plan": "image.plan:plan_image",
    "promote": "release.promote",
    "pull": "registry.transfer",
    "push": "image.push",
    "run": "use.run",
    "store_image": "image.build",
    "verify": "release.api",
}
"""Where each name is, below this package; after a colon what it is called there."""


def __getattr__(name: str) -> Any:
    """Import what is asked for only then."""
    if name not in _MODULES:
        raise AttributeError(f"module 'nix_seed' has no attribute {name!r}")
    from importlib import import_module

    module, _, there = _MODULES[name].partition(":")
    return getattr(import_module(f"nix_seed.{module}"), there or name)


def __dir__() -> list[str]:
    """Name what is offered, imported or not."""
    return sorted({*globals(), *__all__})
