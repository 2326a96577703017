"""What ``nix-seed run`` tells when the command has ended; on standard error, which is ours.

``nix-seed run``.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nix_seed.cli.command import seed_command
from nix_seed.cli.options import (
    accept_option,
    accepted_licences,
    attr_option,
    cache_directory,
    json_option,
    open_seed,
    policy_used,
    registry_options,
    verify_options,
)
from nix_seed.cli.say import say
from nix_seed.core.words import plural

if TYPE_CHECKING:
    from nix_seed.use.run import RunResult


def run_json(result: RunResult) -> None:
    """Print one JSON object on standard output, after whatever the command printed there."""
    value = {
        "exitCode": result.exit_code,
        "image": str(result.image),
        "engine": result.engine,
        "seconds": asdict(result.seconds),
        "paths": [str(path) for path in result.brought.paths],
        "links": {str(link.path): link.target for link in result.brought.links},
        "into": result.brought.into,
    }
    say(value, indent=2)


def print_run(result: RunResult) -> None:
    """Print the times, and where the results are."""
    seconds = result.seconds
    times = f"ready {seconds.unpack:.2f} s, start {seconds.start:.2f} s"
    times += f", command {seconds.command:.2f} s, results {seconds.results:.2f} s"
    say(f"{result.engine}: {times}", err=True)
    if result.exit_code:
        say(f"the command failed with exit code {result.exit_code}", err=True)
        return
    brought = result.brought
    where = "the host's store" if brought.into == "store" else brought.into
    if brought.paths:
        say(f"{plural(len(brought.paths), 'store path')} brought into {where}", err=True)
    for link in brought.links:
        say(f"{link.path} -> {link.target}", err=True)


@seed_command(
    "run",
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
    from nix_seed.flake.nix import Nix
    from nix_seed.use.engines import choose_engine
    from nix_seed.use.run import run

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

    from nix_seed.core.errors import InputError
    from nix_seed.flake.nix import Nix
    from nix_seed.use.run import run_on_host

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
