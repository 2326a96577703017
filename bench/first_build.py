"""Registry to a store that is ready for the first build, nothing cached, against other ways.

The race itself is ``bench/hydrate.py``; here its result becomes rows.
"""

from __future__ import annotations

import subprocess

from bench import hydrate as race
from bench.context import Context, Subject
from bench.table import Section, Verdict
from nix_seed.flake.nix import Nix
from nix_seed.formats.oci.reference import LayoutReference
from nix_seed.image.build import Destination, assemble_image, store_image
from nix_seed.image.layer_cache import LayerCache

__all__ = ["layout_of", "rows"]


def rows(context: Context) -> Section:
    """Race for the demo's seed; in a quick run for a run image."""
    subject = context.small
    image = layout_of(context, subject)
    work = context.directory("first-build")
    try:
        result = race.bench(image, work, rounds=1 if context.quick else 2)
    finally:
        subprocess.run(["chmod", "-R", "u+w", str(work)], check=False, capture_output=True)
    absent = [name for name in race.TARGETS if name not in {row.name for row in result.rows}]
    for row in result.rows:
        context.say(f"  {row.name}: {row.seconds:.2f} s")
    return Section(
        title="Registry to the first build",
        intro=(race.__doc__ or "").split("By hand")[0].split("\n\n", 1)[1].strip(),
        columns=("contender", "s", "× ours", "wanted"),
        rows=tuple(
            (row.name, f"{row.seconds:.2f}", f"{row.ratio:.1f}", _wanted(row))
            for row in result.rows
        ),
        verdicts=() if context.quick else _verdicts(subject, result),
        notes=(
            f"{subject.about}.",
            *(f"{name} was not measured: it could not be started here." for name in absent),
        ),
    )


def layout_of(context: Context, subject: Subject) -> LayoutReference:
    """Build the subject's image into a layout, once."""
    directory = context.work / f"image-{subject.flake.name}"
    if not directory.exists():
        cache = LayerCache(context.work / "cache")
        built = assemble_image(Nix(), subject.before, cache)
        store_image(built, cache, Destination("oci", directory, "seed"))
    return LayoutReference(str(directory), tag="seed")


def _wanted(row: race.Row) -> str:
    return "" if row.target is None else f"{row.target:g}"


def _verdicts(subject: Subject, result: race.Result) -> tuple[Verdict, ...]:
    own = result.rows[0]
    return tuple(
        Verdict(
            f"registry → first build, {subject.nar_size / 1e6:,.0f} MB",
            row.name,
            f"{row.ratio:.1f} × faster",
            f"{row.target:g} ×",
            row.ratio >= row.target,
            f"ours takes {own.seconds:.2f} s, {row.name} {row.seconds:.2f} s.",
        )
        for row in result.rows
        if row.target is not None
    )
