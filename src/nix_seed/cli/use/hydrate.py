"""What ``nix-seed hydrate`` tells: lines while it works, and its result.

``nix-seed hydrate``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nix_seed.cli import options as shared
from nix_seed.cli.command import option, progress, seed_command
from nix_seed.cli.say import answer
from nix_seed.core.words import human_size, plural
from nix_seed.formats.oci.reference import parse_reference

if TYPE_CHECKING:
    from nix_seed.use.hydrate import Hydrated


def hydrated_text(done: Hydrated) -> str:
    """Return the result for people."""
    left = f", {done.reused} left by a run that was interrupted" if done.reused else ""
    lines = [
        f"{done.root / 'nix/store'} has {plural(len(done.added), 'new path')} of {done.image}",
        f"  {human_size(done.fetched)} fetched in {done.seconds.total:.1f} s;"
        f" {plural(len(done.skipped), 'path')} there before{left}",
    ]
    if not done.whole:
        lines.append("  what is not read yet is fetched meanwhile, and put in place")
    if done.nix is not None and done.root == Path("/"):
        lines.append(f"  Nix's programs: {done.nix}")
    if done.root != Path("/"):
        lines.append(f"  use it: nix --store {done.root} --offline build")
    return "\n".join(lines)


root_option = option(
    "--root DIR",
    "Where the store's /nix lies; for use with `nix --store DIR`.",
    default="/",
)


@seed_command("hydrate")
@click.argument("source", metavar="REF")
@root_option
@option(
    "--for FLAKE#OUTPUT",
    "Take only what these need to be built: .#checks, .#packages.default [everything].",
    into="outputs",
    multiple=True,
)
@option("--system SYSTEM", "Of an index, this system's image [this machine's].")
@option("--jobs N", "Layers worked on at once [by cores].", type=click.IntRange(1, 64))
@option("--eager", "Fetch and unpack all of it before anything else, as ever.")
@option("--complete", "Return only once every path lies in the store itself.")
@shared.attr_option
@shared.accept_option
@shared.project_option(
    "The project, which says how to get what the seed must not pass on.", any_flake=True
)
@shared.verify_options
@shared.registry_options
@shared.json_option
def command(**options: Any) -> None:
    """Have the paths of the seed REF in a Nix store, verified, and register them with Nix.

    REF is in a registry or an oci:DIR. Paths that are valid already are not fetched, and what an
    interrupted run left is used. Where the project has a trust.toml, the seed must verify by it
    first. Then builds need no network:

        nix-seed run --engine host -- nix build

    Root's own store, filled from a registry, is mounted where that can be: builds may start at
    once, and the store is filled behind them.
    """

    from nix_seed.core.processes import current_system
    from nix_seed.use.hydrate import Place, hydrate, mount_if_possible
    from nix_seed.use.macos_store import ensure_store

    stores, reference = shared.stores_of(options), parse_reference(options["source"])
    system = options["system"] or current_system()
    project = Path(options["src"])
    with progress():
        reference = shared.trusted(options, stores, reference, system, project)
        ensure_store(options["root"])
        eager = options["eager"] or options["outputs"] or options["root"] != Path("/")
        place, complete = Place(options["root"], system), options["complete"]
        done = None if eager else mount_if_possible(stores, reference, place, complete=complete)
        done = done or hydrate(
            stores,
            reference,
            options["root"],
            outputs=options["outputs"],
            system=system,
            jobs=options["jobs"],
            accepted=shared.accepted_licences(
                options["accept_licence"], shared.policy_used(options, project)
            ),
            project=options["src"],
            attr=options["attr"],
        )
    answer(done.to_json(), hydrated_text(done))
