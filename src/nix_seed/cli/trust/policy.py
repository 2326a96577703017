"""``nix-seed policy``; ``next``, ``add-builder`` and ``sign`` lead from one to the next."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from nix_seed.cli.command import EXISTING_FILE, FILE, PATH, argument, exit_with, option, seed_group
from nix_seed.cli.lazily import lazily
from nix_seed.cli.options import json_option, named_value
from nix_seed.cli.say import answer, say
from nix_seed.cli.trust.options import key_option, signer_of
from nix_seed.core.errors import InputError
from nix_seed.core.files import read_given, write_new, write_output
from nix_seed.core.words import members, plural
from nix_seed.trust.rules.policy_template import PolicyTemplate

with lazily():
    from nix_seed.formats.intoto import statement as intoto
    from nix_seed.logs import embedded, log as logs
    from nix_seed.release import load
    from nix_seed.trust import sign
    from nix_seed.trust.rules import (
        policy as policies,
        policy_change,
        policy_checks,
        policy_file,
        signer as keys,
    )


_OUTPUTS = {
    "own": "taken on the word of any one builder (own)",
    "quorum": "taken where as many agree as for an image (quorum)",
    "none": "never taken, always built (none)",
}
_FILE = argument("file", default="trust.toml", type=PATH)


@seed_group("policy")
def command() -> None:
    """Write, check and change trust.toml: whom to believe, and how many of them."""


@command.command("check", short_help="Check that a policy can be used.")
@_FILE
@json_option
def _check(file: Path) -> None:
    """Read FILE (trust.toml) as verify does; exit 2, naming the line, if that would refuse it."""
    now = datetime.now(UTC)
    policy = load.load_policy(file, now).policy
    warnings = list(policy_checks.policy_warnings(policy, now))
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
    policy = load.load_policy(file).policy
    answer(_json(policy), _lines(policy))


@command.command("init")
@argument("file", default="trust.toml", type=PATH)
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
def _init(file: Path, **options: Any) -> None:
    """Write FILE (trust.toml), commented, to begin with. It never overwrites one."""
    if file.exists():  # before a log is made
        raise InputError(f"{file} exists already", hint="edit it, or name another")
    if not options["repository"] and not options["keys"]:
        raise InputError(
            "a policy needs builders",
            hint="name keys (--key alice=alice.pub), or --repository OWNER/REPO, or both",
        )
    now, log = datetime.now(UTC), options["log_place"]
    text = PolicyTemplate(
        repository=options["repository"],
        source=options["source"],
        systems=options["systems"] or ("x86_64-linux",),
        keys=[_key_option(each) for each in options["keys"]],
        promoters=[_key_option(each) for each in options["promoters"]],
        log=None if log is None else _log_option(log, file.parent),
        expires=now + timedelta(days=365),
    ).render()
    policy_file.parse_policy(text.encode(), str(file), now)
    write_new(file, text.encode())
    text = f"{file} is written; edit it, then:\n  nix-seed policy check {file}"
    answer({"file": str(file), "epoch": 1}, text)


@command.command("diff", short_help="Show what a new policy changes of the old one.")
@argument("old", type=PATH)
@argument("new", type=PATH)
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
    now = datetime.now(UTC)
    before, after = load.load_policy(old, now), load.load_policy(new, now)
    change = policy_change.evaluate_change(
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
    exit_with(0 if change.valid else 1)


def _key_option(text: str) -> tuple[str, str]:
    name, path = named_value("--key", text, "alice=alice.pub")
    if '"' in name:
        raise InputError(f"{name} is no id: it has a quotation mark", hint="name it plainly: alice")
    return name, _read_public_key(Path(path))


def _log_option(directory: Path, beside: Path) -> tuple[str, str]:
    """Return the place and the verifier key of an embedded log, a new one if nothing is there.

    The place is as seen from the directory *beside*, which the policy lies in: it names no path of
    this machine.
    """
    if not directory.exists():
        embedded.EmbeddedLog.create(directory)
    place = os.path.relpath(directory.resolve(), beside.resolve())
    return place, str(logs.read_key_of_log(directory / "log.vkey"))


def _json(policy: policies.Policy) -> dict[str, Any]:
    quorum = members(
        policy.quorum, "threshold", "distinct", "logs", "witnesses", promotersWanted="promoters"
    )
    given = ("id", "systems", "operator", "provider", "jurisdiction", "not_before", "revoked_at")
    return (
        members(policy, "epoch", "expires", "digest", "source", "systems", "outputs")
        | quorum
        | {
            "promoters": [
                {"id": each.id, "signer": policies.signer_name(each.signer)}
                for each in policy.promoters
            ],
            "accepts": [
                {"policy": str(digest), "systems": count}
                for digest, count in policy.accepts.items()
            ],
            "ledgers": [
                members(each, "id", "kind", "chain_id", "address") for each in policy.ledgers
            ],
            "builders": [
                members(each, *given) | {"signer": policies.signer_name(each.signer)}
                for each in policy.builders
            ],
        }
    )


def _lines(policy: policies.Policy) -> Iterator[str]:
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
        yield f"  {promoter.id:12} {policies.signer_name(promoter.signer)}"
    for digest, count in policy.accepts.items():
        yield f"accepts releases by {digest}, of {plural(count, 'system')}"
    for ledger in policy.ledgers:
        yield f"ledger {ledger.id}: {ledger.address} on chain {ledger.chain_id}"


def _builder_lines(builder: policies.Builder) -> Iterator[str]:
    where = [each for each in (builder.operator, builder.provider, builder.jurisdiction) if each]
    yield f"  {builder.id:12} {policies.signer_name(builder.signer)}"
    about = [", ".join(where)] if where else []
    if builder.not_before is not None:
        about.append(f"from {builder.not_before:%Y-%m-%d %H:%M} UTC on")
    if builder.revoked_at is not None:
        about.append(f"revoked at {builder.revoked_at:%Y-%m-%d %H:%M} UTC")
    if about:
        yield f"  {'':12} {'; '.join(about)}"


_WHEN = "such as 2026-01-31, 2026-01-31T12:00:00Z or now"


@command.command("next", short_help="Write the policy that comes after one.")
@argument("old", default="trust.toml", type=PATH)
@option(
    "-o, --output NEW",
    "The next policy's file; never overwritten [OLD with its epoch: trust-2.toml].",
    type=FILE,
)
@option(
    "--revoke ID",
    "What this builder says from --at on counts no more; may be repeated.",
    into="revoked",
    multiple=True,
)
@option("--at TIME", f"Since when it does not count: {_WHEN}.")
@option(
    "--remove-promoter ID",
    "Take out who may release; may be repeated.",
    into="removed",
    multiple=True,
)
@option(
    "--log ID=PLACE",
    "Where this log is from now on: an address, or a directory beside the policy.",
    into="places",
    multiple=True,
)
@option("--expires TIME", "Until when the next policy is good [as OLD].")
@option("--no-accept", "What was released by OLD has to be promoted again.")
@json_option
def _next(old: Path, output: Path | None, **options: Any) -> None:
    """Write the policy that comes after OLD (trust.toml): a higher epoch, and what you name.

    Comments and order stay. What was released by OLD goes on to stand.
    """
    if bool(options["revoked"]) != (options["at"] is not None):
        raise InputError(
            "--revoke and --at go together",
            hint=f"since when can the key have been stolen? {_WHEN}",
        )
    before = load.load_policy_of_then(old).policy
    new = output or old.with_name(f"{old.stem}-{before.epoch + 1}{old.suffix}")
    now = datetime.now(UTC)
    step = policy_change.PolicyStep(
        revoked=dict.fromkeys(options["revoked"], _moment("--at", options["at"], now)),
        removed=options["removed"],
        places=dict(named_value("--log", each, "log=mirror") for each in options["places"]),
        expires=_moment("--expires", options["expires"], now) if options["expires"] else None,
        accepts=not options["no_accept"],
    )
    text = policy_change.next_policy(read_given(old).decode(), before, step, str(old))
    after = policy_file.parse_policy(text.encode(), str(new), now)
    write_new(new, text.encode(), hint="name another one: -o NEW")
    changes = list(policy_change.compare_policies(before, after))
    lines = [f"{new} is written, epoch {after.epoch}:", *(f"  {line}" for line in changes)]
    lines += [
        f"next: look at it, then have it signed by those whom {old} trusts, and publish both:",
        f"  nix-seed policy sign {old} {new} --key FILE",
    ]
    answer({"file": str(new), "epoch": after.epoch, "changes": changes}, lines)


@command.command("add-builder", short_help="Add a builder to a policy.")
@argument("builder", "ID")
@option(
    "--policy FILE",
    "The policy to change: a new one, or what `policy next` wrote.",
    into="file",
    default="trust.toml",
    type=EXISTING_FILE,
)
@option("--key FILE", "Its public key.")
@option("--issuer URL", "Without a key: who vouches for it.")
@option("--subject TEXT", "Without a key: whom the issuer vouches for.")
@option("--repository URL", "The repository a reusable workflow runs for.")
@option("--operator NAME", "Who runs it [ID].")
@option("--provider NAME", "On whose machines.")
@option("--jurisdiction NAME", "Under whose law.")
@option("--system SYSTEM", "One it builds for [all].", into="systems", multiple=True)
@option("--not-before TIME", f"From when on it counts: {_WHEN}.")
@json_option
def _add_builder(builder: str, file: Path, **options: Any) -> None:
    """Add the builder ID to a policy, after those there are; comments and order stay."""
    if (options["key"] is None) == (options["subject"] is None):
        raise InputError(
            f"it is not said how {builder} signs",
            hint="give --key FILE, or --issuer URL and --subject TEXT",
        )
    now = datetime.now(UTC)
    found = read_given(file)
    before = policy_file.parse_policy(found, str(file), now)
    values = _values(builder, options, now)
    changed = policy_change.add_builder(
        found.decode(), policy_change.NewBuilder(builder, values), str(file)
    )
    after = policy_file.parse_policy(changed.encode(), str(file), now)
    write_output(file, changed.encode())
    changes = list(policy_change.compare_policies(before, after))
    agree = f"{after.quorum.threshold} of {plural(len(after.builders), 'builder')} must agree"
    value = {"file": str(file), "epoch": after.epoch, "changes": changes}
    answer(value, f"{file}: {', '.join(changes)}\n{agree}")
    say(
        f"If releases were made by this file already, the change needs a new one: "
        f"nix-seed policy next {file}",
        err=True,
    )


def _values(
    builder: str, options: dict[str, Any], now: datetime
) -> Mapping[str, str | datetime | Sequence[str]]:
    names = ("issuer", "subject", "repository", "operator", "provider", "jurisdiction")
    values: dict[str, Any] = {name: options[name] for name in names if options[name]}
    values.setdefault("operator", builder)
    if options["key"] is not None:
        values["key"] = _read_public_key(options["key"])
    if options["systems"]:
        values["systems"] = list(options["systems"])
    if options["not_before"]:
        values["notBefore"] = _moment("--not-before", options["not_before"], now)
    return values


@command.command("sign")
@argument("old", type=PATH)
@argument("new", type=PATH)
@key_option
@option(
    "-o, --output FILE",
    "Where the signature goes [NEW with the signer's id: trust-2.rita.sig].",
    type=FILE,
)
@json_option
def _sign(old: Path, new: Path, key: Path | None, output: Path | None) -> None:
    """Sign the change from OLD to NEW, for `policy diff` to count.

    OLD says who may: its promoters, or its builders where it has none.
    """
    before = load.load_policy_of_then(old).policy
    after = load.load_policy(new).policy
    policy_change.check_step(before, after)
    signer = signer_of(key)
    voter = policy_change.voter_of(before, signer.who)
    path = output or new.with_suffix(f".{voter}.sig")
    signed = signer.sign(
        intoto.PAYLOAD_TYPE, policy_change.build_change_statement(before, after).dump()
    )
    write_output(path, signed.bundle.dump())
    answer(
        {"file": str(path), "voter": voter, "epoch": after.epoch},
        f"{path}: {voter} signs epoch {after.epoch}\n"
        f"next: nix-seed policy diff {old} {new} --signature {path}",
    )


def _read_public_key(path: Path) -> str:
    """Return the PEM of the public key in the file *path*."""
    return keys.PublicKey.from_pem(sign.read_key_file(path), str(path)).pem.decode()


def _moment(option: str, text: str | None, now: datetime) -> datetime:
    if text in (None, "now"):
        return now.replace(microsecond=0)
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError as error:
        raise InputError(f"{option} {text} is no time", hint=f"write it {_WHEN}") from error
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
