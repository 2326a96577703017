"""What ``nix-seed hydrate`` tells: lines while it works, and its result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nix_seed.cli.report import human_size, plural
from nix_seed.cli.say import say
from nix_seed.flows.events import OnEvent, Stage, ignore
from nix_seed.flows.hydrate import Hydrated, LayerHydrated
from nix_seed.ground.harmless import harmless_line

__all__ = ["hydrate_progress", "hydrated_json", "hydrated_text"]


def hydrate_progress(*, quiet: bool) -> OnEvent:
    """Return what the flow reports to: a line a layer, on standard error.

    No bars: what draws them is a thread, and a process with threads may not fork workers.
    """
    return ignore if quiet else _line


def _line(event: Any) -> None:
    if isinstance(event, Stage):
        say(f"nix-seed: {harmless_line(event.text)}", err=True)
    elif isinstance(event, LayerHydrated):
        about = f"{plural(event.paths, 'path')}  {human_size(event.fetched)}"
        tier = harmless_line(event.tier)
        say(f"nix-seed: {event.layer.hex[:12]}  {tier}  {about}", err=True)


def hydrated_json(done: Hydrated) -> dict[str, Any]:
    """Return the result as programs read it: store paths, bytes, seconds."""
    return {
        "image": str(done.image),
        "narHash": done.nar_hash,
        "root": str(done.root),
        "added": [str(path) for path in done.added],
        "skipped": [str(path) for path in done.skipped],
        "reused": done.reused,
        "bytesFetched": done.fetched,
        "seconds": {
            "fetch": done.seconds.fetch,
            "decode": done.seconds.decode,
            "unpack": done.seconds.unpack,
            "register": done.seconds.register,
            "total": done.seconds.total,
        },
        "nix": None if done.nix is None else str(done.nix),
    }


def hydrated_text(done: Hydrated) -> str:
    """Return the result for people."""
    lines = [
        f"{done.root / 'nix/store'} has {plural(len(done.added), 'new path')} of {done.image}",
        f"  {human_size(done.fetched)} fetched in {done.seconds.total:.1f} s;"
        f" {plural(len(done.skipped), 'path')} there before",
    ]
    if done.nix is not None and done.root == Path("/"):
        lines.append(f"  Nix's programs: {done.nix}")
    if done.root != Path("/"):
        lines.append(f"  use it: nix --store {done.root} --offline build")
    return "\n".join(lines)
