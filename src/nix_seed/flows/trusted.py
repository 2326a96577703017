"""Verify before use: from a reference to the very digest that was verified, or an error."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from nix_seed.clients.files import write_atomically
from nix_seed.flows.events import OnEvent, Stage, ignore
from nix_seed.flows.pull import choose_system
from nix_seed.flows.stores import AnyReference, Stores, fetch
from nix_seed.flows.trust import LoadedPolicy, judges_of
from nix_seed.flows.verify import Asked, verify_image
from nix_seed.ground.digests import Digest
from nix_seed.ground.errors import CheckedFalse, CouldNotCheck
from nix_seed.rules.bundle_verify import Fate
from nix_seed.rules.verification import Verification

__all__ = ["Trusted", "check_trusted"]

_FRESH = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Trusted:
    """What may be used: *reference* by digest, and why, in one line."""

    reference: AnyReference
    words: str


def check_trusted(
    stores: Stores,
    reference: AnyReference,
    system: str | None,
    loaded: LoadedPolicy,
    state: Path,
    now: datetime,
    on_event: OnEvent = ignore,
) -> Trusted:
    """Verify what *reference* names by the policy; of an index, *system*'s image, or all of it.

    What is returned names the digest that was verified, so that no tag can move in between. A
    digest that this machine verified by the same policy within a day is not verified again.
    Raises ``CheckedFalse`` where it is not what it must be, ``CouldNotCheck`` where that cannot be
    told.
    """
    if reference.digest is not None and system is not None:
        mark = _mark(state, loaded.policy.digest, reference.digest)
        if _fresh(mark):
            return Trusted(reference, "verified within the last day, by this policy")
    on_event(Stage("verify", f"verifying {reference}"))
    store = stores.open(reference)
    root = fetch(store, reference)
    chosen = root if system is None else choose_system(store, root, system)
    pinned = reference.at(root.descriptor.digest)
    found = verify_image(
        stores, pinned, loaded.policy, Asked(system=system), judges_of(loaded, state), now
    )
    _check(found, str(reference))
    used = chosen.descriptor.digest
    if all(image.digest != used for image in found.images) and used != root.descriptor.digest:
        raise CheckedFalse(f"{reference}: {used} was to be used, and something else was verified")
    if system is not None:
        with suppress(CouldNotCheck):  # a mark saves time; without it one verifies again
            write_atomically(_mark(state, loaded.policy.digest, used), b"")
    return Trusted(reference.at(used), found.words)


def _check(found: Verification, reference: str) -> None:
    hint = f"nix-seed verify {reference} shows every check; --no-verify uses it all the same"
    if found.fate is Fate.FALSE:
        raise CheckedFalse(f"{reference} does not verify: {found.words}", hint=hint)
    if found.fate is not Fate.VERIFIED:
        raise CouldNotCheck(f"{reference} could not be verified: {found.words}", hint=hint)


def _mark(state: Path, policy: Digest, image: Digest) -> Path:
    return state / "verified" / policy.hex / image.hex


def _fresh(mark: Path) -> bool:
    try:
        age = time.time() - mark.stat().st_mtime
    except OSError:
        return False
    return 0 <= age < _FRESH
