"""The input ``outputs`` of CI steps: a seed's job keeps what it builds, and ``use`` serves it.

What the policy's builders built before is taken, not built. The seed is a published one, so that
whoever takes an output can tell what it was built in. ``nix-seed ci served`` tells what later steps
took of that.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Final

from nix_seed.cli.lazily import lazily
from nix_seed.cli.options import state_directory
from nix_seed.cli.outputs.options import branch_at_hand
from nix_seed.cli.say import answer
from nix_seed.cli.setup.ci_job import CiJob
from nix_seed.core import canonical_json
from nix_seed.core.errors import CouldNotCheck, InputError, NixSeedError
from nix_seed.core.events import Stage, tell
from nix_seed.core.files import cache_directory, explained
from nix_seed.core.processes import own_command
from nix_seed.core.values import dataclass
from nix_seed.core.words import human_size, plural
from nix_seed.flake.checkout import read_checkout
from nix_seed.flake.nix import Nix
from nix_seed.formats.oci.reference import Reference
from nix_seed.setup.ci_host import CiHost
from nix_seed.setup.rules.ci_inputs import parse_switch
from nix_seed.setup.rules.ci_words import build_summary, paragraph, table, verbatim

with lazily():
    from nix_seed.cli.setup import ci_find
    from nix_seed.image.read import spec as specs, unpack
    from nix_seed.outputs import offer, open as opening, push, server
    from nix_seed.registry import layout
    from nix_seed.release import attester as attesters, load, verifiers
    from nix_seed.use import run, runnable
    from nix_seed.use.engines import base


_NO_POLICY: Final = "there is no trust.toml, which says whose outputs may be taken"
_HOURS: Final = 6  # GitHub's longest job
_PATIENCE: Final = 30  # seconds
_LOOPBACK: Final = re.compile(r"http://127\.0\.0\.1:([0-9]{1,5})\Z")
_LONGEST: Final = 1 << 20  # bytes of its answer
SERVED_AT: Final = "NIX_SEED_SERVED"
"""The variable by which a later step finds what serves kept outputs."""


def wanted(job: CiJob) -> bool:
    """Whether the job takes and keeps outputs; ``InputError`` for what is no switch."""
    return parse_switch(job.options["kept_outputs"] or "false", "outputs")


@dataclass(frozen=True, slots=True)
class KeptOutputs:
    """The names of what was *built*, what *told* says was taken, and what was *pushed*.

    *seconds* are those of all builds, each for itself, *took* those of everything.
    """

    built: tuple[str, ...]
    told: offer.Told
    pushed: push.PushedOutputs
    seconds: float
    took: float


def keep_outputs(
    job: CiJob, publication: ci_find.Publication | None, result: ci_find.SeedResult
) -> KeptOutputs | None:
    """Build the project's outputs in its seed, and keep what is new, where that is asked.

    Who may not publish neither builds nor keeps. Seeds are as good without: whatever goes wrong is
    a warning.
    """
    if not wanted(job) or publication is None:
        return None
    if job.policy is None or publication.attester is None:
        reason = _NO_POLICY if job.policy is None else "nobody signs them: signing is none"
        job.host.annotate("notice", "Outputs are not kept", reason)
        return None
    by = load.verifiers_of(job.policy, job.stores, state_directory())
    try:
        return _keep(by, job.repository, result, publication.tree, publication.attester)
    except NixSeedError as error:
        reason = f"{error.message} ({error.hint})" if error.hint else error.message
        job.host.annotate("warning", "Outputs are not kept", reason)
        return None


def _keep(
    by: verifiers.Verifiers,
    place: Reference,
    result: ci_find.SeedResult,
    tree: attesters.SourceTree,
    attester: attesters.Attester,
) -> KeptOutputs:
    """Build all packages and checks, take what is kept in *place*, and keep what was built.

    Raises ``CouldNotCheck`` where they do not build, or nothing here runs images.
    """
    nix, start = Nix(), time.monotonic()
    seed = Reference.parse(result.reference)
    named = push.named_outputs(nix, read_checkout(tree.directory).flake, result.system)
    installables = named.installables(".", result.system)
    if not installables:
        raise InputError(f"the flake has no packages and checks for {result.system}")
    by.stores.open(place, create=True)
    told = offer.Told()
    cache = opening.open_cache(by, place, opening.fresh_key(), None, told)
    outputs = offer.Outputs(cache, told)
    used: list[layout.Image] = []

    def run_in(image: layout.Image, engine: base.Engine) -> run.RunResult:
        used.append(image)
        tell(Stage("outputs", f"building {plural(len(installables), 'output')} in the seed"))
        argv = ("nix", "build", "--no-link", "--keep-going", "-L", *installables)
        accepted = by.policy.licences
        asked = run.Command(argv, tree.directory, accepted=accepted, attr=tree.attr)
        with outputs.offered_in(image, engine) as offered:
            return run.run(asked, engine=offered, image=image, nix=nix)

    images = unpack.private_cache(cache_directory())
    runs = runnable.Runnable(by.stores, seed, result.system, images, images / "images")
    done = runs.use(run_in)
    if done.exit_code != 0:
        raise CouldNotCheck(
            f"the outputs do not all build in {seed}: nix exited with {done.exit_code}",
            hint="nothing of them is signed; what failed is in the log above",
        )
    choice = replace(offer.choice_of(done.brought, told, branch_at_hand()), named=named)
    pushed = push.push_outputs(
        push.OutputsTarget(by.stores, place, nix),
        opening.built_in(specs.read_spec(used[-1]), seed.digest or used[-1].digest),
        tree,
        attester,
        choice,
    )
    built = tuple(sorted(path.name for path in choice.built))
    seconds = sum(choice.millis.values()) / 1000
    return KeptOutputs(built, told, pushed, seconds, time.monotonic() - start)


def kept_parts(kept: KeptOutputs | None) -> Iterator[str]:
    """Yield for the page what was built of the project, what was taken, and what that saved."""
    if kept is None:
        return
    built, pushed, told = kept.built, kept.pushed, kept.told
    rows = (
        ("built", plural(len(built), "output"), f"{kept.seconds:.1f} s"),
        ("taken", plural(len(told.taken), "output"), f"{told.saved:.1f} s saved"),
        ("kept", plural(len(pushed.pushed), "output"), f"{human_size(pushed.sent)} sent"),
        ("together", "", f"{kept.took:.1f} s"),
    )
    yield table("Outputs", ("", "", ""), rows)
    if built:
        yield verbatim("Built", built)
    if told.reasons:
        yield verbatim("Not taken", tuple(told.reasons))


@dataclass(frozen=True, slots=True)
class ServedOutputs:
    """A binary cache at *url*, which signs by *key*; what it does it tells in the file *log*."""

    place: str
    url: str
    key: str
    log: Path

    def settings(self, alone: bool) -> str:
        """Return the lines of nix.conf that name it: *alone*, or beside the caches there are."""
        extra = "" if alone else "extra-"
        lines = {
            f"{extra}substituters": self.url,
            f"{extra}trusted-public-keys": self.key,
            "substitute": "true",
            "fallback": "true",
            "narinfo-cache-negative-ttl": "0",
        }
        if alone:
            lines["connect-timeout"] = str(opening.CONNECT_PATIENCE)
        return "\n".join(f"{name} = {value}" for name, value in lines.items())


def serve_outputs(job: CiJob) -> ServedOutputs | None:
    """Start what serves kept outputs to the steps that follow, where that is asked.

    It is on loopback, reads and never writes, and ends with the job, or after some hours. Without
    it everything is built: whatever goes wrong is a notice.
    """
    if not wanted(job):
        return None
    try:
        return _serve(job)
    except NixSeedError as error:
        job.host.annotate("notice", "Outputs are not taken", error.message)
        return None


def _serve(job: CiJob) -> ServedOutputs:
    policy, place = job.flake.policy, str(job.repository)
    if policy is None:
        raise CouldNotCheck(_NO_POLICY)
    arguments = ["outputs", "serve", place, "--policy", str(policy.absolute()), "--port", "0"]
    arguments += ["--hours", str(_HOURS), "--state", str(state_directory().absolute())]
    ca_file = job.options["ca_file"]
    arguments += ["--ca-file", ca_file] if ca_file else []
    # Not by its environment, which every build of this user could read.
    arguments += ["--username", job.user, "--password-stdin"] if job.token else []
    with explained("starting the cache of outputs"):
        handle, name = tempfile.mkstemp(".log", "outputs-", os.environ.get("RUNNER_TEMP") or None)
        with open(handle, "w") as log:
            process = subprocess.Popen(
                own_command(arguments),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError), process.stdin as pipe:
        pipe.write(f"{job.token}\n" if job.token else "")
    lines = [process.stdout.readline().split() for _ in range(2)]
    if [each[:1] for each in lines] != [["serving:"], ["key:"]]:
        process.wait(_PATIENCE)
        raise CouldNotCheck(f"no outputs are served from {place}: {Path(name).read_text().strip()}")
    return ServedOutputs(place, lines[0][1], lines[1][1], Path(name))


def tell_served() -> None:
    """Say on the run's page what later steps took; that nothing was served is an answer as well."""
    told = _ask_served(os.environ.get(SERVED_AT, ""))
    CiHost().add_summary(_served_summary(told))
    answer({} if told is None else told, _served_text(told))


def _served_text(told: Mapping[str, Any] | None) -> str:
    """Return in a line what was *told* of the cache; None is for one that there was not."""
    if told is None:
        return "no kept outputs were served in this job, or what served them has ended"
    taken, saved = plural(told["taken"], "output"), told["millis"] / 1000
    return f"{taken} taken, {human_size(told['bytes'])}; {saved:.1f} s of building saved"


def _served_summary(told: Mapping[str, Any] | None) -> str:
    """Return the page of ``ci served``."""
    parts: list[str] = [paragraph(_served_text(told))]
    if told is not None and told["reasons"]:
        parts.append(verbatim("Not taken", tuple(map(str, told["reasons"]))))
    return build_summary("Outputs taken", parts)


def _ask_served(url: str) -> dict[str, Any] | None:
    """Return what the cache at *url* tells, None where there is none; it is of this machine."""
    found = _LOOPBACK.match(url)
    if found is None:
        return None
    connection = HTTPConnection("127.0.0.1", int(found[1]), timeout=_PATIENCE)
    try:
        connection.request("GET", server.SERVED)
        told = canonical_json.loads(connection.getresponse().read(_LONGEST), label=url)
        kinds = {"taken": int, "bytes": int, "millis": int, "reasons": list}
        if isinstance(told, dict) and all(type(told.get(n)) is k for n, k in kinds.items()):
            return told
    except (OSError, OverflowError, HTTPException, NixSeedError):
        pass
    finally:
        connection.close()
    return None
