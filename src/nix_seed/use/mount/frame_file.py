"""The fetched frames of a mount, on disk: the next process finds them there, after a crash too.

What is not whole fails its check when it is read, and is fetched again.
"""

import hashlib
import mmap
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Final

from nix_seed.core.values import dataclass
from nix_seed.formats.oci.manifest import Descriptor
from nix_seed.image.rules.contents import LayerContents

_UNWRITTEN: Final = 8  # frames in memory, where the disk is full

Wanted = tuple[int, int]
"""A layer's position in the manifest, and a frame's number in it."""


@dataclass(frozen=True, slots=True)
class MountedLayer:
    """A layer by its descriptor, and what lies where in it."""

    descriptor: Descriptor
    contents: LayerContents


class FrameFile:
    """The frames of all *layers* in one sparse file, and in another a byte for each that is there.

    Making a file takes a millisecond where a disk has seen many: two of them for each layer would
    take longer than all else that is done before a mount is served.
    """

    def __init__(self, directory: Path, layers: Sequence[MountedLayer]) -> None:
        self._contents = [layer.contents for layer in layers]
        self._places = list(accumulate((c.places[-1] for c in self._contents), initial=0))
        self._firsts = list(accumulate((len(c.frames) for c in self._contents), initial=0))
        held = "".join(layer.descriptor.digest.hex for layer in layers)
        name = directory / hashlib.sha256(held.encode()).hexdigest()
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._data = os.open(name, flags, 0o600)
        self._writing = threading.Lock()
        self._unwritten: OrderedDict[Wanted, bytes] = OrderedDict()
        marks = os.open(name.with_suffix(".have"), flags, 0o600)
        try:
            # One more than there are frames: nothing at all cannot be mapped.
            count = self._firsts[-1] + 1
            if os.fstat(marks).st_size != count:
                os.ftruncate(marks, count)
            # To write to a hole of what is mapped, on a full disk, would kill the process.
            os.posix_fallocate(marks, 0, count)
            self._have = mmap.mmap(marks, count)
        finally:
            os.close(marks)

    def __del__(self) -> None:
        os.close(self._data)

    def has(self, wanted: Wanted) -> bool:
        """Whether a frame is on disk."""
        return self._have[self._firsts[wanted[0]] + wanted[1]] == 1

    def is_whole(self) -> bool:
        """Whether every frame is on disk."""
        return self._have.find(b"\0", 0, self._firsts[-1]) < 0

    def read(self, wanted: Wanted) -> bytes | None:
        """Return a frame that is there and whole; else forget that it is there."""
        if not self.has(wanted):
            return self._unwritten.get(wanted)
        position, number = wanted
        frame, place = self._contents[position].frames[number], self._place(wanted)
        data = os.pread(self._data, frame.compressed, place)
        if hashlib.sha256(data).digest() != frame.sha256:
            self._have[self._firsts[position] + number] = 0
            return None
        return data

    def write(self, wanted: Wanted, data: bytes, *, demanded: bool) -> None:
        """Write a frame that was checked.

        ``OSError`` where that fails, but for one that is *demanded*: whoever waits has it from
        memory then.
        """
        view, at = memoryview(data), self._place(wanted)
        with self._writing:
            try:
                while view:
                    written = os.pwrite(self._data, view, at)
                    view, at = view[written:], at + written
            except OSError:
                if not demanded:
                    raise
                self._unwritten[wanted] = data
                while len(self._unwritten) > _UNWRITTEN:
                    self._unwritten.popitem(last=False)
                return
        self._have[self._firsts[wanted[0]] + wanted[1]] = 1

    def _place(self, wanted: Wanted) -> int:
        return self._places[wanted[0]] + self._contents[wanted[0]].places[wanted[1]]
