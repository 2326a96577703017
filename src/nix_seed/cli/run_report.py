"""What ``nix-seed run`` tells when the command has ended; on standard error, which is ours."""

from __future__ import annotations

from dataclasses import asdict

from nix_seed.cli.report import plural
from nix_seed.cli.say import say
from nix_seed.flows.run import RunResult

__all__ = ["print_run", "run_json"]


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
