"""Checks what lies beyond the machine: the policy's logs, registries, and the time there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from nix_seed.clients.registry.credentials import Keyring
from nix_seed.clients.registry.patience import Patience
from nix_seed.flows.events import OnEvent, Stage, ignore
from nix_seed.flows.trust import load_policy
from nix_seed.ground.errors import InputError
from nix_seed.rules.diagnosis import Diagnosis, Outcome, diagnose_error
from nix_seed.rules.policy import Log, Policy
from nix_seed.rules.policy_checks import policy_warnings
from nix_seed.rules.policy_logs import log_trust
from nix_seed.rules.setup_checks import Reading, judge_clock

__all__ = ["Reach", "check_reach"]

# Whoever asks a doctor is there, and waits.
_PATIENCE = Patience(attempts=1, connect=5.0, stall=10.0, settle=10.0)
_LOGIN = "docker login {0} (or podman login {0}), or set NIX_SEED_REGISTRY_TOKEN"


@dataclass(frozen=True, slots=True)
class Reach:
    """The *policy* file, None where there is none, and *registries* that must be reached.

    *now* is this machine's time; *plain_http* and *ca_file* are as for ``Stores``.
    """

    now: datetime
    keyring: Keyring = field(default_factory=Keyring)
    policy: Path | None = None
    registries: tuple[str, ...] = ()
    plain_http: bool = False
    ca_file: str | None = None


def check_reach(reach: Reach, on_event: OnEvent = ignore) -> Iterator[Diagnosis]:
    """Check policy, logs, credentials, registries and, by whoever answered, the clock."""
    readings: list[Reading] = []
    policy = None
    if reach.policy is not None:
        try:
            policy = load_policy(reach.policy, reach.now).policy
        except Exception as error:
            yield diagnose_error("policy", reach.policy.name, error)
        else:
            yield from _policy(policy, reach.policy, reach.now)
    for log in policy.logs if policy else ():
        on_event(Stage("check", f"asking the log {log.id}"))
        assert policy is not None
        yield _log(log, policy, reach, readings)
    yield from _credentials(reach)
    for host in reach.registries:
        on_event(Stage("check", f"asking {host}"))
        yield _registry(host, reach, readings)
    clock = judge_clock(readings)
    asked = [*reach.registries, *(log.url for log in (policy.logs if policy else ()) if log.url)]
    if clock is not None:
        yield clock
    elif any("://" in each or each in reach.registries for each in asked):
        said = "none of the servers above could be asked for its time"
        yield Diagnosis(
            "clock", "skew", Outcome.UNCHECKED, said, "reach one of them, and try again"
        )


def _policy(policy: Policy, path: Path, now: datetime) -> Iterator[Diagnosis]:
    until = f"epoch {policy.epoch}, until {policy.expires:%Y-%m-%d}"
    yield Diagnosis("policy", path.name, Outcome.FINE, until)
    for warning in policy_warnings(policy, now):
        fix = f"edit {path}, if you did not mean that"
        if "expires" in warning:
            fix = f"write its next epoch, with a later `expires`, into {path}"
        yield Diagnosis("policy", "warning", Outcome.WARNING, warning, fix)


def _log(log: Log, policy: Policy, reach: Reach, readings: list[Reading]) -> Diagnosis:
    if log.url is None:
        said = "the policy does not say where it is"
        return Diagnosis(
            "logs", log.id, Outcome.WARNING, said, f"give {log.id} a url in the policy"
        )
    from nix_seed.clients.logs.choose import open_history  # noqa: PLC0415

    trusted = next(each for each in log_trust(policy).logs if each.id == log.id)
    place = log.url if "://" in log.url else str((reach.policy or Path()).parent / log.url)
    try:
        if "://" in place:
            _read_clock(place, readings, reach)
        signed = open_history(trusted, place, patience=_PATIENCE).checkpoint()
    except Exception as error:
        return diagnose_error("logs", log.id, error)
    said = f"{place} answers: {signed.head.size} entries, signed by the policy's key"
    return Diagnosis("logs", log.id, Outcome.FINE, said)


def _read_clock(url: str, readings: list[Reading], reach: Reach) -> None:
    """Add the time at *url* to *readings*, if it is told there."""
    from nix_seed.clients.server_time import read_clock  # noqa: PLC0415  (brings urllib3)

    plain = frozenset(reach.registries) if reach.plain_http else frozenset[str]()
    found = read_clock(url, _PATIENCE, plain=plain, ca_file=reach.ca_file)
    if found is not None:
        readings.append(found)


def _credentials(reach: Reach) -> Iterator[Diagnosis]:
    """Look for credentials where pushes would; what they are is never shown, but whose."""
    try:
        known = reach.keyring.registries()
    except InputError as error:
        yield diagnose_error("credentials", "files", error)
        return
    for host in dict.fromkeys([*known, *reach.registries]):
        registry, _, repository = host.partition("/")
        try:
            found = reach.keyring.find(registry, repository)
        except Exception as error:
            yield diagnose_error("credentials", host, error)
            continue
        if found is not None:
            yield Diagnosis("credentials", host, Outcome.FINE, str(found))
            continue
        said = "none: what is public can be pulled, and nothing pushed"
        yield Diagnosis("credentials", host, Outcome.WARNING, said, _LOGIN.format(host))
    if not known and not reach.registries:
        said = "no registry has any: what is public can be pulled, and nothing pushed"
        yield Diagnosis("credentials", "any", Outcome.FINE, said)


def _registry(host: str, reach: Reach, readings: list[Reading]) -> Diagnosis:
    """Ask *host* for its API version, as every client begins (distribution-spec, end-1)."""
    from nix_seed.clients.registry.session import Session  # noqa: PLC0415  (brings urllib3)

    try:
        session = Session(
            host,
            reach.keyring,
            patience=_PATIENCE,
            plain_http=reach.plain_http,
            ca_file=reach.ca_file,
        )
        base = session.base()
        _read_clock(f"{base}/v2/", readings, reach)
    except Exception as error:
        return diagnose_error("registries", host, error)
    return Diagnosis("registries", host, Outcome.FINE, f"{base} answers")
