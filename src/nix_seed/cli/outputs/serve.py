"""``nix-seed outputs serve``."""

import sys
from typing import Any

import click

from nix_seed.cli import options as shared
from nix_seed.cli.command import option, seed_command
from nix_seed.cli.say import manner, say
from nix_seed.formats.oci.reference import parse_reference


@seed_command("serve", short_help="Serve kept outputs to this machine's Nix.")
@click.argument("reference", metavar="REF")
@shared.policy_option("Whose outputs are served.")
@option("--port", "Port; 0 takes any that is free.", default=7090)
@option("--hours N", "End after so many hours.", type=click.IntRange(1, 168))
@shared.state_option(
    "Where the key it signs by, and what logs showed, is kept [~/.local/state/nix-seed]."
)
@shared.registry_options
def serve_command(**options: Any) -> None:
    """Serve the outputs kept in REF to this machine's Nix, as a binary cache.

    Only what the policy lets be taken is served: its `outputs` is "own", "quorum" or "none". Each
    NAR is checked while it is sent. Whatever cannot be asked, or is refused, is a miss, and is said
    here; Nix then builds.
    """
    import signal

    from nix_seed.outputs.offer import Told
    from nix_seed.outputs.open import kept_key, open_cache
    from nix_seed.outputs.server import CacheServer
    from nix_seed.release.load import verifiers_of

    state = options["state"] or shared.state_directory()
    loaded = shared.policy_of(options)
    by = verifiers_of(loaded, shared.stores_of(options), state)
    key = kept_key(state)
    told = Told()

    def on_event(event: object) -> None:
        told(event)
        _report(event)

    cache = open_cache(by, parse_reference(options["reference"]), key, None, on_event)
    server = CacheServer(cache, options["port"], told=told.dump)
    say(f"serving: {server.url}")
    say(f"key:     {key.public}")
    say(f"use:     nix build --extra-substituters {server.url} --fallback")
    say(f"         --extra-trusted-public-keys {key.public}")
    # A service manager's way to stop, and --hours.
    for ends in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(ends, lambda *_: sys.exit(0))
    signal.alarm(3600 * (options["hours"] or 0))
    sys.stdout.flush()
    try:
        server.run()
    except KeyboardInterrupt:
        say("stopped", err=True)


def _report(event: object) -> None:
    from nix_seed.cli.outputs.options import event_text

    text = event_text(event)
    if text is not None and not manner().quiet:
        say(text, err=True)
