"""``nix-seed ledger``: what is released, by every ledger that the policy knows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any

import click

from nix_seed.cli import options as shared
from nix_seed.cli.command import SeedGroup, argument, exit_with, option, progress
from nix_seed.cli.lazily import lazily
from nix_seed.cli.say import answer, say
from nix_seed.core.digests import Digest
from nix_seed.core.events import Stage, tell
from nix_seed.core.words import members
from nix_seed.formats.oci.reference import parse_reference

with lazily():
    from nix_seed.release import ledger, load, verifiers
    from nix_seed.release.rules import record


class _Ledgers(SeedGroup):
    """Its own commands, and one for each kind of ledger that an add-on brings."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        kinds = {each.name for each in entry_points(group="nix_seed.ledger_commands")}
        return sorted({*super().list_commands(ctx), *kinds})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for each in entry_points(group="nix_seed.ledger_commands", name=cmd_name):
            found: click.Command = each.load()
            return found
        return super().get_command(ctx, cmd_name)


@click.group("ledger", cls=_Ledgers)
def command() -> None:
    """Show what is released, and keep releases where a second one cannot be entered.

    Transparency logs are the default ledger: `nix-seed promote` writes it.
    """


@command.command("show", short_help="Show what each ledger holds for a commit, a root, or all.")
@argument("what", "[COMMIT|ROOT]", required=False)
@option(
    "--from REF",
    "Where the records are: host/name or oci:DIR; repeated [the image of seed.lock].",
    into="places",
    multiple=True,
)
@shared.policy_option("Whom to believe, and which ledgers there are.")
@shared.policy_history_option
@shared.registry_options
@shared.json_option
def _show(what: str | None, **options: Any) -> None:
    """Show what every ledger of the policy holds: for COMMIT, for the root ROOT, or at all.

    Exit 1 where one holds nothing of it, ledgers hold different things, or one holds two roots for
    one commit; 3 where one could not be asked. Whether all is as it must be is what `nix-seed
    audit` says.
    """
    found = {}
    with progress():
        for each in _ledgers(options):
            tell(Stage("read", f"reading the ledger {each.name}"))
            found[each.name] = _held(each, what)
    shown = {name: [entry_json(each) for each in held] for name, held in found.items()}
    lines = []
    for name, held in found.items():
        lines += [f"ledger {name}", *([] if held else ["", "no release is in it"])]
        lines += [line for entry in held for line in ("", *entry_lines(entry))]
    answer({"ledgers": shown}, lines)
    wrong = [*_twice(found), *(_lacking(found) if what is not None else ())]
    if wrong:
        say("\n".join(wrong), err=True)
        exit_with(1)


def _twice(found: Mapping[str, Sequence[record.LedgerEntry]]) -> Iterator[str]:
    """Yield each commit for which one ledger has several roots: no answer is right then."""
    for name, held in found.items():
        roots: dict[Digest, set[Digest]] = {}
        for entry in held:
            roots.setdefault(entry.commit_key, set()).add(entry.root)
        for key, several in roots.items():
            if len(several) > 1:
                shown = ", ".join(sorted(str(root) for root in several))
                yield f"the ledger {name} has {len(several)} roots for the commit {key}: {shown}"


def _lacking(found: Mapping[str, Sequence[record.LedgerEntry]]) -> Iterator[str]:
    """Yield what is wrong where one commit or root was asked for: each must hold it, the same."""
    said = {tuple((e.commit_key, e.root, e.record) for e in held) for held in found.values()}
    if said == {()}:
        yield "there is no such entry"
    elif len(said) > 1:
        yield "the ledgers differ"


def _ledgers(options: dict[str, Any]) -> list[verifiers.Ledger]:
    loaded = shared.policy_of(options)
    source = loaded.policy.repository()
    named = options["places"] or (shared.locked_image("no ledger is named"),)
    references = [parse_reference(each) for each in named]
    stores = shared.stores_of(options)
    by = (load.verifiers_of(loaded, stores), *load.earlier_of(loaded, options["earlier"]))
    places = [stores.open(each) for each in references]
    return [ledger.LoggedLedger(by, places, source), *by[0].ledgers]


def _held(ledger: verifiers.Ledger, what: str | None) -> tuple[record.LedgerEntry, ...]:
    if what is None:
        return tuple(ledger.entries())
    if what.startswith("sha256:"):
        return ledger.by_root(Digest.parse(what))
    return ledger.by_commit(shared.commit_named(what).key)


def entry_json(entry: record.LedgerEntry) -> dict[str, str]:
    """Return an entry of any ledger as ``--json`` shows it."""
    return members(entry, "commit_key", "root", "record", "position")


def entry_lines(entry: record.LedgerEntry) -> list[str]:
    """Return an entry of any ledger for people."""
    return [
        f"commit   {entry.commit_key}",
        f"root     {entry.root}",
        f"record   {entry.record}",
        f"where    {entry.position}",
    ]
