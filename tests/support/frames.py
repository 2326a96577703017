"""Frames of layers, compressed once in a run, whichever layer, image or registry they are for.

A frame is a function of its contents, the compressor and the level (``image.rules.frames``). Tests
of just that have frames compressed each time: ``ANEW``.
"""

from __future__ import annotations

import hashlib
import os
import threading
from contextlib import suppress
from pathlib import Path

# The environment in which nothing is taken from earlier commands.
ANEW = {"NIX_SEED_TESTS_ANEW": "1"}
# Smaller ones are compressed as fast as they are looked for.
_SMALL = 32 << 10


def remember(place: Path) -> None:
    """Let this process, and what is forked from it, look in *place* before it compresses."""
    from nix_seed.image.rules.frames import Compressor

    compress = Compressor.compress
    place.mkdir(exist_ok=True)

    def remembered(self: Compressor, data: bytes | bytearray | memoryview) -> bytes:
        if len(data) < _SMALL or ANEW.keys() <= os.environ.keys():
            return compress(self, data)
        known = place / f"{self.name}-{self.level}-{hashlib.sha256(data).hexdigest()}"
        with suppress(OSError):
            return known.read_bytes()
        made = compress(self, data)
        new = known.with_name(f".{os.getpid()}-{threading.get_ident()}")
        # Another mount namespace need not have the place, nor another user the right to write.
        with suppress(OSError):
            new.write_bytes(made)
            new.rename(known)
        return made

    Compressor.compress = remembered  # type: ignore[method-assign]
