"""``nix-seed init``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import click

from nix_seed.cli.command import EXISTING_DIRECTORY, argument, option, progress, seed_command
from nix_seed.cli.lazily import lazily
from nix_seed.cli.options import json_option
from nix_seed.cli.say import answer, columns, folded, manner, say_styled
from nix_seed.core.errors import InputError
from nix_seed.core.safe_text import safe_line
from nix_seed.core.version import __version__
from nix_seed.core.words import plural

with lazily():
    from nix_seed.flake import nix
    from nix_seed.setup import init
    from nix_seed.setup.rules import init as rules


FlakeLines: TypeAlias = "Sequence[tuple[str, tuple[str, ...]]]"

_WORDS = {
    "new": "is new",
    "same": "is as it should be",
    "kept": "is there and differs: it stays as it is (the lines below are what would change)",
    "replaced": "is replaced",
}


@seed_command("init")
@argument(
    "directory",
    "[DIR]",
    default=".",
    type=EXISTING_DIRECTORY,
)
@option("--github", "Write GitHub's workflow.", into="forge", flag_value="github")
@option("--gitlab", "Write GitLab's configuration.", into="forge", flag_value="gitlab")
@option(
    "--system SYSTEM",
    "A system to make seeds for; may be repeated [those of the flake].",
    into="systems",
    multiple=True,
)
@option("--ref REF", "Tag or commit of nix-seed to use [this version's tag].")
@option("--branch NAME", "The default branch, which publishes [Git's].")
@option("--flake", "Show the lines that add a seed to flake.nix, to set options of mkSeed.")
@option("--no-policy", "Write no trust.toml.")
@option("--force", "Replace files that are there and differ.")
@option("-y, --yes", "Write without asking.")
@option("-n, --dry-run", "Only show what would be written.")
@json_option
def command(directory: Path, yes: bool, dry_run: bool, **options: Any) -> None:
    """Prepare the repository of the flake in DIR for seeds in CI.

    Shows what would be written, as a diff, and asks. A file that is there and differs is kept.
    Seeds need nothing in flake.nix, which is never written; --flake shows what to add to it, to set
    options.
    """
    request = _request(directory, options)
    with progress(quiet=True):
        plan = init.plan_init(request, nix.Nix(), datetime.now(UTC))
    lines = init.flake_lines(request.ref) if options["flake"] else ()
    as_json = manner().json
    if not as_json:
        say_styled("\n".join(_lines(plan, lines)))
    write = bool(plan.to_write) and not dry_run
    if write and not yes:
        if as_json or not sys.stdin.isatty():
            raise InputError(
                "nothing was written: there is nobody to ask"
                + ("" if as_json else ", for standard input is no terminal"),
                hint="--yes writes without asking, --dry-run only shows what would be written",
            )
        write = click.confirm(f"Write {_count(plan.to_write)}?", err=True)
    if write:
        init.carry_out(plan)
    answer(_json(plan, lines, written=write), _end(plan, written=write))


def _request(directory: Path, options: dict[str, Any]) -> init.InitRequest:
    return init.InitRequest(
        directory=directory,
        ref=options["ref"] or f"v{__version__}",
        forge=options["forge"],
        systems=options["systems"],
        branch=options["branch"],
        policy=not options["no_policy"],
        force=options["force"],
    )


def _lines(plan: init.InitPlan, flake: FlakeLines) -> Iterator[str]:
    for change in plan.changes:
        yield safe_line(f"{change.path} {_WORDS[change.state]}")
    yield from folded((f"note: {safe_line(note)}" for note in plan.notes), columns())
    for change in plan.changes:
        if change.state != "same":
            yield ""
            yield from map(_coloured, _shown(change))
    if flake:
        yield ""
        yield "to set options of mkSeed, add to flake.nix:"
    for place, lines in flake:
        yield f"  {place}:"
        yield from (f"      {line}" for line in lines)


def _shown(change: rules.FileChange) -> Iterator[str]:
    """Yield the diff, without what a foreign file could steer the terminal with."""
    lines = list(change.diff())
    if change.path.endswith(".json") and change.before is None:
        # Nobody reads certificates by eye; --json has them all.
        lines[3:] = [f"({len(lines) - 3} lines: the public Sigstore's certificates and keys)"]
    yield from map(safe_line, lines)


def _coloured(line: str) -> str:
    if line.startswith(("---", "+++")):
        return click.style(line, bold=True)
    colours = {"+": "green", "-": "red", "@": "cyan"}
    return click.style(line, fg=colours.get(line[:1]))


def _count(changes: Sequence[rules.FileChange]) -> str:
    return f"{'this' if len(changes) == 1 else 'these'} {plural(len(changes), 'file')}"


def _end(plan: init.InitPlan, *, written: bool) -> Iterator[str]:
    yield ""
    if not plan.to_write:
        yield "nothing to write"
    elif not written:
        yield "nothing was written"
    else:
        yield f"written: {', '.join(each.path for each in plan.to_write)}"
        yield "next:"
        yield from (f"  {step}" for step in _next_steps(plan))


def _shell_word(prefix: str) -> str:
    """Name the flake's directory as one stands at the repository's top."""
    return shlex.quote(f"./{prefix.rstrip('/')}") if prefix else "."


def _next_steps(plan: init.InitPlan) -> Iterator[str]:
    paths = [each.path for each in plan.to_write]
    yield f"nix-seed licences {_shell_word(plan.repository.prefix)}"
    yield "                        # what has no known licence is sent to no public registry"
    yield f"git add {' '.join(paths)}"
    yield "git commit, git push    # CI makes the first seed"
    if plan.forge is not None and plan.forge.kind == "github":
        name = f"{plan.forge.repository.rpartition('/')[2].lower()}-seed"
        yield f"make the package {name} public, on its page: Package settings, Change visibility"
        yield "                        # a new one is private: forks could not use it"


def _json(plan: init.InitPlan, flake: FlakeLines, *, written: bool) -> dict[str, Any]:
    return {
        "repository": str(plan.repository.root),
        "forge": plan.forge and plan.forge.kind,
        "source": plan.forge and plan.forge.url,
        "systems": list(plan.systems),
        "written": written,
        "files": [
            {"path": each.path, "state": each.state, "diff": "\n".join(each.diff())}
            for each in plan.changes
        ],
        "flake": [{"where": where, "lines": list(lines)} for where, lines in flake],
        "notes": list(plan.notes),
    }
