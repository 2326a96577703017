"""Blobs in and out of a repository (distribution specification 1.1).

In: streamed, resumed by range after a cut, and hashed before their end is given out. A reader may
use the bytes of an unfinished stream only for what it can undo: the digest is known to be right
when the iterator ends, and not before.

Out: a blob of known size goes as POST and one PUT. A stream goes as POST, one chunked PATCH of all
of it (several would have to be at most 4 MiB each at GHCR) and a PUT that names the digest learnt
on the way. What fails midway is begun anew, from a fresh stream.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from urllib.parse import quote

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError
from nix_seed.core.values import dataclass
from nix_seed.formats.oci.manifest import Descriptor
from nix_seed.formats.oci.reference import Reference
from nix_seed.registry.auth import TokenScope
from nix_seed.registry.errors import Denied, Unreachable
from nix_seed.registry.http import Answer
from nix_seed.registry.rules import http
from nix_seed.registry.session import RegistryRequest, Reply, Session
from nix_seed.registry.store import Held

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)\Z")
_WORTH = 1 << 16  # bytes of one connection that make another one worth its while
# Small enough for what limits a request: 20 MB (Azure), 100 MB (Cloudflare).
_PART = 8 << 20

Source = Callable[[], Iterable[bytes]]


class RepositoryBlobs:
    """The blobs of the repository *reference*; a repository has manifests and tags besides."""

    def __init__(self, session: Session, reference: Reference) -> None:
        self._session = session
        self.registry = reference.registry
        self.path = reference.repository
        self._too_large: float = float("inf")  # bytes that were refused in one request

    def __str__(self) -> str:
        return f"{self.registry}/{self.path}"

    def open_blob(self, wanted: Descriptor, held: Held | None = None) -> Iterator[bytes]:
        """Yield the blob after what is *held*, then check size and digest of the whole.

        Raises ``CheckedFalse`` for other bytes than *wanted* names, ``CouldNotCheck`` for those
        that cannot be had. A cut connection is resumed; 64 KiB won renew the patience.
        """
        label = f"blob {wanted.digest} of {self}"
        held = held or Held()
        state, position, attempt = held.state.copy(), held.size, 0
        begun = position
        while position < wanted.size:
            try:
                for chunk in self._from(wanted, position, label):
                    position += len(chunk)
                    if position > wanted.size:
                        raise CheckedFalse(f"{label} is longer than the {wanted.size} bytes it has")
                    state.update(chunk)
                    if position - begun >= _WORTH:
                        attempt = 0
                    yield chunk
                if position < wanted.size:
                    # A body of unknown length looks finished when it is cut: the rest is asked for.
                    raise Unreachable(f"{label}: ended after {position} of {wanted.size} bytes")
            except Unreachable as error:
                if not self._session.patience.outwait(error, attempt):
                    raise
                attempt, begun = attempt + 1, position
        if state.hexdigest() != wanted.digest.hex:
            raise CheckedFalse(
                f"{label} has other bytes than its digest names: sha256:{state.hexdigest()}",
                hint="nothing of it was kept; the registry, or something before it, alters data",
            )

    def read_range_unverified(self, wanted: Descriptor, start: int, length: int) -> bytes:
        """Return part of a blob by one range request; the caller must have a proof of its own."""
        label = f"blob {wanted.digest} of {self}"
        end = start + length
        if not 0 <= start <= end <= wanted.size:
            raise InputError(f"{label} has no bytes {start} to {end}: it is {wanted.size} long")
        if length == 0:
            return b""

        def once() -> bytes:
            answer = self._ask_for(wanted, f"bytes={start}-{end - 1}", label)
            _check_range(answer.headers, start, wanted, label)
            if answer.status == 206:
                data = answer.take(length)
            else:
                held = bytearray()
                for chunk in _skip(_body(answer, wanted, label), start):
                    held += chunk
                    if len(held) >= length:
                        break
                answer.close()
                data = bytes(held[:length])
            if len(data) < length:
                raise Unreachable(f"{label}: {len(data)} of {length} bytes arrived")
            return data

        return self._session.patience.retry(once)

    def gives_ranges(self, wanted: Descriptor) -> bool:
        """Whether the registry answers for a part of a blob with that part alone."""
        label = f"blob {wanted.digest} of {self}"

        def once() -> bool:
            answer = self._ask_for(wanted, "bytes=0-0", label)
            # Some answer 206 and give all of it, or several parts with texts between them.
            alone = len(answer.take(2)) == 1
            _check_range(answer.headers, 0, wanted, label)
            return answer.status == 206 and alone

        return self._session.patience.retry(once)

    def _from(self, wanted: Descriptor, start: int, label: str) -> Iterator[bytes]:
        """Yield the bytes from *start* on, for as long as this one connection lives."""
        asked = f"bytes={start}-{wanted.size - 1}" if start else None
        answer = self._ask_for(wanted, asked, label)
        try:
            if answer.status == 206:
                _check_range(answer.headers, start, wanted, label)
                yield from answer.chunks()
            else:
                yield from _skip(_body(answer, wanted, label), start)
        finally:
            answer.close()

    def _ask_for(self, wanted: Descriptor, asked: str | None, label: str) -> Answer:
        answer = self._session.open(
            RegistryRequest(
                "GET",
                f"{self.path}/blobs/{wanted.digest}",
                doing=f"fetching {label}",
                scopes=(TokenScope(self.path),),
                question=http.RegistryQuestion.GIVE,
                headers={"Range": asked} if asked else {},
            )
        )
        compressed = answer.status == 206 and _is_compressed(answer, wanted)
        if asked is not None and (answer.status == 416 or compressed):
            # Some registries refuse ranges altogether, or give parts of what they compress on the
            # way: what all of it is, its digest shows.
            answer.close()
            return self._ask_for(wanted, None, label)
        if answer.status == 416:
            answer.close()
            raise CheckedFalse(f"{label} is shorter than the {wanted.size} bytes it should have")
        if answer.status not in (200, 206):
            answer.close()
            said = http.judge(http.RegistryQuestion.GIVE, answer.status).said
            raise CheckedFalse(f"{label} {said}", hint="push the image again")
        return answer

    def check_writable(self) -> None:
        """Raise ``Denied``, which names the permission, where nothing may be pushed here.

        An upload is opened and forgotten; nothing is sent.
        """
        doing = f"asking whether {self} may be pushed to"
        upload = _Upload(self._session, self.path, doing)
        upload.cancel(upload.ask())

    def push_blob(self, blob: Descriptor, source: Source) -> None:
        """Send *blob*, whose bytes each call of *source* yields anew.

        Raises ``CheckedFalse`` when the source yields other bytes than the descriptor names.
        """
        doing = f"pushing blob {blob.digest} to {self}"
        upload = _Upload(self._session, self.path, doing)

        def once() -> None:
            meter = _Meter(source, blob.size)
            try:
                if blob.size >= self._too_large:
                    upload.finish(upload.in_parts(meter), blob.digest)
                elif not upload.finish(upload.begin(), blob.digest, meter):
                    self._too_large = blob.size
                    upload.finish(upload.in_parts(meter), blob.digest)
            except CouldNotCheck:
                meter.check(blob, doing)
                raise
            meter.check(blob, doing)

        self._session.patience.retry(once)

    def push_stream(self, source: Source, media_type: str) -> Descriptor:
        """Send a stream of unknown length and return what it proved to be.

        *source* is called once a try, so a stream that can be had only once must raise on its
        second call.
        """
        doing = f"streaming a blob to {self}"
        upload = _Upload(self._session, self.path, doing)

        def once() -> Descriptor:
            meter = _Meter(source)
            reply = upload.put("PATCH", upload.begin(), meter)
            digest = meter.digest()
            try:
                upload.finish(upload.location(reply), digest)
            except CouldNotCheck as error:
                # The digest decides. Where it is refused, what arrived may tell why.
                last = http.number(reply.headers.get("Range", "").rpartition("-")[2])
                if meter.size and last is not None and last + 1 != meter.size:
                    said = f"{meter.size} bytes were sent and {last + 1} arrived"
                    raise Unreachable(f"{doing}: {said}") from error
                raise
            return Descriptor(media_type, digest, meter.size)

        # A repeated attempt is an upload of its own: what the first left behind has no name.
        return self._session.patience.retry(once)

    def mount_blob(self, digest: Digest, source: str) -> bool:
        """Have the registry link a blob from repository *source*; False where it will not.

        The upload session that a registry opens instead (202) is cancelled.
        """
        doing = f"mounting blob {digest} from {source} in {self}"
        upload = _Upload(self._session, self.path, doing)
        request = RegistryRequest(
            "POST",
            f"{self.path}/blobs/uploads/?mount={quote(str(digest))}&from={quote(source, safe='')}",
            doing,
            (*upload.scopes, TokenScope(source)),
            http.RegistryQuestion.LINK,
            headers={"Content-Length": "0"},
        )
        try:
            reply = self._session.call(request)
        except Denied:
            return False  # no right to read the source: then it is simply sent
        if "Location" in reply.headers and reply.meaning is not http.Meaning.YES:
            upload.cancel(reply)
        return reply.meaning is http.Meaning.YES

    def has_blob(self, digest: Digest) -> bool:
        """Whether the registry says it has the blob; asked by who is to push it otherwise."""
        doing = f"looking for blob {digest} in {self}"
        return _Upload(self._session, self.path, doing).holds(digest)


def _check_range(headers: Mapping[str, str], start: int, wanted: Descriptor, label: str) -> None:
    text = headers.get("Content-Range")
    if text is None:
        return
    match = _CONTENT_RANGE.match(text)
    if match is None or int(match[1]) != start:
        raise CouldNotCheck(f"{label}: asked for bytes from {start}, was answered {text!r}")
    if match[3] != "*" and int(match[3]) != wanted.size:
        raise CheckedFalse(f"{label} is {match[3]} bytes, not {wanted.size}")


def _is_compressed(answer: Answer, wanted: Descriptor) -> bool:
    """Whether the blob was compressed on its way; what is a gzip file is often labelled so too."""
    if not answer.gzipped:
        return False
    length = http.number(answer.headers.get("Content-Length"))
    if answer.status == 206:
        part = _CONTENT_RANGE.match(answer.headers.get("Content-Range", ""))
        return part is None or length != int(part[2]) - int(part[1]) + 1
    zipped = length is None and wanted.media_type.endswith("gzip")
    return length != wanted.size and not zipped


def _body(answer: Answer, wanted: Descriptor, label: str) -> Iterator[bytes]:
    """Yield the bytes of the whole blob, which an answer of 200 has."""
    if _is_compressed(answer, wanted):
        return answer.decoded()
    length = http.number(answer.headers.get("Content-Length"))
    if length is not None and length != wanted.size:
        page = http.is_page(answer.headers)
        kind, said = (CouldNotCheck, ": a web page") if page else (CheckedFalse, "")
        raise kind(f"{label} is {length} bytes, not {wanted.size}{said}")
    return answer.chunks()


def _skip(chunks: Iterator[bytes], count: int) -> Iterator[bytes]:
    """Leave out the first *count* bytes: a registry may answer a range with the whole."""
    for chunk in chunks:
        if count >= len(chunk):
            count -= len(chunk)
            continue
        yield chunk[count:]
        count = 0


@dataclass(frozen=True, slots=True)
class _Upload:
    """What the requests of one upload have in common; *doing* is what errors say was tried."""

    session: Session
    repository: str
    doing: str

    @property
    def scopes(self) -> tuple[TokenScope, ...]:
        return (TokenScope(self.repository, ("pull", "push")),)

    def ask(self) -> Reply:
        """Open an upload; the answer says where it goes to."""
        url = f"{self.repository}/blobs/uploads/"
        return self.send("POST", url, http.RegistryQuestion.WRITE, safe=True)

    def begin(self) -> str:
        """Open an upload; return where it goes to."""
        return self.location(self.ask())

    def send(
        self,
        method: str,
        url: str,
        question: http.RegistryQuestion,
        meter: _Meter | _Part | None = None,
        *,
        safe: bool = False,
    ) -> Reply:
        """Send a request of this upload, with what *meter* gives."""
        size = 0 if meter is None else meter.announced
        headers = {} if size is None else {"Content-Length": str(size)}
        if meter is not None:
            headers["Content-Type"] = "application/octet-stream"
        if isinstance(meter, _Part):
            headers["Content-Range"] = f"{meter.start_at}-{meter.start_at + len(meter.data) - 1}"
        body = None if meter is None else meter.start
        return self.session.call(
            RegistryRequest(
                method, url, self.doing, self.scopes, question, headers, body, safe, settle=not safe
            )
        )

    def put(self, method: str, url: str, meter: _Meter | _Part) -> Reply:
        """Send what *meter* gives; ``CouldNotCheck`` where that is too much for one request."""
        reply = self.send(method, url, http.RegistryQuestion.TAKE_BLOB, meter)
        if reply.error is not None:
            raise reply.error
        return reply

    def in_parts(self, meter: _Meter) -> str:
        """Send what *meter* gives in requests of bounded size; return where the upload goes on."""
        location, at = self.begin(), 0
        for data in _parts(meter.start()):
            location = self.location(self.put("PATCH", location, _Part(data, at)))
            at += len(data)
        return location

    def finish(self, location: str, digest: Digest, meter: _Meter | None = None) -> bool:
        """Name the upload by its digest; False where what *meter* gives is too much at once.

        ``CheckedFalse`` where the registry stored another blob.
        """
        joint = "&" if "?" in location else "?"
        url = f"{location}{joint}digest={quote(str(digest))}"
        try:
            reply = self.send("PUT", url, http.RegistryQuestion.TAKE_BLOB, meter)
        except Unreachable:
            # Where the answer alone was lost, the blob is there and is not sent again.
            if self.holds(digest):
                return True
            raise
        if reply.error is not None:
            if meter is None:
                raise reply.error
            return False
        hint = reply.headers.get("Docker-Content-Digest", "")
        if hint.startswith("sha256:") and hint != str(digest) and not self.holds(digest):
            raise CheckedFalse(
                f"{self.doing}: the registry says it stored {hint}, but {digest} was sent"
            )
        return True

    def holds(self, digest: Digest) -> bool:
        """Whether the registry says it has the blob."""
        # With the right to push: where there is nothing yet, nobody has the right to pull.
        url = f"{self.repository}/blobs/{digest}"
        request = RegistryRequest("HEAD", url, self.doing, self.scopes, http.RegistryQuestion.HOLDS)
        return self.session.call(request).meaning is http.Meaning.YES

    def cancel(self, reply: Reply) -> None:
        """Forget an upload that is not needed."""
        try:
            self.send("DELETE", self.location(reply), http.RegistryQuestion.FORGET, safe=True)
        except CouldNotCheck:
            return  # only tidiness was lost: registries expire abandoned uploads

    def location(self, reply: Reply) -> str:
        """Return where the upload goes on."""
        location = reply.headers.get("Location")
        if not location:
            said = "the registry opened an upload, but did not say where"
            # Begun anew, for what was lost on the way may not be lost again.
            raise Unreachable(f"{self.doing}: {said}", hint="this is the registry's trouble")
        here, source = http.parse_url(reply.url), f"{self.doing}: the upload's address"
        return str(http.join_url(here, location, source))


@dataclass(frozen=True, slots=True)
class _Part:
    """Part of a blob, from *start_at* on."""

    data: bytes
    start_at: int

    @property
    def announced(self) -> int:
        return len(self.data)

    def start(self) -> bytes:
        return self.data


class _Meter:
    """Hashes and counts what one try sends; ``start`` begins anew (a 401 asks for that)."""

    def __init__(self, source: Source, size: int | None = None) -> None:
        self._source = source
        self.announced = size
        self._state = hashlib.sha256()
        self.size = 0
        self.ended = False

    def start(self) -> Iterator[bytes]:
        self._state, self.size, self.ended = hashlib.sha256(), 0, False
        return self._run()

    def _run(self) -> Iterator[bytes]:
        # The HTTP library takes an OSError for the network's, so the source's own is renamed here.
        try:
            for chunk in self._source():
                self._state.update(chunk)
                self.size += len(chunk)
                if self.announced is not None and self.size > self.announced:
                    self.ended = True
                    raise CouldNotCheck("more bytes than were announced")
                yield chunk
        except OSError as error:
            raise CouldNotCheck(f"the data to be pushed cannot be read: {error}") from error
        if self.announced is not None and self.size < self.announced:
            self.ended = True
            raise CouldNotCheck("fewer bytes than were announced")
        self.ended = True

    def digest(self) -> Digest:
        return Digest(self._state.hexdigest())

    def check(self, blob: Descriptor, doing: str) -> None:
        """Raise if the source was read and is not what its descriptor says."""
        if self.ended and (self.size != blob.size or self.digest() != blob.digest):
            raise CheckedFalse(
                f"{doing}: the local data has other bytes than its digest names: {self.digest()}",
                hint="the image on disk is damaged; build or pull it again",
            )


def _parts(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Gather *pieces* to parts of ``_PART`` bytes; the last may be shorter."""
    held = bytearray()
    for piece in pieces:
        held += piece
        while len(held) >= _PART:
            yield bytes(held[:_PART])
            del held[:_PART]
    if held:
        yield bytes(held)
