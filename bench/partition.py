"""Expected pull after an update, by layering policy and number of layers; and planning's speed.

Run as ``python -m bench.partition [--quick]``. Figures in the table are multiples of the bound, in
which every store path is a layer of its own.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from bench.baselines import bound, by_popularity, by_size, expected_pull
from bench.closures import (
    DEBIAN_LARGE,
    DEBIAN_ROOTS,
    Closure,
    Package,
    Packages,
    closure_of,
    debian,
    has_debian,
    realise,
    roots_of,
    synthetic,
)
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.image.rules.partition.plan import Group, partition

LAYERS = (16, 32, 64, 100)


@dataclass(frozen=True, slots=True)
class Row:
    """One closure and one number of layers; the three policies as multiples of the bound."""

    closure: str
    paths: int
    bytes: int
    bound: int
    layers: int
    used: int
    ours: float
    popularity: float
    size: float
    seconds: float


def cases(*, quick: bool = False) -> Iterator[tuple[str, Packages]]:
    for count in (173, 1000) if quick else (173, 1000, 5000, 50_000):
        yield f"synthetic {count}", synthetic(count)
    if has_debian():
        yield "Debian, build tools", debian(r for roots in DEBIAN_ROOTS.values() for r in roots)
        if not quick:
            yield "Debian, desktops", debian(DEBIAN_LARGE)


def problem(packages: Packages) -> tuple[Closure, list[tuple[str, list[StorePath]]]]:
    infos = realise(packages)
    return closure_of(infos.values()), [("all", [infos[root].path for root in roots_of(packages)])]


def rows(*, quick: bool = False) -> Iterator[Row]:
    """Measure every case at every number of layers."""
    for name, packages in cases(quick=quick):
        closure, tiers = problem(packages)
        least = bound(closure)
        for layers in LAYERS:
            start = time.perf_counter()
            groups = partition(closure, tiers, budget=layers)
            seconds = time.perf_counter() - start
            yield Row(
                closure=name,
                paths=len(closure),
                bytes=sum(info.nar_size for info in closure.values()),
                bound=least,
                layers=layers,
                used=len(groups),
                ours=expected_pull(groups, closure) / least,
                popularity=expected_pull(by_popularity(closure, layers), closure) / least,
                size=expected_pull(by_size(closure, layers), closure) / least,
                seconds=seconds,
            )


def moved_layers(packages: Packages, trials: int, seed: int = 2) -> list[int]:
    """Without a base: how many layers change, other than its own, when one package is added."""
    rng = random.Random(seed)
    names = sorted(packages)
    before: set[Group] = set(partition(*problem(packages)))
    moved = []
    for n in range(trials):
        needs = tuple(rng.sample(names, rng.randint(1, 6)))
        size = int(rng.lognormvariate(12.5, 2))
        changed = set(partition(*problem({**packages, f"added{n}": Package(size, needs)}))) - before
        own = sum(any(p.package == f"added{n}" for p in group.paths) for group in changed)
        moved.append(len(changed) - own)
    return moved


def peak_memory(count: int) -> int:
    """Peak resident bytes of a process that only plans a synthetic closure of *count* paths.

    Not ``getrusage``, whose figure a child inherits from a large parent.
    """
    program = (
        "from pathlib import Path; from bench.partition import problem, synthetic, partition;"
        f"partition(*problem(synthetic({count})));"
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return int(run.stdout) * 1024


def main() -> None:
    quick = "--quick" in sys.argv
    print("| closure | paths | MB | bound MB | layers (used) | ours | size | popularity | s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for row in rows(quick=quick):
        print(
            f"| {row.closure} | {row.paths} | {row.bytes // 10**6} | {row.bound / 1e6:.1f} "
            f"| {row.layers} ({row.used}) | {row.ours:.3f} | {row.size:.2f} "
            f"| {row.popularity:.2f} | {row.seconds:.2f} |",
            flush=True,
        )
    for name, packages in cases(quick=True):
        moved = moved_layers(packages, 40)
        print(
            f"{name}: one package added without a base, {moved.count(0)} of {len(moved)} times no "
            f"other layer moves, {sum(moved) / len(moved):.2f} on average"
        )
    for count in (5000,) if quick else (5000, 50_000):
        print(f"synthetic {count}: peak memory {peak_memory(count) // 10**6} MB")


if __name__ == "__main__":
    main()
