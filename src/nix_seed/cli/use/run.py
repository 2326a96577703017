"""``nix-seed run``. What it tells when the command has ended goes to standard error."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from nix_seed.cli import options as shared
from nix_seed.cli.command import option, progress, seed_command, together
from nix_seed.cli.say import manner, say
from nix_seed.cli.use import outputs as kept
from nix_seed.core.errors import InputError
from nix_seed.core.events import Stage, tell
from nix_seed.core.files import cache_directory
from nix_seed.core.words import plural
from nix_seed.formats.oci.reference import Reference

if TYPE_CHECKING:
    from nix_seed.flake.nix import Nix
    from nix_seed.outputs.offer import Outputs
    from nix_seed.registry.layout import Image
    from nix_seed.registry.open import AnyReference, Stores
    from nix_seed.release.attester import Attester
    from nix_seed.use.engines.base import Engine
    from nix_seed.use.run import Command, RunResult


def run_json(result: RunResult, more: dict[str, Any]) -> None:
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


def print_run(result: RunResult) -> None:
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
    from nix_seed.flake.nix import Nix
    from nix_seed.use.run import run

    keeper, outputs = kept.keeper_of(options), kept.outputs_of(options)
    if options["engine"] == "host":
        _run_on_host(argv, options, outputs, keeper)
        return
    nix = Nix(store=options["store"])

    used: list[Image] = []

    def run_in(image: Image, engine: Engine) -> RunResult:
        used.append(image)
        with progress(quiet=True), ExitStack() as stack:
            engine = _with_outputs(stack, image, engine, outputs, options["network"])
            asked = _asked(argv, options)
            return run(asked, engine=engine, image=image, nix=nix, out=options["out"])

    result = _run_in_seed(options, nix, run_in)
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
    click.get_current_context().exit(result.exit_code)


def _run_in_seed(
    options: dict[str, Any], nix: Nix, run_in: Callable[[Image, Engine], RunResult]
) -> RunResult:
    """Run in a seed that is mounted from its registry or, where that cannot be, unpacked first."""
    from nix_seed.registry.transfer import open_here
    from nix_seed.use.engines import choose_engine

    cache = cache_directory()
    if options["image"] is None:
        with progress(quiet=True):
            tell(Stage("open", f"looking for the seed of {options['src']}"))
            image = shared.open_seed(options, nix)
    else:
        with progress(quiet=True):
            tell(Stage("open", f"reading {options['image']}"))
            stores, reference, system = shared.named_seed(options)
        if not options["eager"] and options["engine"] in (None, "bwrap"):
            result = _run_mounted(options, stores, reference, system, run_in)
            if result is not None:
                return result
        with progress(quiet=True):
            image = open_here(stores, reference, cache / "images", system)
    return run_in(image, choose_engine(options["engine"], shared.unpacking_cache()))


def _run_mounted(
    options: dict[str, Any],
    stores: Stores,
    reference: AnyReference,
    system: str,
    run_in: Callable[[Image, Engine], RunResult],
) -> RunResult | None:
    if not isinstance(reference, Reference):
        return None  # on this disk already
    from nix_seed.registry.open import choose_system, fetch

    source = stores.open(reference)
    root = choose_system(source, fetch(source, reference), system)
    cache, digest = shared.unpacking_cache(), root.descriptor.digest
    if (cache / "roots" / f"sha256-{digest.hex}").is_dir():
        return None  # unpacked already
    from nix_seed.use.engines.mounted import mounted_engine
    from nix_seed.use.mount.linux import NotMountable
    from nix_seed.use.mount.seed import keep_prefetch
    from nix_seed.use.record import start_nix

    try:
        with mounted_engine(cache, root, source, str(reference.at(digest))) as (image, engine):
            if options["record"]:
                start_nix(engine, image)
            result = run_in(image, engine)
            if options["record"] and result.exit_code == 0:
                tag = keep_prefetch(source, engine.seed, tuple(engine.frames.touched))
                say(f"what the command read is listed beside the image: {tag}", err=True)
            if options["complete"]:
                engine.complete()
            return result
    except NotMountable as error:
        say(f"nix-seed: the image is unpacked, not mounted: {error.message}", err=True)
        return None


def _with_outputs(
    stack: ExitStack, image: Image, engine: Engine, outputs: Outputs | None, network: bool
) -> Engine:
    """Return *engine*, whose Nix may take from *outputs* where it can be given a way to."""
    from nix_seed.use.engines.loopback import why_no_server

    if outputs is None:
        return engine
    problem = why_no_server(engine.name)
    if problem is not None:
        say(f"nix-seed: outputs are built, not taken: {problem}", err=True)
        return engine
    return stack.enter_context(outputs.offered_in(image, engine, network))


def _run_on_host(
    argv: tuple[str, ...],
    options: dict[str, Any],
    outputs: Outputs | None,
    keeper: Attester | None,
) -> None:
    """Run in the project itself, on the machine's own store; ``--image`` is then only checked."""

    from nix_seed.flake.nix import Nix
    from nix_seed.use.engines.host import Host, has_daemon, is_here
    from nix_seed.use.run import run_on_host

    for name in ("out", "store"):
        if options[name] is not None:
            raise InputError(
                f"--{name} has no meaning with --engine host",
                hint="the command works on the machine's own store, and puts results there",
            )
    image = shared.open_seed(options, Nix()) if options["image"] else None
    with ExitStack() as stack:
        host = Host()
        if outputs is not None:
            # A daemon, too, is in the machine's own network.
            open_ = options["network"] or host.network_off() != "namespace" or has_daemon()
            host = Host(cache=stack.enter_context(outputs.offered(open_, is_here)))
        done = run_on_host(_asked(argv, options), engine=host, image=image)
    pushed = None
    try:
        if done.exit_code == 0:
            pushed = kept.keep(options, Nix(), image, None, outputs, keeper)
    finally:
        if manner().json:
            say(done.to_json() | kept.outputs_json(outputs, pushed), indent=2)
        else:
            kept.print_outputs(outputs, pushed)
            off = {"namespace": "no network", "settings": "Nix offline by its settings"}
            about = off.get(done.network, "with the network")
            say(f"host: {about}, command {done.seconds:.2f} s", err=True)
    click.get_current_context().exit(done.exit_code)


def _asked(argv: tuple[str, ...], options: dict[str, Any]) -> Command:
    from nix_seed.use.run import Command

    source = options["src"]
    return Command(
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
    import os

    pairs = (setting.partition("=") for setting in settings)
    return {name: value if equals else os.environ.get(name, "") for name, equals, value in pairs}
