"""``nix-seed policy next``, ``add-builder`` and ``sign``: from one policy to the next."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from nix_seed.cli.command import EXISTING_FILE, FILE, option, seed_command
from nix_seed.cli.options import json_option, named_value
from nix_seed.cli.say import answer, say
from nix_seed.cli.trust.options import key_option, signer_of
from nix_seed.core.errors import InputError
from nix_seed.core.files import read_given, write_new, write_output
from nix_seed.core.words import plural

_WHEN = "such as 2026-01-31, 2026-01-31T12:00:00Z or now"


@seed_command("next")
@click.argument("old", default="trust.toml", type=click.Path(path_type=Path))
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
def next_command(old: Path, output: Path | None, **options: Any) -> None:
    """Write the policy that comes after OLD (trust.toml): a higher epoch, and what you name.

    Comments and order stay. What was released by OLD goes on to stand.
    """
    from nix_seed.release.load import load_policy_of_then
    from nix_seed.trust.rules.policy_change import PolicyStep, compare_policies, next_policy
    from nix_seed.trust.rules.policy_file import parse_policy

    if bool(options["revoked"]) != (options["at"] is not None):
        raise InputError(
            "--revoke and --at go together",
            hint=f"since when can the key have been stolen? {_WHEN}",
        )
    before = load_policy_of_then(old).policy
    new = output or old.with_name(f"{old.stem}-{before.epoch + 1}{old.suffix}")
    now = datetime.now(UTC)
    step = PolicyStep(
        revoked=dict.fromkeys(options["revoked"], _moment("--at", options["at"], now)),
        removed=options["removed"],
        places=dict(named_value("--log", each, "log=mirror") for each in options["places"]),
        expires=_moment("--expires", options["expires"], now) if options["expires"] else None,
        accepts=not options["no_accept"],
    )
    text = next_policy(read_given(old).decode(), before, step, str(old))
    after = parse_policy(text.encode(), str(new), now)
    write_new(new, text.encode(), hint="name another one: -o NEW")
    changes = list(compare_policies(before, after))
    lines = [f"{new} is written, epoch {after.epoch}:", *(f"  {line}" for line in changes)]
    lines += [
        f"next: look at it, then have it signed by those whom {old} trusts, and publish both:",
        f"  nix-seed policy sign {old} {new} --key FILE",
    ]
    answer({"file": str(new), "epoch": after.epoch, "changes": changes}, lines)


@seed_command("add-builder")
@click.argument("builder", metavar="ID")
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
def add_builder_command(builder: str, file: Path, **options: Any) -> None:
    """Add the builder ID to a policy, after those there are; comments and order stay."""
    from nix_seed.trust.rules.policy_change import NewBuilder, add_builder, compare_policies
    from nix_seed.trust.rules.policy_file import parse_policy

    if (options["key"] is None) == (options["subject"] is None):
        raise InputError(
            f"how does {builder} sign?", hint="give --key FILE, or --issuer URL and --subject TEXT"
        )
    now = datetime.now(UTC)
    found = read_given(file)
    before = parse_policy(found, str(file), now)
    values = _values(builder, options, now)
    changed = add_builder(found.decode(), NewBuilder(builder, values), str(file))
    after = parse_policy(changed.encode(), str(file), now)
    write_output(file, changed.encode())
    changes = list(compare_policies(before, after))
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
        values["key"] = read_public_key(options["key"])
    if options["systems"]:
        values["systems"] = list(options["systems"])
    if options["not_before"]:
        values["notBefore"] = _moment("--not-before", options["not_before"], now)
    return values


@seed_command("sign")
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@key_option
@option(
    "-o, --output FILE",
    "Where the signature goes [NEW with the signer's id: trust-2.rita.sig].",
    type=FILE,
)
@json_option
def sign_command(old: Path, new: Path, key: Path | None, output: Path | None) -> None:
    """Sign the change from OLD to NEW, for `policy diff` to count.

    OLD says who may: its promoters, or its builders where it has none.
    """
    from nix_seed.formats.intoto.statement import PAYLOAD_TYPE
    from nix_seed.release.load import load_policy, load_policy_of_then
    from nix_seed.trust.rules.policy_change import build_change_statement, check_step, voter_of

    before = load_policy_of_then(old).policy
    after = load_policy(new).policy
    check_step(before, after)
    signer = signer_of(key)
    voter = voter_of(before, signer.who)
    path = output or new.with_suffix(f".{voter}.sig")
    signed = signer.sign(PAYLOAD_TYPE, build_change_statement(before, after).dump())
    write_output(path, signed.bundle.dump())
    answer(
        {"file": str(path), "voter": voter, "epoch": after.epoch},
        f"{path}: {voter} signs epoch {after.epoch}\n"
        f"next: nix-seed policy diff {old} {new} --signature {path}",
    )


def read_public_key(path: Path) -> str:
    """Return the PEM of the public key in the file *path*."""
    from nix_seed.logs.rules.signer import PublicKey
    from nix_seed.trust.sign import read_key_file

    return PublicKey.from_pem(read_key_file(path), str(path)).pem.decode()


def _moment(option: str, text: str | None, now: datetime) -> datetime:
    if text in (None, "now"):
        return now.replace(microsecond=0)
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError as error:
        raise InputError(f"{option} {text} is no time", hint=f"write it {_WHEN}") from error
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
