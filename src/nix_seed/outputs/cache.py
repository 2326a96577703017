"""What a binary cache in front of a repository answers: only what builders' words allow.

A path is looked for by one request, and its bundles, one for each job, are judged once. What cannot
be asked or must not be taken is a miss, and the reason is told: Nix then builds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import field
from typing import Final

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, NixSeedError
from nix_seed.core.events import OnEvent, ignore
from nix_seed.core.parallel import in_parallel
from nix_seed.core.values import dataclass
from nix_seed.formats.intoto.bundle import BUNDLE_V03
from nix_seed.formats.nix.store_path import PathInfo, StorePath
from nix_seed.outputs.kept import Listed, find_kept, find_newest
from nix_seed.outputs.nar import checked, last_held_back
from nix_seed.outputs.rules.agreed import NotServed, Served
from nix_seed.outputs.rules.kept import NAR_TYPE, KeptOutput, Stored
from nix_seed.outputs.rules.narinfo import CacheKey, narinfo
from nix_seed.registry.errors import Unreachable
from nix_seed.registry.store import ImageStore, read_blob
from nix_seed.trust.attestations import Attestation

Decide = Callable[[StorePath, Sequence[Attestation], Sequence[str]], Served | NotServed]
"""Judges what bundles say of a path, and why others could not be read."""

MISS_LASTS: Final = 30
"""Seconds for which a path that was asked for in vain is not asked for again."""

_NOBODYS: Final = "0" * 32
_AT_FIRST: Final = 6  # connections
_MOST_BUNDLES: Final = 40  # of one path, the newest
_MOST_BUNDLE_BYTES: Final = 128 << 20  # of all of them
_GONE_LASTS: Final = 10.0  # seconds at least
_GONE_TIMES: Final = 10  # as long as it took to see that nobody answers
_SMALL: Final = 1 << 18  # bytes of a blob that is fetched before it is asked for
_SMALL_NAR: Final = 16 << 20
_READY_NAR: Final = 1 << 20  # bytes of one that is checked though nobody asks for it
_MOST_ANSWERS: Final = 1 << 17  # that are remembered
_MOST_AHEAD: Final = 256  # of them; what nobody came for gives way
_AHEAD_AT_ONCE: Final = 6
_QUIET_WITHIN: Final = 1.0  # seconds


@dataclass(frozen=True, slots=True)
class OutputMissed:
    """A path was asked for and is not served; *reason* is empty where nobody keeps it."""

    hash_part: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class OutputTaken:
    """The NAR of *path*, *size* bytes of a blob, was given to Nix, on whose word *words* says.

    *millis* are the milliseconds that building it took, as a builder says.
    """

    path: StorePath
    size: int
    words: str
    millis: int | None = None


@dataclass(frozen=True, slots=True)
class OutputAnswer:
    """What is said of a path: *info*, *blobs* that may hold its NAR, and on whose word."""

    info: PathInfo
    deriver: StorePath | None
    blobs: tuple[Stored, ...]
    words: str
    millis: int | None = None


@dataclass(frozen=True, slots=True)
class _Miss:
    until: float


@dataclass(slots=True)
class OutputCache:
    """Answers for what *store* keeps, as *decide* lets it; signs with *key*.

    *held* says what whoever asks has already; with it, a path is served only where all it refers to
    is held or served as well. Where *decide* needs no agreement, *by_newest* lets paths of the
    commit that was pushed last be answered from one document. Thread-safe.
    """

    store: ImageStore
    decide: Decide
    key: CacheKey
    held: Callable[[StorePath], bool] | None = None
    on_event: OnEvent = ignore
    by_newest: bool = False
    _listed: dict[str, Listed] = field(default_factory=dict)
    _inline: dict[Digest, bytes] = field(default_factory=dict)
    _answers: dict[str, OutputAnswer | _Miss] = field(default_factory=dict)
    _texts: dict[str, bytes] = field(default_factory=dict)
    _bundles: dict[Digest, Attestation] = field(default_factory=dict)
    _bundle_bytes: int = 0
    _bad: set[tuple[StorePath, Digest]] = field(default_factory=set)
    _proved: set[tuple[StorePath, Digest]] = field(default_factory=set)
    _locks: tuple[threading.Lock, ...] = field(
        default_factory=lambda: tuple(threading.Lock() for _ in range(64))
    )
    _reading: threading.Lock = field(default_factory=threading.Lock)
    _judging: threading.Lock = field(default_factory=threading.Lock)
    _telling: threading.Lock = field(default_factory=threading.Lock)
    _silent_until: float = 0.0
    _begun: bool = False
    _settled: threading.Event = field(default_factory=threading.Event)
    _trouble: Unreachable | None = None
    _ahead: dict[tuple[StorePath, Digest], Future[bytes]] = field(default_factory=dict)
    _asking: int = 0
    _quiet: threading.Condition = field(default_factory=threading.Condition)
    _at_once: threading.Semaphore = field(
        default_factory=lambda: threading.Semaphore(_AHEAD_AT_ONCE)
    )

    def begin(self) -> None:
        """Start reading what was pushed last, in the background; whoever asks meanwhile waits."""
        with self._telling:
            if not self._begun:
                self._begun = True
                threading.Thread(target=self._begin, name="warm-up", daemon=True).start()

    def warm_up(self) -> None:
        """Have ready what may be asked for first, and return then."""
        self.begin()
        self._settled.wait()
        self._make_ready()

    def _begin(self) -> None:
        try:
            if not (self.by_newest and self._take_newest()):
                self._settled.set()
                # Nix asks for many paths at once: connect as often, and load what that takes.
                parts = [_NOBODYS] * _AT_FIRST
                in_parallel(lambda part: find_kept(self.store, part), parts, _AT_FIRST)
        except Unreachable as error:
            self._trouble = error  # which is told when something is asked for
        except NixSeedError:
            pass  # each path has a list of its own
        finally:
            self._settled.set()

    def _take_newest(self) -> bool:
        """Read what was pushed last, and judge whose word it is; whether there is any."""
        newest = find_newest(self.store)
        judged = set[tuple[Stored, ...]]()
        for listed in newest.lists.values():
            bundles = _bundles_of(listed.kept)
            if bundles not in judged and len(judged) < _AT_FIRST:
                judged.add(bundles)
                read = list(self._read(bundles[:_MOST_BUNDLES], []))
                with self._judging:  # which remembers
                    self.decide(listed.kept[0].path, read, ())
        self._inline, self._listed = newest.nars, newest.lists
        return bool(newest.lists)

    def _make_ready(self) -> None:
        """Have narinfos and small NARs of what was pushed last at hand, as far as these are good.

        Nothing is told of what is not: nobody has asked for it.
        """
        parts = [*self._listed.items()][:_MOST_AHEAD]
        for part, listed in parts:
            if not all(each.digest in self._bundles for each in _bundles_of(listed.kept)):
                continue  # what nobody has asked for costs no request
            if (found := self._chosen(listed, [])) is None:
                continue
            self._answers.setdefault(part, found)
            blob = found.blobs[0]
            if blob.digest in self._inline and found.info.nar_size <= _READY_NAR:
                with suppress(CheckedFalse):
                    b"".join(self._checked(found, blob))
                    self._proved.add((found.info.path, blob.digest))
        for part, _ in parts:
            known = self._answers.get(part)
            if isinstance(known, OutputAnswer) and self._lacking(known, self._answers.get) is None:
                self._text(part, known)

    def ready(self, hash_part: str) -> bytes | None:
        """Return the narinfo of the path, if nothing has to be done for it or for its NAR."""
        text, found = self._texts.get(hash_part), self._answers.get(hash_part)
        if not isinstance(found, OutputAnswer) or found.blobs[0].digest not in self._inline:
            return None
        return text

    def ready_nar(self, hash_part: str, blob: Digest) -> bytes | None:
        """Return *blob* of the path if it is small, here, and proved, and call it taken."""
        found, data = self._answers.get(hash_part), self._inline.get(blob)
        if data is None or not isinstance(found, OutputAnswer):
            return None
        if (found.info.path, blob) not in self._proved or blob != found.blobs[0].digest:
            return None
        self._tell(OutputTaken(found.info.path, len(data), found.words, found.millis))
        return data

    def narinfo(self, hash_part: str) -> bytes | None:
        """Return the narinfo of the path with this hash, None for a miss."""
        with self._quiet:
            self._asking += 1
        try:
            found = self.find(hash_part)
            if found is None or not self._closed(found):
                return None
        finally:
            with self._quiet:
                self._asking -= 1
                if not self._asking:
                    self._quiet.notify_all()
        self._fetch_ahead(found, found.blobs[0])
        return self._text(hash_part, found)

    def _text(self, hash_part: str, found: OutputAnswer) -> bytes:
        if (text := self._texts.get(hash_part)) is None:
            blob = found.blobs[0]
            text = narinfo(found.info, found.deriver, (blob.digest, blob.size), self.key)
            self._texts[hash_part] = text
        return text

    def _forget(self, hash_part: str) -> None:
        """Ask anew of the path, and whether others may still be served that refer to it."""
        self._answers.pop(hash_part, None)
        self._texts.clear()

    def find(self, hash_part: str) -> OutputAnswer | None:
        """Return what is served for this hash."""
        known = self._known(hash_part)
        if known is None:
            with self._locks[hash(hash_part) % len(self._locks)]:
                known = self._known(hash_part)
                if known is None:
                    if len(self._answers) >= _MOST_ANSWERS:  # anyone here may ask for anything
                        self._answers.clear()
                    known = self._answers[hash_part] = self._ask(hash_part)
        return known if isinstance(known, OutputAnswer) else None

    def size_of(self, hash_part: str, blob: Digest) -> int | None:
        """Return the size of *blob*, None where it is not what this path is served from."""
        found = self.find(hash_part)
        sizes = {} if found is None else {each.digest: each.size for each in found.blobs}
        return sizes.get(blob)

    def nar(self, hash_part: str, blob: Digest) -> Iterator[bytes]:
        """Yield *blob*; its last bytes only once all of it is proved to be the path's NAR.

        ``CheckedFalse`` where it is not: it is never served again.
        """
        found = self.find(hash_part)
        stored = next((e for e in found.blobs if e.digest == blob), None) if found else None
        if found is None or stored is None:
            raise CouldNotCheck(f"no blob {blob} is served for {hash_part}")
        path = found.info.path
        try:
            with self._telling:  # another request may be looking for one to give way
                ahead = self._ahead.pop((path, blob), None)
            begun = ahead is not None and not ahead.cancel()
            if ahead is not None and begun and not isinstance(ahead.exception(), CouldNotCheck):
                yield ahead.result()
            else:
                proved = (path, blob) in self._proved
                yield from self._checked(found, stored, proved=proved)
        except CheckedFalse as error:
            self._bad.add((path, blob))
            self._forget(hash_part)
            self._tell(OutputMissed(hash_part, error.message))
            raise
        except CouldNotCheck as error:
            self._forget(hash_part)
            self._tell(OutputMissed(hash_part, error.message))
            raise
        self._proved.add((path, blob))
        self._tell(OutputTaken(path, stored.size, found.words, found.millis))

    def _checked(
        self, found: OutputAnswer, blob: Stored, *, proved: bool = False
    ) -> Iterator[bytes]:
        inline = self._inline.get(blob.digest)
        if inline is None:
            chunks = self.store.open_blob(blob.descriptor(NAR_TYPE))
        else:
            chunks = iter((inline,))
        if proved:
            return last_held_back(chunks)
        what = f"the NAR of {found.info.path}, {self.store}@{blob.digest}"
        return checked(chunks, found.info, what)

    def _fetch_ahead(self, found: OutputAnswer, blob: Stored) -> None:
        """Fetch and check a small NAR soon: Nix asks for one after another, and waits.

        Not while it waits for narinfos, which it asks for all at once, and before any NAR.
        """
        if blob.size > _SMALL or found.info.nar_size > _SMALL_NAR or blob.digest in self._inline:
            return
        path, future = found.info.path, Future[bytes]()

        def fetch() -> None:
            with self._quiet:
                self._quiet.wait_for(lambda: not self._asking, _QUIET_WITHIN)
            try:
                with self._at_once:
                    if not future.set_running_or_notify_cancel():
                        return
                    future.set_result(b"".join(self._checked(found, blob)))
            except Exception as error:
                future.set_exception(error)

        with self._telling:
            if (path, blob.digest) in self._ahead:
                return
            if len(self._ahead) >= _MOST_AHEAD:
                oldest = next((key for key, each in self._ahead.items() if each.done()), None)
                if oldest is None:
                    return
                del self._ahead[oldest]
            self._ahead[path, blob.digest] = future
        # Whoever stops the server waits for none of these.
        threading.Thread(target=fetch, name="ahead", daemon=True).start()

    def _known(self, hash_part: str) -> OutputAnswer | _Miss | None:
        known = self._answers.get(hash_part)
        if isinstance(known, _Miss) and known.until < time.monotonic():
            return None
        return known

    def _ask(self, hash_part: str) -> OutputAnswer | _Miss:
        now = time.monotonic()
        if now < self._silent_until:
            return _Miss(self._silent_until)
        try:
            return self._judged(hash_part) or _Miss(now + MISS_LASTS)
        except NixSeedError as error:
            self._tell(OutputMissed(hash_part, error.message))
            if isinstance(error, CouldNotCheck):
                # Whoever does not answer is not asked for every path of a build, and takes at most
                # a tenth of its time.
                after = time.monotonic()
                self._silent_until = after + max(_GONE_LASTS, _GONE_TIMES * (after - now))
            return _Miss(time.monotonic() + MISS_LASTS)

    def _judged(self, hash_part: str) -> OutputAnswer | None:
        if self._begun:
            self._settled.wait()
        if self._trouble is not None:
            trouble, self._trouble = self._trouble, None
            raise trouble
        # What stands there serves once: where it proves false, or old, the path's list is asked.
        newest = self._listed.pop(hash_part, None)
        if newest is not None and (found := self._chosen(newest, [])) is not None:
            return found
        listed = find_kept(self.store, hash_part)
        reasons = [error.message for error in listed.troubles]
        if (found := self._chosen(listed, reasons)) is None:
            self._tell(OutputMissed(hash_part, "; ".join(reasons[:3])))
        return found

    def _chosen(self, listed: Listed, reasons: list[str]) -> OutputAnswer | None:
        """Return what may be taken of what is *listed* of a path; else add *reasons*."""
        for path in dict.fromkeys(kept.path for kept in listed.kept):
            entries = [kept for kept in listed.kept if kept.path == path]
            unread: list[str] = []
            named = _bundles_of(entries)
            if len(named) > _MOST_BUNDLES:
                unread.append(f"{path} has {len(named)} bundles, and {_MOST_BUNDLES} are read")
            bundles = list(self._read(named[:_MOST_BUNDLES], unread))
            reasons += unread
            with self._judging:
                found = self.decide(path, bundles, unread)
            if isinstance(found, NotServed):
                reasons.append(f"{path}: {found.reason}")
                continue
            blobs = dict.fromkeys(each.nar for each in entries if each.nar_hash == found.nar_hash)
            good = tuple(each for each in blobs if (path, each.digest) not in self._bad)
            if good:
                fact = found.fact
                info = PathInfo(path, fact.nar_hash, fact.nar_size, tuple(fact.references))
                said = (e.build_millis for e in entries if e.nar_hash == found.nar_hash)
                millis = next((each for each in said if each is not None and each >= 0), None)
                return OutputAnswer(info, fact.deriver, good, found.words, millis)
            reasons.append(f"{path}: nobody keeps the NAR {found.nar_hash}")
        return None

    def _read(self, bundles: Sequence[Stored], reasons: list[str]) -> Iterator[Attestation]:
        for bundle in bundles:
            place = f"{self.store}@{bundle.digest}"
            try:
                with self._reading:  # a job's paths are asked for at once, and share a bundle
                    if bundle.digest not in self._bundles:
                        if self._bundle_bytes >= _MOST_BUNDLE_BYTES:
                            raise CouldNotCheck(f"{place} is not read: too much was before it")
                        text = read_blob(self.store, bundle.descriptor(BUNDLE_V03), place)
                        self._bundle_bytes += len(text)
                        self._bundles[bundle.digest] = Attestation(place, text)
                yield self._bundles[bundle.digest]
            except NixSeedError as error:
                reasons.append(error.message)

    def _closed(self, found: OutputAnswer) -> bool:
        """Whether all that the path refers to, however far, is held or served."""
        lacking = self._lacking(found, self.find)
        if lacking is not None:
            reason = f"{found.info.path} refers to {lacking}, which is not kept"
            self._tell(OutputMissed(found.info.path.hash_part, reason))
        return lacking is None

    def _lacking(self, found: OutputAnswer, find: Callable[[str], object]) -> StorePath | None:
        """Return what the path refers to, however far, that is neither held nor found."""
        if self.held is None:
            return None
        seen, waiting = {found.info.path}, list(found.info.references)
        while waiting:
            path = waiting.pop()
            if path in seen or self.held(path):
                continue
            seen.add(path)
            further = find(path.hash_part)
            if not isinstance(further, OutputAnswer) or further.info.path != path:
                return path
            waiting += further.info.references
        return None

    def _tell(self, event: OutputMissed | OutputTaken) -> None:
        with self._telling:
            self.on_event(event)


def _bundles_of(entries: Iterable[KeptOutput]) -> tuple[Stored, ...]:
    found = dict.fromkeys(bundle for each in entries for bundle in each.bundles)
    return tuple(found)
