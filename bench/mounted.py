"""Nothing to the result of a changed project's build: mounted, unpacked, and by Nix's own copy.

Every contender begins with an empty cache, gets the seed from a server on loopback, and builds the
project after a commit that changed one line of its source:

* ``nix-seed run`` on a mount, with the list of what was read by a build of the commit before;
* the same without a list;
* ``nix-seed run --eager``, which unpacks all of the seed first;
* ``nix copy`` of the seed's paths from a local HTTP binary cache of zstd, and nothing after it: the
  build would come on top.

Contenders take turns, and the fastest round of each counts. Start-up is included. Processor time is
that of all that the contender started.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.context import Context, Subject
from bench.first_build import layout_of
from bench.hydrate import serve, substitute, timed_action
from bench.table import Section
from nix_seed.formats.oci.reference import Reference
from nix_seed.image.push import push
from nix_seed.registry.open import Stores
from nix_seed.use.hydrate import hydrate
from support.distribution import commit, make_project, nix_env
from support.registries import docker_registry

__all__ = ["rows"]

_LISTED, _PLAIN, _EAGER = "mount, list of an earlier commit", "mount, no list", "unpack first"
_COPY = "nix copy, zstd, without the build"


@dataclass(frozen=True, slots=True)
class _Job:
    project: Path
    command: tuple[str, ...]
    work: Path

    def run(self, image: Reference, place: Path, *more: str) -> None:
        """Do all of it in the new directory *place*."""
        env = nix_env() | {"NIX_SEED_CACHE": str(place / "cache"), "HOME": str(self.work)}
        own = [sys.executable, "-m", "nix_seed", "run", "--image", str(image)]
        own += ["--src", str(self.project), "--out", str(place / "out"), *more, "--"]
        (self.project / "result").unlink(missing_ok=True)
        done = subprocess.run([*own, *self.command], env=env, capture_output=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"{own} failed: {done.stderr.decode()[-2000:]}")


def rows(context: Context) -> Section:
    """Race on the demo's seed; in a quick run on a run image, with a command that reads little."""
    subject = context.small
    work = context.directory("mounted")
    project = make_project("two-packages", work / "project")
    command = ("bash", "-c", ":") if context.quick else ("nix", "build")
    job = _Job(project, command, work)
    times: dict[str, list[tuple[float, float]]] = {}
    with ExitStack() as stack:
        contenders = _contenders(context, subject, job, stack)
        for number in range(context.rounds):
            for place, (name, action) in enumerate(contenders.items()):
                os.sync()
                measured = timed_action(action, work / f"round-{number}-{place}")
                times.setdefault(name, []).append(measured)
    best = {name: min(wall for wall, _ in found) for name, found in times.items()}
    for name, seconds in best.items():
        context.say(f"  {name}: {seconds:.2f} s")
    return Section(
        title="Nothing to the result of a changed project's build",
        intro=(__doc__ or "").split("\n\n", 1)[1].strip(),
        columns=("contender", "s", "× mount with a list", "processor s"),
        rows=tuple(
            (
                name,
                f"{seconds:.2f}",
                f"{seconds / best[_LISTED]:.1f}",
                f"{min(used for _, used in times[name]):.2f}",
            )
            for name, seconds in best.items()
        ),
        notes=(f"{subject.about}.",),
    )


def _contenders(
    context: Context, subject: Subject, job: _Job, stack: ExitStack
) -> dict[str, Callable[[Path], object]]:
    image, spec = layout_of(context, subject), subject.before.spec
    registry = stack.enter_context(docker_registry(job.work / "registry", password=False)).host
    listed = Reference(registry, "bench/listed", "seed")
    plain = Reference(registry, "bench/plain", "seed")
    for reference in (listed, plain):
        push(Stores(), image, reference)
    job.run(listed, job.work / "earlier", "--record")
    _change(job.project)
    store = job.work / "store"
    hydrate(Stores(), image, store, system=spec.system)
    served = stack.enter_context(serve(job.work / "served"))
    return {
        _LISTED: lambda place: job.run(listed, place),
        _PLAIN: lambda place: job.run(plain, place),
        _EAGER: lambda place: job.run(plain, place, "--eager"),
        _COPY: substitute(spec, store, job.work, served, "zstd"),
    }


def _change(project: Path) -> None:
    source = project / "greet/main.c"
    source.write_text(source.read_text().replace("usage: greet", "usage, changed: greet"))
    commit(project, "Change one line")
