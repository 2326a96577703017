"""Blobs in: streamed, resumed by range after a cut, and hashed before their end is given out.

A reader may use the bytes of an unfinished stream only for what it can undo: the digest is known to
be right when the iterator ends, and not before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from nix_seed.clients.blobs import Held
from nix_seed.clients.registry.auth import Scope
from nix_seed.clients.registry.failures import Unreachable
from nix_seed.clients.registry.session import Request, Session
from nix_seed.clients.registry.transport import Answer
from nix_seed.formats.oci.descriptor import Descriptor
from nix_seed.ground.errors import CheckedFalse, CouldNotCheck, InputError

__all__ = ["open_blob", "read_range"]

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)\Z")


def open_blob(
    session: Session, repository: str, wanted: Descriptor, held: Held | None = None
) -> Iterator[bytes]:
    """Yield the blob after what is *held*, then check size and digest of the whole.

    Raises ``CheckedFalse`` for other bytes than *wanted* names, ``CouldNotCheck`` for a blob
    that cannot be had. A cut connection is resumed; patience is counted anew with every byte won.
    """
    what = f"blob {wanted.digest} of {session.registry}/{repository}"
    held = held or Held()
    state, position, attempt = held.state.copy(), held.size, 0
    while position < wanted.size:
        try:
            for chunk in _from(session, repository, wanted, position, what):
                position += len(chunk)
                if position > wanted.size:
                    raise CheckedFalse(f"{what} is longer than the {wanted.size} bytes it has")
                state.update(chunk)
                attempt = 0
                yield chunk
            if position < wanted.size:
                # A body of unknown length looks finished when it is cut: the rest is asked for.
                raise Unreachable(f"{what}: ended after {position} of {wanted.size} bytes")
        except Unreachable as error:
            delay = session.patience.delay(attempt, error.retry_after)
            if delay is None:
                raise
            session.patience.sleep(delay)
            attempt += 1
    if state.hexdigest() != wanted.digest.hex:
        raise CheckedFalse(
            f"{what} has other bytes than its digest names: sha256:{state.hexdigest()}",
            hint="nothing of it was kept; the registry, or something before it, alters data",
        )


def read_range(
    session: Session, repository: str, wanted: Descriptor, start: int, length: int
) -> bytes:
    """Return *length* bytes of a blob from *start*; nothing proves that they are the right ones."""
    what = f"blob {wanted.digest} of {session.registry}/{repository}"
    end = start + length
    if not 0 <= start <= end <= wanted.size:
        raise InputError(f"{what} has no bytes {start} to {end}: it is {wanted.size} long")
    if length == 0:
        return b""

    def once() -> bytes:
        answer = _ask(session, repository, wanted, f"bytes={start}-{end - 1}", what)
        _check_range(answer.headers, start, wanted, what)
        if answer.status == 200:
            return _take(_skip(answer.chunks(), start), length, answer, what)
        return _take(answer.chunks(), length, answer, what)

    return session.retry(once, safe=True)


def _from(
    session: Session, repository: str, wanted: Descriptor, start: int, what: str
) -> Iterator[bytes]:
    """Yield the bytes from *start* on, for as long as this one connection lives."""
    asked = f"bytes={start}-{wanted.size - 1}" if start else None
    answer = _ask(session, repository, wanted, asked, what)
    try:
        if answer.status == 206:
            _check_range(answer.headers, start, wanted, what)
            yield from answer.chunks()
        else:
            _check_length(answer.headers, wanted, what)
            yield from _skip(answer.chunks(), start)
    finally:
        answer.close()


def _ask(
    session: Session, repository: str, wanted: Descriptor, asked: str | None, what: str
) -> Answer:
    answer = session.open(
        Request(
            "GET",
            f"{repository}/blobs/{wanted.digest}",
            doing=f"fetching {what}",
            scopes=(Scope(repository),),
            expect=frozenset({200, 206, 404, 416}),
            headers={"Range": asked} if asked else {},
        )
    )
    if answer.status == 404:
        answer.close()
        raise CheckedFalse(
            f"{what} is missing in the registry, although a manifest names it",
            hint="push the image again",
        )
    if answer.status == 416:
        answer.close()
        raise CheckedFalse(f"{what} is shorter than the {wanted.size} bytes it should have")
    return answer


def _check_range(headers: Mapping[str, str], start: int, wanted: Descriptor, what: str) -> None:
    text = headers.get("Content-Range")
    if text is None:
        return
    match = _CONTENT_RANGE.match(text)
    if match is None or int(match[1]) != start:
        raise CouldNotCheck(f"{what}: asked for bytes from {start}, was answered {text!r}")
    if match[3] != "*" and int(match[3]) != wanted.size:
        raise CheckedFalse(f"{what} is {match[3]} bytes, not {wanted.size}")


def _check_length(headers: Mapping[str, str], wanted: Descriptor, what: str) -> None:
    length = headers.get("Content-Length", "")
    if length.isdigit() and int(length) != wanted.size:
        raise CheckedFalse(f"{what} is {length} bytes, not {wanted.size}")


def _skip(chunks: Iterator[bytes], count: int) -> Iterator[bytes]:
    """Leave out the first *count* bytes: a registry may answer a range with the whole."""
    for chunk in chunks:
        if count >= len(chunk):
            count -= len(chunk)
            continue
        yield chunk[count:]
        count = 0


def _take(chunks: Iterator[bytes], length: int, answer: Answer, what: str) -> bytes:
    parts, total = [], 0
    for chunk in chunks:
        parts.append(chunk)
        total += len(chunk)
        if total >= length:
            break
    answer.close()
    if total < length:
        raise Unreachable(f"{what}: {total} of {length} bytes arrived")
    return b"".join(parts)[:length]
