"""Closure to registry, cold and again with one package changed, against every other way.

Each contender has docker-registry on loopback to itself, with nothing in it at first, and starts
from the paths of the closure: evaluation is not part of it. Bytes sent are those of the blobs that
the registry took; bytes read are what went through read calls, pipes and sockets included.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.context import Context, Subject, Timing, absent, timed
from bench.push_peers import PEERS, Push, Setting, forget
from bench.table import Section, Verdict
from bench.worker import dump_plan
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.image.plan import Plan
from support.registries import docker_registry

__all__ = ["OURS", "push_ours", "rows"]

OURS = "nix-seed build --push"
_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Turn:
    """One push: how long it took, and the bytes of the blobs that it added to the registry."""

    timing: Timing
    sent: int


@dataclass(frozen=True, slots=True)
class Race:
    """A contender's two pushes, the first into an empty registry; what ours said of them."""

    name: str
    cold: Turn
    again: Turn
    told: tuple[dict[str, Any], ...] = ()


def push_ours(plan: Plan, reference: str, work: Path) -> dict[str, Any]:
    """Push *plan* in a process of its own; return what it says: sent, read, layers, peak."""
    pickled = dump_plan(plan, work / "plan")
    command = [sys.executable, "-m", "bench.worker", "push", str(pickled), reference]
    paths = os.pathsep.join([str(_ROOT), str(_ROOT / "src"), str(_ROOT / "tests")])
    done = subprocess.run(
        [*command, str(work / "cache")],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def rows(context: Context) -> Section:
    """Race all that are at hand on the large closure, each beside a turn of ours."""
    subject, missing = context.large, list[str]()
    pairs: list[tuple[Race, Race]] = []
    for peer in PEERS:
        with absent(peer.name, context.say, missing):
            work = context.directory("peer")
            push = peer.prepare(work)
            ours = _ours(context, subject)
            pairs.append((ours, _race(context, subject, peer.name, push)))
            forget(work)
    if not pairs:
        pairs = [(_ours(context, subject),) * 2]
    return _section(context, subject, pairs, missing)


def _ours(context: Context, subject: Subject) -> Race:
    told: list[dict[str, Any]] = []

    def push(setting: Setting) -> None:
        told.append(push_ours(setting.plan, setting.reference, setting.work))

    race = _race(context, subject, OURS, push)
    return Race(OURS, race.cold, race.again, tuple(told))


def _race(context: Context, subject: Subject, name: str, push: Push) -> Race:
    work = context.directory("push")
    with docker_registry(work / "registry", password=False) as registry:
        turns = []
        for plan in (subject.before, subject.after):
            setting = Setting(plan, f"{registry.host}/bench/seed:bench", work)
            turns.append(_turn(work / "registry", partial(push, setting)))
    context.say(f"  {name}: {turns[0].timing.seconds:.1f} s, again {turns[1].timing.seconds:.1f} s")
    forget(work)
    return Race(name, turns[0], turns[1])


def _turn(registry: Path, action: Callable[[], None]) -> Turn:
    os.sync()
    held = _blob_bytes(registry)
    timing = timed(action)
    return Turn(timing, _blob_bytes(registry) - held)


def _blob_bytes(registry: Path) -> int:
    blobs = (registry / "data").glob("docker/registry/v2/blobs/sha256/*/*/data")
    return sum(path.stat().st_size for path in blobs)


def _section(
    context: Context, subject: Subject, pairs: list[tuple[Race, Race]], missing: list[str]
) -> Section:
    ours = min((own for own, _ in pairs), key=lambda race: race.cold.timing.seconds)
    changed = max(1, int(ours.told[1]["changed"]))
    return Section(
        title="Closure to registry, cold and again",
        intro=f"{subject.about}, docker-registry on loopback. Then one package of its input was "
        f"upgraded, which gives {len(_new(subject))} store paths new names; compressed by "
        f"themselves they are {changed / 1e6:.1f} MB.",
        columns=(
            "contender",
            "cold, s",
            "× ours",
            "CPU, s",
            "× ours",
            "sent, MB",
            "again, s",
            "× ours",
            "sent, MB",
            "× changed",
            "read, MB",
        ),
        rows=(
            _row(ours, ours, changed),
            *(_row(peer, own, changed) for own, peer in pairs if peer is not own),
        ),
        verdicts=() if context.quick else tuple(_verdicts(ours, pairs, changed)),
        notes=(
            f"Ours read {ours.told[1]['read']} of {ours.told[1]['layers']} layers the second time, "
            f"and had {ours.told[0]['peak']:.0f} MiB at most in memory the first.",
            "CPU is that of the contender's own processes, not the registry's. Each peer ran once, "
            "right after a run of ours: ratios are within such a pair, so that other work on the "
            f"machine weighs on both. Ours took {_spread(pairs)} s; its row is the fastest.",
            "nix2container's own way is a patched skopeo, for which its library and "
            "go-containerregistry stand here (`bench/nix2container`): the same layers, compressed "
            "four at once at gzip's fastest level, with nothing on disk.",
            *missing,
        ),
    )


def _row(race: Race, ours: Race, changed: int) -> tuple[str, ...]:
    cold, again = race.cold.timing, race.again.timing
    return (
        race.name,
        f"{cold.seconds:.2f}",
        f"{cold.seconds / ours.cold.timing.seconds:.1f}",
        f"{cold.cpu:.1f}",
        f"{cold.cpu / ours.cold.timing.cpu:.1f}",
        f"{race.cold.sent / 1e6:.1f}",
        f"{again.seconds:.2f}",
        f"{again.seconds / ours.again.timing.seconds:.1f}",
        f"{race.again.sent / 1e6:.1f}",
        f"{race.again.sent / changed:.2f}",
        f"{again.read / 1e6:,.0f}",
    )


def _spread(pairs: list[tuple[Race, Race]]) -> str:
    return ", ".join(f"{own.cold.timing.seconds:.1f}" for own, _ in pairs)


def _new(subject: Subject) -> set[StorePath]:
    return set(subject.after.spec.paths) - set(subject.before.spec.paths)


def _verdicts(ours: Race, pairs: list[tuple[Race, Race]], changed: int) -> Iterator[Verdict]:
    peers = [(own, peer) for own, peer in pairs if peer is not own]
    if peers:
        own, best = min(peers, key=lambda pair: pair[1].cold.timing.seconds)
        ratio = best.cold.timing.seconds / own.cold.timing.seconds
        yield Verdict(
            "closure → registry, cold",
            f"the best of {len(peers)}: {best.name}",
            f"{ratio:.1f} × faster",
            "5 × faster",
            ratio >= 5,
            _why(own, best),
        )
    spare, layers = ours.again.sent / changed, ours.told[1]
    yield Verdict(
        "again, one package changed: bytes sent",
        "the changed paths, compressed",
        f"{spare:.2f} ×, {layers['read']} of {layers['layers']} layers read",
        "1.1 ×, unchanged layers not read",
        spare <= 1.1,
        f"a layer is sent whole when one of its paths is new: {layers['sent'] / 1e6:.1f} MB in "
        f"{layers['read']} layers, of which {changed / 1e6:.1f} MB are new paths.",
    )


def _why(ours: Race, best: Race) -> str:
    cold, cores = ours.cold.timing, os.cpu_count() or 1
    return (
        f"ours takes {cold.cpu:.1f} CPU seconds, {cold.cpu / cores:.1f} s if {cores} cores did "
        f"nothing else, and took {cold.seconds:.1f} s with the registry beside it; most of it is "
        "zstd (see the split under *Closure to blobs*), so that only a lower level, or more cores, "
        f"would be much faster. {best.name} took {best.cold.timing.cpu:.1f} CPU seconds."
    )
