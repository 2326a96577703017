"""From ``trust.toml`` on disk to what judges by it, and from a reference to the digest verified."""

import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError
from nix_seed.core.files import read_given, write_atomically
from nix_seed.core.values import dataclass
from nix_seed.core.verdict import Fate
from nix_seed.registry.open import AnyReference, Stores, choose_system, fetch
from nix_seed.release.rules.answer import Verification
from nix_seed.release.verifiers import RootPins, Verifiers, open_ledger
from nix_seed.release.verify import Query, verify_image
from nix_seed.trust.rules.bundle import BundleCheck
from nix_seed.trust.rules.policy import Policy, PolicyBook
from nix_seed.trust.rules.policy_file import parse_policy
from nix_seed.trust.watch_logs import watch_logs

_LARGEST = 1 << 20


@dataclass(frozen=True, slots=True)
class LoadedPolicy:
    """A policy, what judges the certificates it lets sign, and where it lies.

    *now* is the time by which it was read, and is to be judged.
    """

    policy: Policy
    certificates: BundleCheck | None
    directory: Path
    now: datetime


def load_policy(path: Path, now: datetime | None = None) -> LoadedPolicy:
    """Read the policy at *path*, as it is to be believed *now*, else at this moment.

    ``InputError`` where it is missing or no policy.
    """
    now = now or datetime.now(UTC)
    if not path.is_file():
        missing = "there is no such file"
        if path.exists():
            missing = "it is a directory" if path.is_dir() else "it is no ordinary file"
        raise InputError(
            f"there is no policy at {path}: {missing}",
            hint="name one with --policy FILE; `nix-seed policy init` writes one to begin with",
        )
    policy = parse_policy(read_given(path, _LARGEST), str(path), now)
    return LoadedPolicy(policy, _certificates(policy, path), path.parent, now)


def load_policy_of_then(path: Path) -> LoadedPolicy:
    """Read the policy at *path*, though it may have expired: to judge what was made by it."""
    return load_policy(path, datetime(1970, 1, 1, tzinfo=UTC))


def _certificates(policy: Policy, path: Path) -> BundleCheck | None:
    """Return what judges certificates, by the trusted root the policy names beside itself."""
    if policy.trusted_root is None:
        return None
    # Only here: Sigstore's library takes a while to load.
    from nix_seed.trust.sigstore import SigstoreCheck

    root = path.parent / policy.trusted_root
    return SigstoreCheck(read_given(root), str(root))


def earlier_of(loaded: LoadedPolicy, paths: Sequence[Path]) -> tuple[Verifiers, ...]:
    """Read the policies that came before *loaded*: ``InputError`` for those that cannot have."""
    found = [load_policy_of_then(path) for path in paths]
    PolicyBook.of(loaded.policy, [each.policy for each in found])
    return tuple(verifiers_of(each, ask=False) for each in found)


def verifiers_of(
    loaded: LoadedPolicy,
    stores: Stores | None = None,
    state: Path | None = None,
    *,
    ask: bool = True,
    ledgers: bool = True,
) -> Verifiers:
    """Return what judges by the policy what lies in *stores*.

    In the directory *state* the checkpoints that logs show, and the roots of promoted commits, are
    kept, and held against them; None keeps nothing. *ask*: the logs themselves may be asked, where
    the policy says where they are, and its ledgers are; else what needs their word could not be
    checked. Without *ledgers* that is not wanted at all.
    """
    watch = pins = None
    if state is not None:
        watch = watch_logs(loaded.policy, loaded.directory, state, ask=ask)
        pins = RootPins(state / "promoted")
    wanted = loaded.policy.ledgers if ledgers else ()
    return Verifiers(
        loaded.policy,
        loaded.now,
        stores or Stores(),
        loaded.certificates,
        watch,
        pins,
        tuple(open_ledger(spec) for spec in wanted if ask),
        tuple(spec.id for spec in wanted if not ask),
    )


_FRESH = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class TrustedReference:
    """What may be used: *reference* by digest, and why, in one line."""

    reference: AnyReference
    reason: str


def check_trusted(
    stores: Stores, reference: AnyReference, system: str | None, loaded: LoadedPolicy, state: Path
) -> TrustedReference:
    """Verify what *reference* names by the policy; of an index, *system*'s image, or all of it.

    What is returned names the digest that was verified, so that no tag can move in between. A
    digest that this machine verified by the same policy within a day is not verified again.
    Raises ``CheckedFalse`` where it is not what it must be, ``CouldNotCheck`` where that cannot be
    told.
    """
    if reference.digest is not None and system is not None:
        mark = _mark(state, loaded.policy.digest, reference.digest)
        if _fresh(mark):
            return TrustedReference(reference, "verified within the last day, by this policy")
    store = stores.open(reference)
    root = fetch(store, reference)
    chosen = root if system is None else choose_system(store, root, system)
    pinned = reference.at(root.descriptor.digest)
    found = verify_image(verifiers_of(loaded, stores, state), pinned, Query(system=system))
    _check(found, str(reference))
    used = chosen.descriptor.digest
    if all(image.digest != used for image in found.images) and used != root.descriptor.digest:
        raise CheckedFalse(f"{reference}: {used} was to be used, and something else was verified")
    if system is not None:
        with suppress(CouldNotCheck):  # a mark saves time; without it one verifies again
            write_atomically(_mark(state, loaded.policy.digest, used), b"")
    return TrustedReference(reference.at(used), found.reason)


def _check(found: Verification, reference: str) -> None:
    hint = f"nix-seed verify {reference} shows every check; --no-verify uses it all the same"
    if found.fate is Fate.FALSE:
        raise CheckedFalse(f"{reference} does not verify: {found.reason}", hint=hint)
    if found.fate is not Fate.VERIFIED:
        raise CouldNotCheck(f"{reference} could not be verified: {found.reason}", hint=hint)


def _mark(state: Path, policy: Digest, image: Digest) -> Path:
    return state / "verified" / policy.hex / image.hex


def _fresh(mark: Path) -> bool:
    try:
        age = time.time() - mark.stat().st_mtime
    except OSError:
        return False
    return 0 <= age < _FRESH
