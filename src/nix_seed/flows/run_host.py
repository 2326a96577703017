"""Run a command on the machine itself, on the store a seed was hydrated into, with no network."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nix_seed.clients.engines.base import Job
from nix_seed.clients.engines.host import Host
from nix_seed.clients.image_layout import Image
from nix_seed.flows.events import OnEvent, Stage, ignore
from nix_seed.flows.withheld import spec_of
from nix_seed.ground.errors import CouldNotCheck
from nix_seed.rules.accept import check_accepted

__all__ = ["HostRun", "run_on_host"]


@dataclass(frozen=True, slots=True)
class HostRun:
    """The command's *exit_code*, its *seconds*, and what kept it off the network.

    *network* is ``namespace`` (none but loopback), ``settings`` (Nix alone was told) or ``on``.
    """

    exit_code: int
    network: str
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the run as programs read it."""
        return {
            "exitCode": self.exit_code,
            "engine": "host",
            "network": self.network,
            "seconds": {"command": self.seconds},
        }


def run_on_host(
    argv: Sequence[str],
    *,
    source: Path,
    engine: Host | None = None,
    image: Image | None = None,
    env: Mapping[str, str] | None = None,
    network: bool = False,
    accepted: Sequence[str] = (),
    on_event: OnEvent = ignore,
) -> HostRun:
    """Run *argv* in *source*; results and links are where the command itself puts them.

    With an *image*, all its paths must be valid in the host's store, and the licences of what it
    withholds *accepted*: ``InputError`` otherwise. Raises ``CouldNotCheck`` where they are not, or
    there is no store.
    """
    spec = None if image is None else spec_of(image)
    if spec is not None:
        check_accepted(spec.name, spec.withheld, accepted)
    engine = engine or Host()
    problem = engine.unavailable()
    if problem is not None:
        raise CouldNotCheck("the engine host cannot be used on this machine", hint=problem)
    prepared = str(engine.root) if image is None else engine.prepare(image)
    kept = "on" if network else engine.network_off()
    on_event(Stage("command", f"running the command; network: {kept}"))
    start = time.monotonic()
    job = Job(tuple(argv), exchange=source, source=source, env=env or {}, network=network)
    code = engine.run(prepared, image, job)
    return HostRun(code, kept, time.monotonic() - start)
