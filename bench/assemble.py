"""Closure to finished blobs, side by side with what one would type instead.

Every contender reads the same store paths, all in the page cache, and ends with a digest:

* ``nix-seed``: zstd frames, per-layer digests and diffIDs, every NAR hash checked; blobs go nowhere
  (as theirs do), or into the layer cache;
* ``tar | zstd -3 -T0 | sha256sum``, the target: one blob, one digest, nothing checked;
* ``tar | gzip | sha256sum``.

Contenders take turns, round after round, and the fastest round of each counts. Run by hand::

    .venv/bin/python bench/assemble.py [--root STORE_ROOT] [--rounds N]

Without a store, trees of the system's own are added to a temporary one by ``nix-store --add``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nix_seed.core.digests import NarHash
from nix_seed.formats.nix.store_path import PathInfo, StorePath
from nix_seed.image.assemble import StoreFiles, assemble_layers
from nix_seed.image.layer_cache import LayerCache
from nix_seed.image.rules.frames import Compressor, Name, Sink
from nix_seed.image.rules.layer import FinishedLayer

TREES = ("/usr/lib/gcc", "/usr/lib/python3.11", "/usr/lib/git-core", "/usr/share/perl", "/usr/bin")
LAYERS = 64


@dataclass(frozen=True, slots=True)
class Contender:
    """The fastest round: wall and CPU seconds; bytes that came out; peak memory in MiB or None."""

    name: str
    seconds: float
    cpu: float
    size: int | None = None
    peak_mib: float | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """*nar_size* bytes in *paths* store paths, and how long each contender took."""

    paths: int
    nar_size: int
    contenders: tuple[Contender, ...]

    def ratio(self, name: str, against: str) -> float:
        """Seconds of *name* over seconds of *against*."""
        seconds = {contender.name: contender.seconds for contender in self.contenders}
        return seconds[name] / seconds[against]


class Nowhere:
    """A ``LayerTarget`` that keeps nothing."""

    def find(self, key: str) -> FinishedLayer | None:  # noqa: ARG002
        return None

    def write(
        self,
        key: str,  # noqa: ARG002
        produce: Callable[[Sink], FinishedLayer],
    ) -> FinishedLayer:
        with open(os.devnull, "wb", buffering=0) as sink:
            return produce(sink)


def partition(infos: Sequence[PathInfo]) -> list[list[PathInfo]]:
    """Spread paths over at most ``LAYERS`` layers of like size; any partition does here."""
    layers: list[list[PathInfo]] = [[] for _ in range(min(LAYERS, len(infos)))]
    sizes = [0] * len(layers)
    for info in sorted(infos, key=lambda info: -info.nar_size):
        smallest = sizes.index(min(sizes))
        layers[smallest].append(info)
        sizes[smallest] += info.nar_size
    return layers


def assemble(root: Path, infos: Sequence[PathInfo], name: Name, cache: Path | None = None) -> int:
    """Assemble once; return the blobs' bytes."""
    target = Nowhere() if cache is None else LayerCache(cache)
    store = StoreFiles(root)
    done = assemble_layers(partition(infos), Compressor.at_hand(name), store, target)
    return sum(one.layer.descriptor.size for one in done)


def in_a_process(root: Path, infos: Sequence[PathInfo], name: Name) -> tuple[int, float]:
    """Assemble in a process of its own; return the blobs' bytes and its peak memory in MiB."""
    lines = "\n".join(f"{i.path.base_name} {i.nar_hash.hex} {i.nar_size}" for i in infos)
    command = [sys.executable, __file__, "--root", str(root), "--once", name]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, check=True)
    size, peak = done.stdout.split()
    return int(size), int(peak) / 1024


def once(root: Path, name: Name) -> None:
    fields = (line.split() for line in sys.stdin)
    infos = [PathInfo(StorePath(p), NarHash(h), int(s), ()) for p, h, s in fields]
    size = assemble(root, infos, name)
    print(size, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def pipeline(root: Path, infos: Sequence[PathInfo], compress: str) -> None:
    paths = " ".join(f"nix/store/{info.path.base_name}" for info in infos)
    command = f"tar cf - -C '{root}' {paths} | {compress} | sha256sum"
    subprocess.run(["sh", "-c", command], stdout=subprocess.DEVNULL, check=True)


def timed(action: Callable[[], object]) -> tuple[float, float]:
    """Return wall and CPU seconds of *action*, its children's included."""
    before, start = os.times(), time.perf_counter()
    action()
    wall, after = time.perf_counter() - start, os.times()
    return wall, sum(after[:4]) - sum(before[:4])


def bench(root: Path, infos: Sequence[PathInfo], rounds: int = 5) -> Result:
    """Let all contenders assemble *infos* of the store under *root*, *rounds* times each."""
    scratch = Path(tempfile.mkdtemp(prefix="bench-cache-"))

    def cached() -> None:
        assemble(root, infos, "zstd", scratch / "cache")

    actions: dict[str, Callable[[], object]] = {
        "nix-seed, zstd": lambda: assemble(root, infos, "zstd"),
        "nix-seed, zstd, into the cache": cached,
        "nix-seed, zstd, from the cache": cached,
        "nix-seed, gzip": lambda: assemble(root, infos, "gzip"),
        "tar | zstd -3 -T0 | sha256sum": lambda: pipeline(root, infos, "zstd -3 -T0"),
        "tar | gzip | sha256sum": lambda: pipeline(root, infos, "gzip"),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in actions}
    try:
        pipeline(root, infos, "cat")  # so that all read from memory
        for number in range(rounds):
            shutil.rmtree(scratch, ignore_errors=True)
            for name, action in actions.items():
                if number and name.startswith("tar | gzip"):
                    continue  # minutes, and never close
                times[name].append(timed(action))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    size, peak = in_a_process(root, infos, "zstd")
    contenders = tuple(
        Contender(
            name,
            *min(measured),
            size=size if name == "nix-seed, zstd" else None,
            peak_mib=peak if name == "nix-seed, zstd" else None,
        )
        for name, measured in times.items()
    )
    return Result(len(infos), sum(info.nar_size for info in infos), contenders)


def report(result: Result) -> str:
    """Return the result as a table in Markdown."""
    target = "tar | zstd -3 -T0 | sha256sum"
    lines = [
        f"{result.paths} store paths, {result.nar_size / 1e6:.0f} MB",
        "",
        f"| contender | seconds | CPU seconds | × {target.replace('|', chr(92) + '|')} |",
        "| --- | ---: | ---: | ---: |",
    ]
    for contender in result.contenders:
        name = contender.name.replace("|", "\\|")
        ratio = result.ratio(contender.name, target)
        lines.append(f"| {name} | {contender.seconds:.2f} | {contender.cpu:.2f} | {ratio:.2f} |")
    peak = next(one.peak_mib for one in result.contenders if one.peak_mib is not None)
    return "\n".join([*lines, "", f"peak memory: {peak:.0f} MiB"])


def add_trees(root: Path) -> list[PathInfo]:
    """Add the subtrees of ``TREES`` to a store under *root*, each its own path."""
    env = {**os.environ, "NIX_CONFIG": "build-users-group ="}
    for tree in filter(os.path.isdir, TREES):
        command = ["nix-store", "--store", str(root), "--add", tree]
        subprocess.run(command, env=env, check=True, capture_output=True)
    return all_paths(root)


def all_paths(root: Path) -> list[PathInfo]:
    """Return every valid path of the store under *root*."""
    nix = ["nix", "--extra-experimental-features", "nix-command", "--store", str(root)]
    text = subprocess.run([*nix, "path-info", "--all", "--json"], capture_output=True, check=True)
    found = json.loads(text.stdout)
    if isinstance(found, dict):
        found = [{"path": path} | info for path, info in found.items()]
    return [
        PathInfo(StorePath.parse(i["path"]), NarHash.parse(i["narHash"]), i["narSize"], ())
        for i in found
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, help="where the store's /nix lies")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--once", choices=["zstd", "gzip"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.once:
        once(arguments.root, arguments.once)
        return
    with tempfile.TemporaryDirectory(prefix="bench-store-") as directory:
        root = arguments.root or Path(directory)
        infos = all_paths(root) if arguments.root else add_trees(root)
        print(report(bench(root, infos, arguments.rounds)))


if __name__ == "__main__":
    main()
