"""From ``trust.toml`` on disk to what judges by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from nix_seed.clients.files import explained
from nix_seed.clients.ledgers.choose import open_ledger
from nix_seed.clients.root_pins import RootPins
from nix_seed.flows.ledger import Earlier
from nix_seed.flows.log_watch import watch_logs
from nix_seed.flows.verify import Judges
from nix_seed.ground.errors import InputError
from nix_seed.rules.audit_policies import PolicyBook
from nix_seed.rules.bundle_verify import BundleCheck
from nix_seed.rules.policy import Policy
from nix_seed.rules.policy_file import parse_policy
from nix_seed.rules.policy_logs import judge_logs_by

__all__ = [
    "DEFAULT_POLICY",
    "LoadedPolicy",
    "earlier_of",
    "judges_of",
    "load_policy",
    "load_policy_of_then",
]

DEFAULT_POLICY = Path("trust.toml")
_LARGEST = 1 << 20


@dataclass(frozen=True, slots=True)
class LoadedPolicy:
    """A policy, its exact bytes, what judges the certificates it lets sign, and where it lies."""

    policy: Policy
    text: bytes
    certificates: BundleCheck | None
    directory: Path


def load_policy(path: Path, now: datetime) -> LoadedPolicy:
    """Read the policy at *path*; ``InputError`` where it is missing or no policy."""
    if not path.is_file():
        raise InputError(
            f"there is no policy at {path}",
            hint="name one with --policy FILE; `nix-seed policy init` writes one to begin with",
        )
    with explained(f"reading {path}"), path.open("rb") as file:
        text = file.read(_LARGEST + 1)
    if len(text) > _LARGEST:
        raise InputError(f"{path} is larger than {_LARGEST >> 20} MiB, which no policy is")
    policy = parse_policy(text, str(path), now)
    return LoadedPolicy(policy, text, _certificates(policy, path), path.parent)


def load_policy_of_then(path: Path) -> LoadedPolicy:
    """Read the policy at *path*, though it may have expired: to judge what was made by it."""
    return load_policy(path, datetime(1970, 1, 1, tzinfo=UTC))


def _certificates(policy: Policy, path: Path) -> BundleCheck | None:
    """Return what judges certificates, by the trusted root the policy names beside itself."""
    if policy.trusted_root is None:
        return None
    # Only here: keyless verification is an extra.
    from nix_seed.clients.sigstore_verify import SigstoreCheck  # noqa: PLC0415

    root = path.parent / policy.trusted_root
    with explained(f"reading {root}"):
        text = root.read_bytes()
    return SigstoreCheck(text, str(root))


def earlier_of(loaded: LoadedPolicy, paths: Sequence[Path]) -> tuple[Earlier, ...]:
    """Read the policies that came before *loaded*: ``InputError`` for those that cannot have."""
    found = [load_policy_of_then(path) for path in paths]
    PolicyBook.of(loaded.policy, [each.policy for each in found])
    return tuple(Earlier(each.policy, judges_of(each, ask=False)) for each in found)


def judges_of(
    loaded: LoadedPolicy, state: Path | None = None, *, ask: bool = True, ledgers: bool = True
) -> Judges:
    """Return what judges log entries and certificates by the policy.

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
    return Judges(
        judge_logs_by(loaded.policy),
        loaded.certificates,
        watch,
        pins,
        tuple(open_ledger(spec) for spec in wanted if ask),
        tuple(spec.id for spec in wanted if not ask),
    )
