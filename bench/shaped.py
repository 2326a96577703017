"""A cold push over a link of 1 Gbit/s and of 200 Mbit/s, shaped by the kernel.

The registry runs in a network namespace of this benchmark's own (``bench/link.py``).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

from bench.context import Context, absent, timed
from bench.link import Link, link, registry_config, served
from bench.push_peers import PEERS, Setting
from bench.pushes import push_ours
from bench.table import Section, Verdict

__all__ = ["rows"]

_RATES = {"1 Gbit/s": "1gbit", "200 Mbit/s": "200mbit"}
_PORT = 5000
# The one-pass peers; the others begin with a whole image on disk, which no link makes faster.
_PUSHERS = ("nix2container", "tar and crane")


def rows(context: Context) -> Section:
    """Push the small seed at every rate."""
    missing: list[str] = []
    figures: dict[str, dict[str, float]] = {}
    with absent("shaping", context.say, missing), link() as way:
        for rate in list(_RATES)[: 1 if context.quick else None]:
            way.shape(_RATES[rate])
            figures[rate] = _pushes(context, way, missing)
            for name, seconds in figures[rate].items():
                context.say(f"  {rate}, {name}: {seconds:.2f} s")
    return Section(
        title="Pushing at 1 Gbit/s and 200 Mbit/s",
        intro=f"{context.small.about}. " + (__doc__ or "").split("\n\n", 1)[1].strip(),
        columns=("contender", "link", "s", "× ours"),
        rows=tuple(_rows(figures)),
        verdicts=() if context.quick else tuple(_verdicts(figures)),
        notes=tuple(dict.fromkeys(missing)),
    )


def _rows(figures: dict[str, dict[str, float]]) -> Iterator[tuple[str, ...]]:
    for rate, times in figures.items():
        own = next(iter(times.values()))
        for name, seconds in times.items():
            yield (name, rate, f"{seconds:.2f}", f"{seconds / own:.1f}")


def _verdicts(figures: dict[str, dict[str, float]]) -> Iterator[Verdict]:
    for rate, times in figures.items():
        own, *others = times.items()
        if others:
            name, seconds = min(others, key=lambda item: item[1])
            yield Verdict(
                f"push, {rate}",
                f"the best of {len(others)}: {name}",
                f"{seconds / own[1]:.1f} × faster",
                "as fast as any",
                seconds >= own[1],
            )


def _pushes(context: Context, way: Link, missing: list[str]) -> dict[str, float]:
    times: dict[str, float] = {}
    plan = context.small.before

    def race(name: str, push: Callable[[Setting], object]) -> None:
        work = context.directory("shaped")
        with served(way, registry_config(work / "registry", _PORT), _PORT) as host:
            setting = Setting(plan, f"{host}/bench/seed:bench", work)
            times[name] = timed(lambda: push(setting)).seconds
        shutil.rmtree(work)

    race("nix-seed build --push", lambda s: push_ours(s.plan, s.reference, s.work))
    for peer in PEERS:
        if peer.name.startswith(_PUSHERS):
            with absent(peer.name, context.say, missing):
                race(peer.name, peer.prepare(context.directory("peer")))
    return times
