"""From the policy's logs to what writes to them, and writing what was signed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nix_seed.core.errors import CouldNotCheck, InputError
from nix_seed.core.events import OnEvent, Stage, ignore
from nix_seed.formats.intoto.bundle import Bundle
from nix_seed.logs.log import AbsentLog, Log
from nix_seed.logs.open import open_log
from nix_seed.logs.rules.entry import LogTrust, evaluate_entry, logged_signature, verifier_of
from nix_seed.logs.rules.signer import CertificateIdentity, PublicKey
from nix_seed.trust.rules.policy import Policy
from nix_seed.trust.sign import Signed


def open_logs(policy: Policy, beside: Path, *, spare: bool = False) -> Sequence[Log]:
    """Return a writer for every log of *policy*, whose file lies in the directory *beside*.

    ``InputError`` where the policy does not say where a log is, or a log there has another key;
    ``CouldNotCheck`` where a directory holds none. With *spare* that is raised only by what needs
    that log, as it is of a log behind an address.
    """
    found: list[Log] = []
    for log in policy.logs:
        place = log.place(beside)
        if place is None:
            raise InputError(
                f"the policy does not say where the log {log.id} is",
                hint="add its url: https://…, or the directory of an embedded log",
            )
        try:
            found.append(open_log(log, place))
        except CouldNotCheck as error:
            if not spare:
                raise
            found.append(AbsentLog(log, error))
    return tuple(found)


def check_writable_logs(
    logs: Sequence[Log],
    who: PublicKey | CertificateIdentity,
    on_event: OnEvent = ignore,
    *,
    needed: int | None = None,
) -> None:
    """Raise what ``log_signed`` would raise of *logs*, before *who* signs anything."""
    to_spare = 0 if needed is None else len(logs) - needed
    for log in logs:
        on_event(Stage("log", f"asking the log {log.trusted.id}"))
        try:
            log.check_writable(who if isinstance(who, PublicKey) else None)
        except CouldNotCheck:
            to_spare -= 1
            if to_spare < 0:
                raise


def log_signed(
    signed: Signed,
    logs: Sequence[Log],
    on_event: OnEvent = ignore,
    *,
    needed: int | None = None,
) -> tuple[Bundle, ...]:
    """Return one bundle for each log, all over the identical envelope; or one without any.

    One entry a bundle: other verifiers (cosign, sigstore) demand exactly one. Logs that are out of
    reach are passed over while *needed* others are left; None: every one must answer. A log that
    the signer wrote to by itself, as keyless ones do, is not written to again.
    """
    bundles = []
    to_spare = 0 if needed is None else len(logs) - needed
    for log in logs:
        if (there := _entry_in(log, signed)) is not None:
            bundles.append(signed.logged((there,)))
            continue
        on_event(Stage("log", f"logging to {log.trusted.id}"))
        try:
            entry = log.append(signed.envelope, verifier_of(signed.material, signed.key))
        except CouldNotCheck as error:
            to_spare -= 1
            if to_spare < 0:
                raise
            on_event(Stage("log", f"{log.trusted.id} is passed over: {error.message}"))
            continue
        bundles.append(signed.logged((entry,)))
    return tuple(bundles) or (signed.bundle,)


def _entry_in(log: Log, signed: Signed) -> Mapping[str, Any] | None:
    """Return the entry that the signer brought and that is proved to be in *log*, if any."""
    trust = LogTrust((log.trusted,))
    logged = logged_signature(signed.envelope, verifier_of(signed.material, signed.key))
    proved = (entry for entry in signed.tlog_entries if evaluate_entry(entry, logged, trust).proved)
    return next(proved, None)
