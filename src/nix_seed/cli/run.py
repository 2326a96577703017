"""``nix-seed run``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nix_seed.cli.options import accept_option, attr_option, cache_directory, json_option, open_seed
from nix_seed.cli.registry_options import registry_options
from nix_seed.cli.say import say
from nix_seed.cli.trusted import accepted_licences, policy_used, verify_options

__all__ = ["command"]


@click.command(
    "run",
    short_help="Run a command inside a seed, with no network.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.option(
    "--engine",
    type=click.Choice(["bwrap", "podman", "docker", "host"]),
    envvar="NIX_SEED_ENGINE",
    help="What runs the image [the first that works]; host: the hydrated store itself.",
)
@click.option(
    "--image", metavar="REF", help="The seed, on disk or in a registry [the one built here]."
)
@click.option(
    "--src",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=".",
    show_default=True,
    metavar="DIR",
    help="The project; seen as /src inside, and never written to but for result links.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Put results below DIR instead of into the host's store.",
)
@click.option("--env", "-e", multiple=True, metavar="NAME[=VALUE]", help="Set a variable inside.")
@attr_option
@accept_option
@click.option("--network", is_flag=True, help="Give the command the network.")
@click.option(
    "--store",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="NIX_SEED_STORE",
    metavar="ROOT",
    help="A Nix store of its own for the results, rooted there [the machine's].",
)
@verify_options
@registry_options
@json_option
@click.argument("argv", nargs=-1, required=True, metavar="-- COMMAND…")
def command(as_json: bool, argv: tuple[str, ...], **options: Any) -> None:
    """Run COMMAND inside a seed, in the project's directory, with no network.

    New store paths and `result` links come back. The exit code is the command's own. An image named
    with --image is verified first, by the project's trust.toml if it has one.

        nix-seed run --image oci:seed -- nix build
    """
    from nix_seed.cli.progress import progress
    from nix_seed.cli.run_report import print_run, run_json
    from nix_seed.clients.engines import choose_engine
    from nix_seed.clients.nix import Nix
    from nix_seed.flows.run import run

    if options["engine"] == "host":
        _run_on_host(argv, options, as_json)
        return
    nix = Nix(store=options["store"])
    image = open_seed(options, nix)
    with progress(quiet=True) as show:
        result = run(
            argv,
            engine=choose_engine(options["engine"], cache_directory()),
            image=image,
            source=options["src"],
            nix=nix,
            out=options["out"],
            env=_environment(options["env"]),
            network=options["network"],
            accepted=_accepted(options),
            attr=options["attr"],
            on_event=show,
        )
    (run_json if as_json else print_run)(result)
    click.get_current_context().exit(result.exit_code)


def _run_on_host(argv: tuple[str, ...], options: dict[str, Any], as_json: bool) -> None:
    """Run in the project itself, on the machine's own store; ``--image`` is then only checked."""

    from nix_seed.clients.nix import Nix
    from nix_seed.flows.run_host import run_on_host
    from nix_seed.ground.errors import InputError

    for name in ("out", "store"):
        if options[name] is not None:
            raise InputError(
                f"--{name} has no meaning with --engine host",
                hint="the command works on the machine's own store, and puts results there",
            )
    image = open_seed(options, Nix()) if options["image"] else None
    done = run_on_host(
        argv,
        source=options["src"],
        image=image,
        env=_environment(options["env"]),
        network=options["network"],
        accepted=_accepted(options),
    )
    if as_json:
        say(done.to_json(), indent=2)
    else:
        off = {"namespace": "no network", "settings": "Nix offline by its settings"}
        about = off.get(done.network, "with the network")
        say(f"host: {about}, command {done.seconds:.2f} s", err=True)
    click.get_current_context().exit(done.exit_code)


def _accepted(options: dict[str, Any]) -> tuple[str, ...]:
    return accepted_licences(options["accept_licence"], policy_used(options, options["src"]))


def _environment(settings: tuple[str, ...]) -> dict[str, str]:
    """Read ``NAME=VALUE``; a bare ``NAME`` is passed on from the caller's own environment."""
    import os

    pairs = (setting.partition("=") for setting in settings)
    return {name: value if equals else os.environ.get(name, "") for name, equals, value in pairs}
