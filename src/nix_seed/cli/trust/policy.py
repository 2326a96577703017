"""``nix-seed policy``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nix_seed.cli.command import EXISTING_FILE, option, seed_group
from nix_seed.cli.options import json_option, named_value
from nix_seed.cli.say import answer, say
from nix_seed.cli.trust import policy_step
from nix_seed.core.errors import InputError
from nix_seed.core.files import read_given, write_new
from nix_seed.core.words import members, plural
from nix_seed.trust.rules.policy_template import PolicyTemplate

if TYPE_CHECKING:
    from nix_seed.trust.rules.policy import Builder, Policy

_OUTPUTS = {
    "own": "taken on the word of any one builder (own)",
    "quorum": "taken where as many agree as for an image (quorum)",
    "none": "never taken, always built (none)",
}
_FILE = click.argument("file", default="trust.toml", type=click.Path(path_type=Path))


@seed_group("policy")
def command() -> None:
    """Write, check and change trust.toml: whom to believe, and how many of them."""


@command.command("check")
@_FILE
@json_option
def _check(file: Path) -> None:
    """Read FILE (trust.toml) as verify does; exit 2, naming the line, if that would refuse it."""
    from nix_seed.release.load import load_policy
    from nix_seed.trust.rules.policy_checks import policy_warnings

    now = datetime.now(UTC)
    policy = load_policy(file, now).policy
    warnings = list(policy_warnings(policy, now))
    for warning in warnings:
        say(f"warning: {warning}", err=True)
    answer(
        {"file": str(file), "epoch": policy.epoch, "warnings": warnings},
        f"{file}: epoch {policy.epoch}, {policy.quorum.threshold} of "
        f"{plural(len(policy.builders), 'builder')}, until {policy.expires:%Y-%m-%d}",
    )


@command.command("show")
@_FILE
@json_option
def _show(file: Path) -> None:
    """Show what FILE (trust.toml) demands."""
    from nix_seed.release.load import load_policy

    policy = load_policy(file).policy
    answer(_json(policy), _lines(policy))


@command.command("init")
@click.argument("file", default="trust.toml", type=click.Path(path_type=Path))
@option("--repository OWNER/REPO", "Add its workflows on GitHub and GitLab.")
@option(
    "--key ID=FILE",
    "Add a builder with this public key; may be repeated.",
    into="keys",
    multiple=True,
)
@option(
    "--promoter ID=FILE",
    "Add who may release, with this public key; one of them must sign.",
    into="promoters",
    multiple=True,
)
@option("--source URL", "Where the source is published, as attestations say.")
@option("--system SYSTEM", "A system [x86_64-linux].", into="systems", multiple=True)
@option(
    "--log DIR",
    "Demand that this embedded log holds every attestation; made if there is none.",
    into="log_place",
)
@json_option
def _init(
    file: Path,
    repository: str | None,
    keys: Sequence[str],
    promoters: Sequence[str],
    source: str | None,
    systems: Sequence[str],
    log_place: Path | None,
) -> None:
    """Write FILE (trust.toml), commented, to begin with. It never overwrites one."""
    from nix_seed.trust.rules.policy_file import parse_policy

    if file.exists():  # before a log is made
        raise InputError(f"{file} exists already", hint="edit it, or name another")
    if not repository and not keys:
        raise InputError(
            "a policy needs builders",
            hint="name keys (--key alice=alice.pub), or --repository OWNER/REPO, or both",
        )
    now = datetime.now(UTC)
    text = PolicyTemplate(
        repository=repository,
        source=source,
        systems=systems or ("x86_64-linux",),
        keys=[_key_option(each) for each in keys],
        promoters=[_key_option(each) for each in promoters],
        log=None if log_place is None else _log_option(log_place, file.parent),
        expires=now + timedelta(days=365),
    ).render()
    parse_policy(text.encode(), str(file), now)
    write_new(file, text.encode())
    text = f"{file} is written; edit it, then:\n  nix-seed policy check {file}"
    answer({"file": str(file), "epoch": 1}, text)


@command.command("diff")
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@option(
    "--signature FILE",
    "A signature on the change, made by `policy sign`; may be repeated.",
    into="signatures",
    multiple=True,
    type=EXISTING_FILE,
)
@json_option
def _diff(old: Path, new: Path, signatures: Sequence[Path]) -> None:
    """Show what NEW changes of OLD, and whether OLD's own threshold signed that.

    Exit 1 if it did not: whoever trusts OLD has no reason to trust NEW.
    """
    from nix_seed.release.load import load_policy
    from nix_seed.trust.rules.policy_change import evaluate_change

    now = datetime.now(UTC)
    before, after = load_policy(old, now), load_policy(new, now)
    change = evaluate_change(
        before.policy,
        after.policy,
        [read_given(path) for path in signatures],
        before.certificates,
    )
    lines = [
        *(change.changes or ["no difference but in spelling"]),
        *(f"  {verdict.reason}" for verdict in change.verdicts),
        f"signed by {', '.join(change.signed_by) or 'nobody'}; {change.wanted} wanted",
        *(f"not valid: {problem}" for problem in change.problems),
    ]
    answer(members(change, "valid", "changes", "signed_by", "wanted", "problems"), lines)
    click.get_current_context().exit(0 if change.valid else 1)


for _each in (policy_step.next_command, policy_step.add_builder_command, policy_step.sign_command):
    command.add_command(_each)


def _key_option(text: str) -> tuple[str, str]:
    name, path = named_value("--key", text, "alice=alice.pub")
    if '"' in name:
        raise InputError(f"{name} is no id: it has a quotation mark", hint="name it plainly: alice")
    return name, policy_step.read_public_key(Path(path))


def _log_option(directory: Path, beside: Path) -> tuple[str, str]:
    """Return the place and the verifier key of an embedded log, a new one if nothing is there.

    The place is as seen from the directory *beside*, which the policy lies in: it names no path of
    this machine.
    """
    from nix_seed.logs.embedded import EmbeddedLog
    from nix_seed.logs.log import read_key_of_log

    if not directory.exists():
        EmbeddedLog.create(directory)
    place = os.path.relpath(directory.resolve(), beside.resolve())
    return place, str(read_key_of_log(directory / "log.vkey"))


def _json(policy: Policy) -> dict[str, Any]:
    from nix_seed.trust.rules.policy import signer_name

    quorum = members(
        policy.quorum, "threshold", "distinct", "logs", "witnesses", promotersWanted="promoters"
    )
    given = ("id", "systems", "operator", "provider", "jurisdiction", "not_before", "revoked_at")
    return (
        members(policy, "epoch", "expires", "digest", "source", "systems", "outputs")
        | quorum
        | {
            "promoters": [
                {"id": each.id, "signer": signer_name(each.signer)} for each in policy.promoters
            ],
            "accepts": [
                {"policy": str(digest), "systems": count}
                for digest, count in policy.accepts.items()
            ],
            "ledgers": [
                members(each, "id", "kind", "chain_id", "address") for each in policy.ledgers
            ],
            "builders": [
                members(each, *given) | {"signer": signer_name(each.signer)}
                for each in policy.builders
            ],
        }
    )


def _lines(policy: Policy) -> Iterator[str]:
    from nix_seed.trust.rules.policy import signer_name

    quorum = policy.quorum
    yield f"epoch {policy.epoch}, until {policy.expires:%Y-%m-%d %H:%M} UTC, {policy.digest}"
    apart = f", distinct in {' and '.join(quorum.distinct)}" if quorum.distinct else ""
    yield f"{quorum.threshold} of {plural(len(policy.builders), 'builder')} must agree{apart}"
    logs = f"{quorum.logs} of {plural(len(policy.logs), 'log')}"
    yield f"each in {logs}, under {plural(quorum.witnesses, 'witness', 'witnesses')}"
    yield f"systems: {', '.join(policy.systems)}"
    yield f"outputs: {_OUTPUTS[policy.outputs]}"
    for builder in policy.builders:
        yield from _builder_lines(builder)
    if policy.promoters:
        promoters = plural(len(policy.promoters), "promoter")
        yield f"{quorum.promoters} of {promoters} must sign a release"
    for promoter in policy.promoters:
        yield f"  {promoter.id:12} {signer_name(promoter.signer)}"
    for digest, count in policy.accepts.items():
        yield f"accepts releases by {digest}, of {plural(count, 'system')}"
    for ledger in policy.ledgers:
        yield f"ledger {ledger.id}: {ledger.address} on chain {ledger.chain_id}"


def _builder_lines(builder: Builder) -> Iterator[str]:
    from nix_seed.trust.rules.policy import signer_name

    where = [each for each in (builder.operator, builder.provider, builder.jurisdiction) if each]
    yield f"  {builder.id:12} {signer_name(builder.signer)}"
    about = [", ".join(where)] if where else []
    if builder.not_before is not None:
        about.append(f"from {builder.not_before:%Y-%m-%d %H:%M} UTC on")
    if builder.revoked_at is not None:
        about.append(f"revoked at {builder.revoked_at:%Y-%m-%d %H:%M} UTC")
    if about:
        yield f"  {'':12} {'; '.join(about)}"
