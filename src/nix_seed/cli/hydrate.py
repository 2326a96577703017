"""``nix-seed hydrate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nix_seed.cli.options import accept_option, attr_option, json_option
from nix_seed.cli.registry_options import registry_options, stores_of
from nix_seed.cli.say import say
from nix_seed.cli.trusted import accepted_licences, policy_used, trusted, verify_options

__all__ = ["command"]


@click.command("hydrate", short_help="Fill this machine's Nix store from a seed.")
@click.argument("source", metavar="REF")
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    default="/",
    show_default=True,
    metavar="DIR",
    help="Where the store's /nix lies; for use with `nix --store DIR`.",
)
@click.option(
    "--for",
    "outputs",
    multiple=True,
    metavar="FLAKE#OUTPUT",
    help="Take only what these need to be built: .#checks, .#packages.default [everything].",
)
@click.option(
    "--system", metavar="SYSTEM", help="Of an index, this system's image [this machine's]."
)
@click.option(
    "--jobs", type=click.IntRange(1, 64), metavar="N", help="Layers worked on at once [by cores]."
)
@attr_option
@accept_option
@click.option(
    "--src",
    default=".",
    show_default=True,
    metavar="FLAKE",
    help="The project, which says how to get what the seed must not pass on.",
)
@verify_options
@registry_options
@json_option
def command(as_json: bool, **options: Any) -> None:
    """Fetch, verify and unpack the seed REF into a Nix store, and register its paths with Nix.

    REF is in a registry or an oci:DIR. Paths that are valid already are not fetched, and what an
    interrupted run left is used. Where the project has a trust.toml, the seed must verify by it
    first. Then builds need no network:

        nix-seed run --engine host -- nix build
    """

    from nix_seed.cli.hydrate_report import hydrate_progress, hydrated_json, hydrated_text
    from nix_seed.clients.macos_store import ensure_store
    from nix_seed.flows.evaluate import current_system
    from nix_seed.flows.hydrate import hydrate
    from nix_seed.formats.oci.reference import parse_reference

    stores, reference = stores_of(options), parse_reference(options["source"])
    show = hydrate_progress(quiet=as_json)
    system = options["system"] or current_system()
    project = Path(options["src"])
    reference = trusted(options, stores, reference, system, project, show)
    ensure_store(options["root"])
    done = hydrate(
        stores,
        reference,
        options["root"],
        outputs=options["outputs"],
        system=system,
        jobs=options["jobs"],
        accepted=accepted_licences(options["accept_licence"], policy_used(options, project)),
        project=options["src"],
        attr=options["attr"],
        on_event=show,
    )
    say(hydrated_json(done) if as_json else hydrated_text(done))
