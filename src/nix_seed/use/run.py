"""Run a command with no network: inside a seed, whose results are brought out, or on the machine.

On the machine itself, the store is the one that a seed was hydrated into.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import Any

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CouldNotCheck
from nix_seed.core.events import Stage, tell
from nix_seed.core.values import dataclass
from nix_seed.flake.nix import Nix
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.licences.rules.judge import check_accepted
from nix_seed.registry.layout import Image
from nix_seed.use import results
from nix_seed.use.engines.base import Engine, Job
from nix_seed.use.engines.host import Host
from nix_seed.use.sandboxed import Inside, find_tree, inside
from nix_seed.use.withheld import TAKE_IN, obtain_withheld, offer_withheld, spec_of


@dataclass(frozen=True, slots=True)
class Command:
    """*argv*, to be run in *source* with *env*; without *network* there is only loopback.

    The licences *accepted* are for what the image withholds. The seed *attr* of the flake in
    *source* says how to get that.
    """

    argv: Sequence[str]
    source: Path
    env: Mapping[str, str] = field(default_factory=dict)
    network: bool = False
    accepted: Sequence[str] = ()
    attr: str | None = None


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
    command: Command, *, engine: Host | None = None, image: Image | None = None
) -> HostRun:
    """Run *command*; results and links are where it puts them itself.

    With an *image*, all its paths must be valid in the host's store, and the licences of what it
    withholds accepted: ``InputError`` otherwise. Raises ``CouldNotCheck`` where they are not, or
    there is no store.
    """
    spec = None if image is None else spec_of(image)
    if spec is not None:
        check_accepted(spec.name, spec.withheld, command.accepted)
    engine = engine or Host()
    problem = engine.unavailable()
    if problem is not None:
        raise CouldNotCheck("the engine host cannot be used on this machine", hint=problem)
    prepared = str(engine.root) if image is None else engine.prepare(image)
    kept = "on" if command.network else engine.network_off()
    tell(Stage("command", f"running the command; network: {kept}"))
    start = time.monotonic()
    job = Job(
        tuple(command.argv),
        exchange=command.source,
        source=command.source,
        env=command.env,
        network=command.network,
    )
    code = engine.run(prepared, image, job)
    return HostRun(code, kept, time.monotonic() - start)


@dataclass(frozen=True, slots=True)
class RunSeconds:
    """Where the time went: having the image ready, starting it, the command, the results."""

    unpack: float
    start: float
    command: float
    results: float


@dataclass(frozen=True, slots=True)
class RunResult:
    """The command's *exit_code*, and what it *brought* out (nothing where it failed)."""

    exit_code: int
    image: Digest
    engine: str
    seconds: RunSeconds
    brought: results.Brought = field(default_factory=lambda: results.Brought((), (), "store"))


def run(
    command: Command,
    *,
    engine: Engine,
    image: Image,
    nix: Nix,
    out: Path | None = None,
    otherwise: Path | None = None,
) -> RunResult:
    """Run *command* inside *image*, its source seen as ``/src``, and bring its results out.

    New store paths go into the store of *nix*, or below *out*; below *otherwise* where that store
    takes none of this user's. Links such as ``result`` are made in the source, which is not changed
    otherwise. What the image withholds is got from its vendor
    first, where its licence is accepted (``InputError`` otherwise). A failing command is a result,
    not an error. Raises ``CouldNotCheck`` where the command was not started, or results have no
    place to go.
    """
    problem = results.store_problem(nix) if out is None else None
    if problem is not None and otherwise is None:
        raise CouldNotCheck(
            f"results cannot come back into the host's store: {problem}",
            hint="name a directory for them with --out DIR",
        )
    out = out if problem is None else otherwise
    tree = find_tree(command.source)
    spec = spec_of(image)
    lacking: tuple[StorePath, ...] = ()
    if spec is not None:
        source = str(command.source.absolute())
        lacking = obtain_withheld(nix, spec, command.accepted, source, command.attr)
    tell(Stage("unpack", f"making {image.name} ready for {engine.name}"))
    with inside(engine, image, env=command.env, network=command.network) as work:
        if out is None:
            results.offer_host_paths(nix, work)
        if spec is not None:
            offer_withheld(nix, spec, lacking, work.exchange)
        tell(Stage("command", "running the command inside" if command.network else "going offline"))
        start = time.time()
        code = work.run(
            ("/bin/sh", "-c", TAKE_IN + results.SCRIPT, "nix-seed", *command.argv), tree
        )
        begin, end = _time(work, "begin", start), _time(work, "end", time.time())
        if work.read("code") not in ("", str(code)):
            raise CouldNotCheck(
                "the command succeeded, but its results could not be exported from the container",
                hint="its own message is above; is there room in the temporary directory?",
            )
        brought = results.Brought((), (), "store" if out is None else str(out))
        if code == 0:
            tell(Stage("results", "bringing results out"))
            brought = replace(results.bring_out(work, nix, tree.root, out), problem=problem)
            if problem is not None and out is not None:
                results.hold(out, brought.links)
        done = time.time()
        seconds = RunSeconds(work.seconds, begin - start, end - begin, done - end)
    return RunResult(code, image.digest, engine.name, seconds, brought)


def _time(work: Inside, name: str, otherwise: float) -> float:
    # Inside and outside share one kernel, thus one clock.
    text = work.read(name).strip()
    return float(text) if text else otherwise
