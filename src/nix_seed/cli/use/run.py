"""``nix-seed run``. What it tells when the command has ended goes to standard error."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import click

from nix_seed.cli import options as shared
from nix_seed.cli.command import exit_with, option, progress, seed_command, together
from nix_seed.cli.lazily import lazily
from nix_seed.cli.say import manner, say
from nix_seed.cli.use import outputs as kept
from nix_seed.core.errors import InputError
from nix_seed.core.events import Stage, tell
from nix_seed.core.files import cache_directory
from nix_seed.core.words import plural
from nix_seed.formats.oci.reference import Reference

with lazily():
    from nix_seed.flake import nix as nixes
    from nix_seed.outputs import offer
    from nix_seed.registry import layout
    from nix_seed.release import attester
    from nix_seed.use import record, run, runnable
    from nix_seed.use.engines import base, host as hosts, loopback, mounted


def run_json(result: run.RunResult, more: dict[str, Any]) -> None:
    """Print one JSON object on standard output, after whatever the command printed there."""
    value = {
        "exitCode": result.exit_code,
        "image": str(result.image),
        "engine": result.engine,
        "seconds": asdict(result.seconds),
        "paths": [str(path) for path in result.brought.paths],
        "links": {str(link.path): link.target for link in result.brought.links},
        "into": result.brought.into,
    } | more
    say(value, indent=2)


def print_run(result: run.RunResult) -> None:
    """Print the times, and where the results are."""
    seconds = result.seconds
    times = f"image prepared in {seconds.unpack:.2f} s, started in {seconds.start:.2f} s"
    times += f"; command {seconds.command:.2f} s; results fetched in {seconds.results:.2f} s"
    say(f"{result.engine}: {times}", err=True)
    if result.exit_code:
        say(f"the command failed with exit code {result.exit_code}", err=True)
        return
    brought = result.brought
    where = "the host's store" if brought.into == "store" else brought.into
    if brought.paths:
        say(f"{plural(len(brought.paths), 'store path')} brought into {where}", err=True)
        if brought.problem:
            say(f"not into the host's store: {brought.problem}", err=True)
    for link in brought.links:
        say(f"{link.path} -> {link.target}", err=True)


run_options = together(
    shared.seed_options(
        ("bwrap", "podman", "docker", "host"),
        "The project; seen as /src inside, and never written to but for result links.",
    ),
    option("--out DIR", "Put results below DIR instead of into the host's store."),
    option("--env, -e NAME[=VALUE]", "Set a variable inside.", multiple=True),
    option("--network", "Give the command the network."),
    shared.store_option,
    option("--eager", "Fetch and unpack all of the image before the command starts."),
    option("--complete", "Return only once nothing of the image is left to fetch."),
    option(
        "--record", "Keep beside the image what the command read of it, for others to fetch first."
    ),
    kept.outputs_options,
    shared.verify_options,
)


@seed_command(
    "run",
    context_settings={"allow_interspersed_args": False},
)
@run_options
@shared.json_option
@click.argument("argv", nargs=-1, required=True, metavar="-- COMMAND…")
def command(argv: tuple[str, ...], **options: Any) -> None:
    """Run COMMAND inside a seed, in the project's directory, with no network.

    New store paths and `result` links come back. The exit code is the command's own. An image named
    with --image is verified first, by the project's trust.toml if it has one.

        nix-seed run --image oci:seed -- nix build
    """
    run_command(argv, options)


def run_command(argv: tuple[str, ...], options: dict[str, Any]) -> None:
    """Run *argv* as the *options* say, tell what came back, and exit with its code."""
    keeper, outputs = kept.keeper_of(options), kept.outputs_of(options)
    if options["engine"] == "host":
        _run_on_host(argv, options, outputs, keeper)
        return
    nix, asked = nixes.Nix(store=options["store"]), _asked(argv, options)

    used: list[layout.Image] = []

    def run_in(image: layout.Image, engine: base.Engine) -> run.RunResult:
        used.append(image)
        with ExitStack() as stack:
            problem = None if outputs is None else loopback.why_no_server(engine.name)
            if problem is not None:
                say(f"nix-seed: outputs are built, not taken: {problem}", err=True)
            elif outputs is not None:
                offered = outputs.offered_in(image, engine, options["network"])
                engine = stack.enter_context(offered)
            return run.run(
                asked,
                engine=engine,
                image=image,
                nix=nix,
                out=options["out"],
                # What is to be kept has to be in the store.
                otherwise=None if keeper else cache_directory() / "results",
            )

    with progress(quiet=True):
        result = _run_in_seed(options, nix, asked, run_in)
    pushed = None
    try:
        if result.exit_code == 0:
            pushed = kept.keep(options, nix, used[-1], result.brought, outputs, keeper)
    finally:  # what was built is here, whether or not it is kept
        if manner().json:
            run_json(result, kept.outputs_json(outputs, pushed))
        else:
            print_run(result)
            kept.print_outputs(outputs, pushed)
    exit_with(result.exit_code)


def _run_in_seed(
    options: dict[str, Any],
    nix: nixes.Nix,
    asked: run.Command,
    run_in: Callable[[layout.Image, base.Engine], run.RunResult],
) -> run.RunResult:
    """Run in a seed that is mounted from its registry or, where that cannot be, unpacked first."""
    from nix_seed.use.engines import choose_engine

    cache, engine = shared.unpacking_cache(), options["engine"]
    if options["image"] is None:
        tell(Stage("open", f"looking for the seed of {options['src']}"))
    built = shared.open_built(options, nix)
    if built is not None:
        return run_in(built, choose_engine(engine, cache))
    tell(Stage("open", f"reading {options['image'] or 'seed.lock'}"))
    stores, reference, system = shared.named_seed(options)
    # A layout is on this disk already.
    mounts = engine in (None, "bwrap") and isinstance(reference, Reference)
    seed = runnable.Runnable(
        *(stores, reference, system, cache, cache_directory() / "images", engine),
        mounts=mounts and not options["eager"],
    )

    def run_recorded(image: layout.Image, engine: base.Engine) -> run.RunResult:
        if not isinstance(engine, mounted.Mounted):
            return run_in(image, engine)
        if options["record"]:
            record.start_nix(engine, image)
        result = run_in(image, engine)
        if options["record"] and result.exit_code == 0:
            tag = record.keep_recorded(stores.open(reference), engine, nix, asked)
            say(f"what the command read is listed beside the image: {tag}", err=True)
        if options["complete"]:
            engine.complete()
        return result

    said = "nix-seed: the image is unpacked, not mounted"
    return seed.use(run_recorded, lambda why: say(f"{said}: {why}", err=True))


def _run_on_host(
    argv: tuple[str, ...],
    options: dict[str, Any],
    outputs: offer.Outputs | None,
    keeper: attester.Attester | None,
) -> None:
    """Run in the project itself, on the machine's own store; ``--image`` is then only checked."""
    for name in ("out", "store"):
        if options[name] is not None:
            raise InputError(
                f"--{name} has no meaning with --engine host",
                hint="the command works on the machine's own store, and puts results there",
            )
    image = shared.open_seed(options, nixes.Nix()) if options["image"] else None
    with ExitStack() as stack:
        host = hosts.Host()
        if outputs is not None:
            # A daemon, too, is in the machine's own network.
            open_ = options["network"] or host.network_off() != "namespace" or hosts.has_daemon()
            host = hosts.Host(cache=stack.enter_context(outputs.offered(open_, hosts.is_here)))
        done = run.run_on_host(_asked(argv, options), engine=host, image=image)
    pushed = None
    try:
        if done.exit_code == 0:
            pushed = kept.keep(options, nixes.Nix(), image, None, outputs, keeper)
    finally:
        if manner().json:
            say(done.to_json() | kept.outputs_json(outputs, pushed), indent=2)
        else:
            kept.print_outputs(outputs, pushed)
            off = {"namespace": "no network", "settings": "Nix offline by its settings"}
            about = off.get(done.network, "with the network")
            say(f"host: {about}, command {done.seconds:.2f} s", err=True)
    exit_with(done.exit_code)


def _asked(argv: tuple[str, ...], options: dict[str, Any]) -> run.Command:
    source = options["src"]
    return run.Command(
        argv,
        source,
        env=_environment(options["env"]),
        network=options["network"],
        accepted=shared.accepted_licences(
            options["accept_licence"], shared.policy_used(options, source)
        ),
        attr=options["attr"],
    )


def _environment(settings: tuple[str, ...]) -> dict[str, str]:
    """Read ``NAME=VALUE``; a bare ``NAME`` is passed on from the caller's own environment."""
    pairs = (setting.partition("=") for setting in settings)
    return {name: value if equals else os.environ.get(name, "") for name, equals, value in pairs}
