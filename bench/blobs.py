"""Closure to finished blobs with digests, against what one would type, and against other tools.

Every contender reads the same store paths, all in the page cache. Ours and the pipeline with zstd
take turns: the ratio is the median of those within each round, the seconds are the fastest. Ours
checks every NAR hash besides, and makes 64 layers; the pipelines make one blob and check nothing.
"""

from __future__ import annotations

import cProfile
import pstats
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench import assemble as ours
from bench.builders import buildah, skopeo_recompress
from bench.context import Context, Subject, Timing, absent, timed
from bench.table import Section, Verdict
from nix_seed.formats.nix.store_path import PathInfo
from nix_seed.image.assemble import StoreFiles, assemble_layers
from nix_seed.image.rules.contents import ContentsWriter
from nix_seed.image.rules.frames import Alone, Compressor, FrameWriter
from nix_seed.image.rules.layer import write_path
from support.programs import need

__all__ = ["rows"]

_ZSTD = "tar | zstd -3 -T0 | sha256sum"
_GZIP = "tar | gzip | sha256sum"
_OURS = "nix-seed, zstd"


@dataclass(frozen=True, slots=True)
class _Raced:
    """A contender, its fastest round, and its time as a multiple of the pipeline's."""

    name: str
    best: Timing
    ratio: float
    cpu_ratio: float


def rows(context: Context) -> Section:
    """Race on the small and the large closure."""
    table: list[tuple[str, ...]] = []
    verdicts: list[Verdict] = []
    missing: list[str] = []
    for subject in (context.small,) if context.quick else (context.small, context.large):
        raced = _race(context, subject, missing)
        _, peak = ours.in_a_process(Path("/"), subject.infos, "zstd")
        table += [_row(subject, one) for one in raced]
        if not context.quick:
            verdicts += _verdicts(subject, raced[0], raced[1].best, peak)
    return Section(
        title="Closure to blobs",
        intro=(__doc__ or "").split("\n\n", 1)[1].replace("\n", " "),
        columns=("contender", "closure", "s", "CPU, s", f"× {_ZSTD}", "× its CPU"),
        rows=tuple(table),
        verdicts=tuple(verdicts),
        notes=(*_profile(context), *missing),
    )


def _race(context: Context, subject: Subject, missing: list[str]) -> list[_Raced]:
    groups = _groups(subject)
    actions: dict[str, Callable[[], object]] = {
        _OURS: lambda: _assemble(groups, "zstd"),
        _ZSTD: lambda: ours.pipeline(Path("/"), subject.infos, "zstd -3 -T0"),
    }
    ours.pipeline(Path("/"), subject.infos, "cat")  # so that all read from memory
    times: dict[str, list[Timing]] = {name: [] for name in actions}
    for _ in range(context.rounds):
        for name, action in actions.items():
            times[name].append(timed(action))
    raced = [_raced(name, all_, times[_ZSTD]) for name, all_ in times.items()]
    slow = _slow(context, subject, missing) if subject is context.small else {}
    for name, action in slow.items():
        raced.append(_raced(name, [timed(action)], [raced[1].best]))
    for one in raced:
        context.say(f"  {subject.name}, {one.name}: {one.best.seconds:.2f} s")
    return raced


def _raced(name: str, own: list[Timing], pipeline: list[Timing]) -> _Raced:
    pairs = list(zip(own, pipeline, strict=True))
    return _Raced(
        name,
        min(own, key=_seconds),
        median(one.seconds / other.seconds for one, other in pairs),
        median(one.cpu / other.cpu for one, other in pairs),
    )


def _slow(
    context: Context, subject: Subject, missing: list[str]
) -> dict[str, Callable[[], object]]:
    """Return the contenders that are never close, and get one turn, on the small closure."""
    found: dict[str, Callable[[], object]] = {
        _GZIP: lambda: ours.pipeline(Path("/"), subject.infos, "gzip")
    }
    with absent("buildah", context.say, missing):
        need("buildah")
        found["buildah commit to a layout, gzip"] = lambda: buildah(
            subject.infos, context.directory("buildah")
        )
    with absent("skopeo", context.say, missing):
        need("skopeo")
        archive = context.directory("skopeo")
        tar = ["tar", "-cf", str(archive / "layer.tar"), "-C", "/"]
        subprocess.run([*tar, *(str(info.path)[1:] for info in subject.infos)], check=True)
        for kind in ("zstd", "gzip"):
            found[f"skopeo, an uncompressed layout to one in {kind}"] = skopeo_recompress(
                archive, kind
            )
    return found


def _seconds(timing: Timing) -> float:
    return timing.seconds


def _groups(subject: Subject) -> list[list[PathInfo]]:
    spec = subject.before.spec
    return [[spec.paths[path] for path in group.paths] for group in spec.layers]


def _assemble(groups: list[list[PathInfo]], name: str) -> None:
    compressor = Compressor.at_hand("gzip" if name == "gzip" else "zstd")
    assemble_layers(groups, compressor, StoreFiles(Path("/")), ours.Nowhere())


def _row(subject: Subject, one: _Raced) -> tuple[str, ...]:
    size = f"{subject.nar_size / 1e6:,.0f} MB"
    return (
        one.name,
        size,
        f"{one.best.seconds:.2f}",
        f"{one.best.cpu:.2f}",
        f"{one.ratio:.2f}",
        f"{one.cpu_ratio:.2f}",
    )


def _verdicts(subject: Subject, own: _Raced, against: Timing, peak: float) -> list[Verdict]:
    return [
        Verdict(
            f"closure → finished blobs, {subject.about}",
            _ZSTD,
            f"{own.ratio:.2f} × its time, {own.cpu_ratio:.2f} × its CPU",
            "1.0 ×",
            own.ratio <= 1.0,
            f"ours takes {own.best.cpu:.2f} CPU seconds, the pipeline {against.cpu:.2f}; see the "
            "split under *Closure to blobs*.",
        ),
        Verdict(
            f"its memory, {subject.nar_size / 1e6:,.0f} MB",
            "–",
            f"{peak:.0f} MiB at most",
            "300 MB",
            peak * 1.048576 < 300,
        ),
    ]


def _profile(context: Context) -> tuple[str, ...]:
    """Say where the CPU time of ours goes, measured part by part in one thread."""
    infos = context.small.infos
    files = StoreFiles(Path("/"))

    def whole(name: str) -> float:
        compressor = Compressor.at_hand("zstd") if name == "zstd" else _Nothing()
        with open("/dev/null", "wb") as sink, FrameWriter(compressor, sink, Alone()) as out:  # type: ignore[arg-type]
            return timed(lambda: _write_all(infos, files, out)).cpu

    bare, zstd = whole("nothing"), whole("zstd")
    entries = sum(1 for info in infos for _ in files.walk(info.path))
    walk = timed(lambda: [sum(1 for _ in files.walk(info.path)) for info in infos]).cpu
    profile = cProfile.Profile()
    profile.runcall(whole, "nothing")
    return (
        f"Where ours spends its time, one thread, {context.small.about}, {entries:,} files and "
        f"directories: all {zstd:.2f} CPU seconds, of which zstd {zstd - bare:.2f}; reading, "
        f"hashing twice (tar and NAR) and writing headers {bare:.2f}, of which walking the "
        f"directories {walk:.2f}. By function: {_top(profile)}.",
    )


def _write_all(infos: list[PathInfo], files: StoreFiles, out: FrameWriter) -> None:
    contents = ContentsWriter()
    for info in infos:
        write_path(info, files, out, contents)


class _Nothing:
    """A compressor that does nothing, to see what all else costs."""

    def compress(self, _data: memoryview) -> bytes:
        return b""


def _top(profile: cProfile.Profile) -> str:
    found: list[tuple[float, str]] = []
    for (_, _, name), (_, _, own, _, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        found.append((own, name.strip("<>").removeprefix("method ").removeprefix("built-in ")))
    total = sum(own for own, _ in found)
    best = sorted(found, reverse=True)[:5]
    return ", ".join(f"{name.split(' of ')[0]} {own / total:.0%}" for own, name in best)
