"""The prefetch list: which frames an earlier build read, in its order.

A hint that anyone may have written. It decides what is fetched first, and nothing else: what it
names is checked like any other frame, and what it names wrongly is passed over.

As text, a layer by its position in the manifest, and frames of it; then the next layer, or the same
one again: ``3:0-4,9;0:2;3:5``.
"""

import re
from collections.abc import Iterable
from typing import Final

from nix_seed.core.errors import InputError

ANNOTATION: Final = "io.nix-seed.prefetch"
ARTIFACT_TYPE: Final = "application/vnd.nix-seed.prefetch.v1"

_LONGEST: Final = 1 << 20  # characters
_MOST: Final = 200_000  # frames: some 800 GB
_SPAN: Final = r"[0-9]{1,7}(?:-[0-9]{1,7})?"
_PART: Final = re.compile(rf"([0-9]{{1,4}}):({_SPAN}(?:,{_SPAN})*)")

Frames = tuple[tuple[int, int], ...]


def dump_prefetch(frames: Iterable[tuple[int, int]]) -> str:
    """Return the list as text, each frame once, in the order of first use."""
    parts: list[tuple[int, list[int]]] = []
    for layer, frame in dict.fromkeys(frames):
        if not parts or parts[-1][0] != layer:
            parts.append((layer, []))
        parts[-1][1].append(frame)
    return ";".join(f"{layer}:{_ranges(numbers)}" for layer, numbers in parts)


def parse_prefetch(text: str) -> Frames:
    """Read the text of a list; ``InputError`` for anything else, and for what no image needs."""
    if len(text) > _LONGEST:
        raise InputError(f"a prefetch list of {len(text)} characters is longer than any image's")
    found: list[tuple[int, int]] = []
    for part in text.split(";") if text else ():
        match = _PART.fullmatch(part)
        if match is None:
            raise InputError(f"a prefetch list has the part {part[:60]!r}")
        for span in match[2].split(","):
            first, _, last = span.partition("-")
            numbers = range(int(first), int(last or first) + 1)
            if len(found) + len(numbers) > _MOST:
                raise InputError("a prefetch list names more frames than any image has")
            found += ((int(match[1]), number) for number in numbers)
    return tuple(found)


def _ranges(numbers: list[int]) -> str:
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in spans)
