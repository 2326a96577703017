"""Which bytes of a layer's blob hold which store paths, from its seek table alone.

Every path begins a frame, and of a path's frames all but the last hold exactly ``FRAME_SIZE``
bytes, so a shorter frame ends a path. (One path in some 8,000 ends with a full frame; then the
counts of groups and of paths differ, and the layer has to be read whole.) Nothing here is proof:
what is read by it is checked by the NAR hash of each path.
"""

from collections.abc import Collection, Sequence

from nix_seed.formats.nix.store_path import StorePath
from nix_seed.formats.zstd import SeekTable
from nix_seed.image.rules.frames import FRAME_SIZE

Span = tuple[int, int]
"""Where bytes of a blob begin, and where they end."""

# Two requests cost more than these bytes between them.
_GAP = 128 << 10


def locate_paths(table: SeekTable, paths: Collection[StorePath]) -> dict[StorePath, Span] | None:
    """Return where the frames of each of *paths*, all of the layer's, lie; None if unclear."""
    offsets = table.offsets()
    ends = [
        number + 1
        for number, frame in enumerate(table.frames[1:-1], 1)  # parents first, the tar's end last
        if frame.size < FRAME_SIZE
    ]
    if len(ends) != len(paths) or ends[-1:] != [len(table.frames) - 1]:
        return None
    starts = [1, *ends[:-1]]
    return {
        path: (offsets[start], offsets[end])
        for path, start, end in zip(sorted(paths), starts, ends, strict=True)
    }


def spans_of(places: Sequence[Span]) -> list[Span]:
    """Join *places* that touch or nearly do; sorted."""
    joined: list[Span] = []
    for start, end in sorted(places):
        if joined and start - joined[-1][1] <= _GAP:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined
