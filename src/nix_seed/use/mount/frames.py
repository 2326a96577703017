"""The frames of an image's layers: fetched by range, checked, kept on disk, decoded as asked for.

Each frame is checked against the SHA-256 in the table of contents before it is stored or decoded,
and again when it is read from disk. A directory of frames may be used by several processes, and by
the next one after a crash: what is not whole there fails its check, and is fetched again.
"""

import contextlib
import errno
import hashlib
import os
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Final, Protocol

import zstandard

from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError
from nix_seed.formats.oci.manifest import Descriptor
from nix_seed.registry.errors import Unreachable
from nix_seed.use.mount.frame_file import FrameFile, MountedLayer, Wanted
from nix_seed.use.rules.tree import Piece

_ASKED: Final = 512 << 10  # fetched at least, where something is waited for: a round trip's worth
_SPAN: Final = 2 << 20  # fetched at most by one request
_WINDOW: Final = 8 << 20  # bytes of a list within which neighbours are fetched together
# The same where the registry is near: requests cost little, and what is needed first comes first.
_NEAR_SPAN: Final = 1 << 20
_NEAR_WINDOW: Final = 2 << 20
_GAP: Final = 128 << 10  # bytes between two frames that cost less than a request of their own
_LIMIT: Final = 40.0  # seconds until a read fails; once a network has failed for so long, at once
_REST: Final = 5.0  # seconds in which nothing is tried again after the network failed
_SLOW: Final = 8.0  # seconds without an answer, after which another connection is tried as well
_TRIES: Final = 4  # in a row: of what was refused or false, not of what could not be reached
_FILL_LIMIT: Final = 180.0  # seconds that a network may fail before what nobody waits for is left
_LATE: Final = "it did not arrive within the time limit"
_TURN: Final = 0.1  # seconds
_QUIET: Final = 0.5  # seconds without a read, after which nobody is thought to be reading
_POLITE: Final = 10.0  # seconds at most in which what nobody asked for waits for that
_DEMANDS: Final = 8
_DECODED_AT_ONCE: Final = 2
_CONNECTIONS: Final = 4
_FAR: Final = 0.015  # seconds of a round trip, from which on twice as many wait for answers


class RangeReader(Protocol):
    """What can give parts of blobs."""

    def read_range_unverified(self, blob: Descriptor, start: int, length: int) -> bytes:
        """Return part of a blob."""
        ...


class FrameStore:
    """Frames of *layers*, from *source*, kept below *directory*.

    ``undelivered`` says, a line each, what could not be had although something waited for it; the
    same lines are appended to a file of that name. ``fetched`` counts bytes.
    """

    def __init__(
        self, directory: Path, layers: Sequence[MountedLayer], source: RangeReader
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._layers = layers
        self._source = source
        self._frames = FrameFile(directory, layers)
        self._record = directory / "undelivered"
        self._changed = threading.Condition()
        self._under_way: set[Wanted] = set()
        # Decoded frames, one after another, in a file that has no name: nobody else can alter it,
        # and it goes when we do. Those listed are decoded as they arrive, while others are awaited;
        # few at once, since each takes the memory of what it holds.
        self._plain = _nameless_file(directory)
        self._keeping = threading.Lock()
        self._places: dict[Wanted, int] = {}
        self._end = 0
        self._decoding = [threading.Lock() for _ in range(64)]
        self._at_once = threading.BoundedSemaphore(_DECODED_AT_ONCE)
        # When the network began to fail, and until when it is not tried again.
        self._down_since = self._down_until = 0.0
        self._problem = ""
        self._last_read = 0.0
        self._stopped = threading.Event()
        self._demands = ThreadPoolExecutor(_DEMANDS, "demand")
        self._fillers: list[threading.Thread] = []
        self.undelivered: list[str] = []
        self.touched: OrderedDict[Wanted, None] = OrderedDict()
        self.fetched = 0

    def contents(self, pieces: Sequence[Piece]) -> list[bytes | memoryview]:
        """Return the bytes of *pieces*; ``OSError`` (EIO) where they cannot be had, on record."""
        self._last_read = time.monotonic()
        return [self._part(piece) for piece in pieces]

    def blob(self, position: int) -> Iterator[bytes]:
        """Yield the frames of a whole layer; ``CheckedFalse`` or ``CouldNotCheck`` on trouble."""
        for number in range(len(self._layers[position].contents.frames)):
            yield self._compressed((position, number), time.monotonic() + _LIMIT)

    def start_filling(self, first: Sequence[Wanted], round_trip: float = 0.0) -> None:
        """Fetch, in threads of its own, what is listed *first*, and then all the rest.

        After a list one connection is enough for the rest, which nobody waits for, and it begins
        when the first build has read what it needs. Without a list all are used at once, since what
        will be read next is unknown. What failed is tried again, for some minutes where the network
        is at fault, else a number of times in a row.
        """
        near = round_trip < _FAR
        listed, spans = self._spans_of(first, near=near), self._all_spans()
        polite_until = time.monotonic() + (_POLITE if first else 0.0)
        lock = threading.Lock()

        def fill(stays: bool) -> None:
            nonlocal spans
            failures = 0
            while not self._stopped.is_set() and failures < _TRIES and self._down() < _FILL_LIMIT:
                with lock:
                    span = soon = next(listed, None)
                    if span is None and not stays:
                        return
                if span is None:
                    self._wait_for_quiet(polite_until)
                with lock:
                    span = span or next(spans, None)
                    if span is None:
                        if self.is_whole():
                            return
                        spans = self._all_spans()
                if span is None:
                    self._stopped.wait(_TURN)
                else:
                    found = self._fill(span, decode=soon is not None)
                    failures = failures if found is None else 0 if found else failures + 1

        for number in range(_CONNECTIONS if near else 2 * _CONNECTIONS):
            stays = number == 0 or not first
            thread = threading.Thread(target=fill, args=(stays,), name="fill", daemon=True)
            thread.start()
            self._fillers.append(thread)

    def _wait_for_quiet(self, until: float) -> None:
        """Wait while somebody reads, but not longer than *until*: cores and link are theirs."""
        while not self._stopped.is_set():
            now = time.monotonic()
            if now >= until or now - self._last_read >= _QUIET:
                return
            self._stopped.wait(_TURN)

    def is_whole(self) -> bool:
        """Whether every frame is on disk."""
        return self._frames.is_whole()

    def wait_filled(self, timeout: float) -> bool:
        """Wait while there are threads that fill, and something to do; whether all is on disk."""
        end = time.monotonic() + timeout
        while not self.is_whole() and self.is_filling() and time.monotonic() < end:
            time.sleep(_TURN / 4)
        return self.is_whole()

    def is_filling(self) -> bool:
        """Whether there is still a thread that fetches."""
        return any(thread.is_alive() for thread in self._fillers)

    def stop(self) -> None:
        """Fetch nothing more."""
        self._stopped.set()
        self._demands.shutdown(wait=False, cancel_futures=True)

    def _part(self, piece: Piece) -> bytes | memoryview:
        wanted = (piece.layer, piece.frame)
        with self._changed:
            self.touched.setdefault(wanted)
            place = self._places.get(wanted)
        if place is None:
            with self._decoding[hash(wanted) % len(self._decoding)]:
                place = self._places.get(wanted)
                if place is None:
                    found = self._waited_for(wanted)
                    place = self._places.get(wanted)
                    if place is None:
                        data = self._decoded(wanted, found)
                        self._keep(wanted, data)
                        return memoryview(data)[piece.start : piece.end]
        return os.pread(self._plain, piece.end - piece.start, place + piece.start)

    def _waited_for(self, wanted: Wanted) -> bytes:
        """Return a compressed frame, however fetching goes, within a time limit."""
        held = self._frames.read(wanted)
        if held is not None:
            return held
        end = time.monotonic() + _LIMIT
        try:
            asked = {self._demands.submit(self._compressed, wanted, end)}
            done, _ = wait(asked, min(_SLOW, _LIMIT))
            if not done:
                # A connection can be dead without a word: whoever has the frame under way loses it.
                self._give_free((wanted,))
                asked.add(self._demands.submit(self._compressed, wanted, end))
                done, _ = wait(asked, end + _TURN - time.monotonic(), FIRST_COMPLETED)
            for each in done:
                return each.result()
            raise CouldNotCheck(_LATE)
        except (CheckedFalse, CouldNotCheck, InputError, OSError) as error:
            raise self._lacks(wanted, str(error)) from error
        except RuntimeError as error:
            raise self._lacks(wanted, "it is being unmounted") from error

    def _lacks(self, wanted: Wanted, problem: str) -> OSError:
        layer = self._layers[wanted[0]].descriptor.digest
        line = f"frame {wanted[1]} of the layer {layer}: {problem}".replace("\n", " ")
        with self._changed:
            self.undelivered.append(line)
            # The directory may be gone, while the last users of a mount are served.
            with contextlib.suppress(OSError), self._record.open("a") as record:
                record.write(line + "\n")
        return OSError(errno.EIO, line)

    def _decoded(self, wanted: Wanted, data: bytes) -> bytes:
        try:
            return self._decode(wanted, data)
        except CheckedFalse as error:
            raise self._lacks(wanted, error.message) from error

    def _decode(self, wanted: Wanted, data: bytes) -> bytes:
        size = self._layers[wanted[0]].contents.frames[wanted[1]].size
        try:
            # Decoding takes at once the memory that a frame claims to need.
            claimed = zstandard.frame_content_size(data)
            if claimed != size:
                raise CheckedFalse(f"claims {claimed} bytes, not {size} as its table says")
            return zstandard.ZstdDecompressor().decompress(data)
        except zstandard.ZstdError as error:
            raise CheckedFalse(f"is not intact zstd: {error}") from error

    def _decode_early(self, wanted: Wanted, data: bytes) -> None:
        """Decode what will be read; whoever reads what cannot be decoded is told then."""
        with self._at_once, contextlib.suppress(CheckedFalse):
            if wanted not in self._places:
                self._keep(wanted, self._decode(wanted, data))

    def _decode_held(self, wanted: Wanted) -> None:
        """Decode a frame that is on disk already, unless somebody reads it just now."""
        lock = self._decoding[hash(wanted) % len(self._decoding)]
        if wanted in self._places or not self._frames.has(wanted) or not lock.acquire(False):
            return
        try:
            data = self._frames.read(wanted)
            if data is not None and not self._stopped.is_set():
                self._decode_early(wanted, data)
        finally:
            lock.release()

    def _keep(self, wanted: Wanted, data: bytes) -> None:
        """Write a decoded frame where it takes no memory of ours; a full disk keeps none."""
        # Writers of one file wait for one another in the kernel, which takes a core meanwhile.
        with self._keeping, contextlib.suppress(OSError):
            place = self._end
            if os.pwrite(self._plain, data, place) == len(data):
                self._places[wanted] = place
                self._end += len(data)

    def _compressed(self, wanted: Wanted, end: float) -> bytes:
        failed: CheckedFalse | CouldNotCheck | None = None
        while True:
            held = self._frames.read(wanted)
            if held is not None:
                return held
            left = end - time.monotonic()
            if left <= 0:
                raise failed or CouldNotCheck(_LATE)
            with self._changed:
                pause = self._down_until - time.monotonic()
                if wanted in self._under_way or (pause > 0 and self._down() < _LIMIT):
                    self._changed.wait(min(left, pause) if pause > 0 else left)
                    continue
                if pause > 0:
                    raise CouldNotCheck(f"for {self._down():.0f} s now: {self._problem}")
                span = self._claim(wanted)
            try:
                self._fetch(wanted[0], span)
            except Unreachable as error:
                if self._down() >= _LIMIT:
                    raise
                failed = error
            except (CheckedFalse, CouldNotCheck) as error:
                # Once more: it may be one of several servers, or what lies before it, that errs.
                if failed is not None:
                    raise
                failed = error

    def _down(self) -> float:
        """Return for how many seconds the network has failed."""
        since = self._down_since
        return time.monotonic() - since if since else 0.0

    def _claim(self, wanted: Wanted) -> range:
        """Take the frame, and those after it that a request may as well bring; hold the lock."""
        position, number = wanted
        places = self._layers[position].contents.places
        end = number + 1
        while (
            end < len(places) - 1
            and places[end + 1] - places[number] <= _ASKED
            and not self._frames.has((position, end))
            and (position, end) not in self._under_way
        ):
            end += 1
        span = range(number, end)
        self._under_way.update((position, each) for each in span)
        return span

    def _fill(self, span: tuple[int, range], *, decode: bool) -> bool | None:
        """Fetch what *span* lacks; None where that is nothing, or the network's fault.

        With *decode*, what an earlier mount fetched of it is decoded as well.
        """
        position, numbers = span
        if decode:
            for each in numbers:
                self._decode_held((position, each))
        with self._changed:
            lacking = [
                each
                for each in numbers
                if not self._frames.has((position, each))
                and (position, each) not in self._under_way
            ]
            if not lacking:
                return None
            claimed = range(lacking[0], lacking[-1] + 1)
            mine = [each for each in claimed if (position, each) not in self._under_way]
            self._under_way.update((position, each) for each in mine)
        try:
            self._fetch(position, claimed, mine, decode=decode)
        except Unreachable:
            self._stopped.wait(_REST)
            return None
        except (CheckedFalse, CouldNotCheck, InputError, OSError):
            # Whoever needs it asks again, and is told; here only time was lost.
            self._stopped.wait(_REST)
            return False
        return True

    def _fetch(
        self,
        position: int,
        span: range,
        mine: Sequence[int] | None = None,
        *,
        decode: bool = False,
    ) -> None:
        layer, begun = self._layers[position], time.monotonic()
        start, end = layer.contents.places[span[0]], layer.contents.places[span[-1] + 1]
        try:
            data = self._source.read_range_unverified(layer.descriptor, start, end - start)
            self._down_since = self._down_until = 0.0
            self._store(position, span, data, decode=decode, demanded=mine is None)
        except CouldNotCheck as error:
            self._problem = error.message
            # One odd answer is nothing yet: what cannot be reached, or errs again, is let rest.
            if self._down_since or isinstance(error, Unreachable):
                self._down_until = time.monotonic() + _REST
            self._down_since = self._down_since or begun
            raise
        finally:
            self.fetched += end - start
            self._give_free((position, each) for each in (span if mine is None else mine))

    def _give_free(self, frames: Iterable[Wanted]) -> None:
        """Let others fetch *frames*, or find them fetched."""
        with self._changed:
            self._under_way.difference_update(frames)
            self._changed.notify_all()

    def _store(
        self, position: int, span: range, data: bytes, *, decode: bool, demanded: bool
    ) -> None:
        contents = self._layers[position].contents
        first = contents.places[span[0]]
        for number in span:
            at = contents.places[number] - first
            frame = data[at : at + contents.frames[number].compressed]
            if hashlib.sha256(frame).digest() != contents.frames[number].sha256:
                raise CheckedFalse(
                    f"frame {number} of the layer {self._layers[position].descriptor.digest}"
                    " has other bytes than the image's table of contents says",
                    hint="the registry, or something before it, alters data: nothing was used",
                )
            if decode:
                # Before it counts as there: else who waits for it decodes it as well.
                self._decode_early((position, number), frame)
            self._frames.write((position, number), frame, demanded=demanded)
            self._give_free(((position, number),))

    def _spans_of(self, wanted: Sequence[Wanted], *, near: bool) -> Iterator[tuple[int, range]]:
        """Join listed frames that lie near one another, and are needed at about the same time."""
        window, most = (_NEAR_WINDOW, _NEAR_SPAN) if near else (_WINDOW, _SPAN)
        by_layer: dict[int, list[int]] = {}
        size = 0
        for position, number in dict.fromkeys(wanted):
            if 0 <= position < len(self._layers) and (
                0 <= number < len(self._layers[position].contents.frames)
            ):
                by_layer.setdefault(position, []).append(number)
                size += self._layers[position].contents.frames[number].compressed
            if size >= window:
                yield from self._each_joined(by_layer, most)
                by_layer, size = {}, 0
        yield from self._each_joined(by_layer, most)

    def _each_joined(
        self, by_layer: Mapping[int, Sequence[int]], most: int
    ) -> Iterator[tuple[int, range]]:
        for position, numbers in by_layer.items():
            yield from self._joined(position, sorted(numbers), most)

    def _all_spans(self) -> Iterator[tuple[int, range]]:
        for position, layer in enumerate(self._layers):
            yield from self._joined(position, range(len(layer.contents.frames)))

    def _joined(
        self, position: int, numbers: Sequence[int], most: int = _SPAN
    ) -> Iterator[tuple[int, range]]:
        places = self._layers[position].contents.places
        first = last = -1
        for number in numbers:
            if first >= 0 and (
                places[number] - places[last + 1] > _GAP
                or places[number + 1] - places[first] > most
            ):
                yield position, range(first, last + 1)
                first = -1
            if first < 0:
                first = number
            last = number
        if first >= 0:
            yield position, range(first, last + 1)


def _nameless_file(directory: Path) -> int:
    path = directory / f".decoded.{os.getpid()}.{secrets.token_hex(8)}"
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    path.unlink()
    return file
