"""What goes wrong between us and a registry, done for real by a proxy in front of a real one."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from email.utils import formatdate

import pytest

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck
from nix_seed.core.events import Waiting, listening
from nix_seed.formats.oci.manifest import Descriptor, Index, Manifest, MediaType
from nix_seed.registry.client import Repository
from nix_seed.registry.errors import Patience, Unreachable, asked_to_wait
from nix_seed.registry.http import _Http
from nix_seed.registry.store import Held
from support.faults import BLOBS, DATA, US, Fault, Proxy
from support.repositories import Registry


def ranges(proxy: Proxy) -> list[str | None]:
    return [
        seen.headers.get("range")
        for seen in proxy.seen
        if seen.method == "GET" and "/blobs/" in seen.path
    ]


def last(stored: Descriptor) -> int:
    return stored.size - 1


def test_a_download_that_is_cut_goes_on_where_it_was(
    repository: Repository, proxy: Proxy, stored: Descriptor, slept: list[float]
) -> None:
    proxy.faults += [Fault("GET", BLOBS, times=3, cut=300_000)]
    assert b"".join(repository.open_blob(stored)) == DATA
    assert ranges(proxy) == [None] + [
        f"bytes={done * 300_000}-{last(stored)}" for done in (1, 2, 3)
    ]
    assert slept == [0.5] * 3, "what was won starts the waiting anew"


def test_a_stalled_socket_is_given_up_and_resumed(
    repository: Repository, proxy: Proxy, patience: Patience, stored: Descriptor
) -> None:
    # Long enough that a busy machine is not taken for a stalled one.
    registry = Registry(proxy.host, keyring=US, patience=replace(patience, stall=3.0))
    ours = registry.repository(repository.path)
    assert ours.has_blob(stored.digest), "logged in before it is timed"
    proxy.faults += [Fault("GET", BLOBS, stall=100_000)]
    started = time.monotonic()
    assert b"".join(ours.open_blob(stored)) == DATA
    assert 2.9 < time.monotonic() - started < 15, "the proxy itself holds out for 30 seconds"
    assert ranges(proxy) == [None, f"bytes=100000-{last(stored)}"]


def test_a_registry_that_answers_a_range_with_the_whole(
    repository: Repository, proxy: Proxy, stored: Descriptor
) -> None:
    proxy.faults += [Fault("GET", BLOBS, times=None, ignore_range=True)]
    held = Held(300_000, hashlib.sha256(DATA[:300_000]))
    assert b"".join(repository.open_blob(stored, held)) == DATA[300_000:]
    assert repository.read_range_unverified(stored, 1000, 256) == DATA[1000:1256]


def test_what_is_held_is_not_fetched_again(
    repository: Repository, proxy: Proxy, stored: Descriptor
) -> None:
    held = Held(1_000_000, hashlib.sha256(DATA[:1_000_000]))
    assert b"".join(repository.open_blob(stored, held)) == DATA[1_000_000:]
    assert ranges(proxy) == [f"bytes=1000000-{last(stored)}"]
    wrong = Held(1_000_000, hashlib.sha256(b"\0" * 1_000_000))
    with pytest.raises(CheckedFalse, match="other bytes than its digest names"):
        list(repository.open_blob(stored, wrong))


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_an_upload_that_leads_nowhere_is_begun_anew(
    repository: Repository, proxy: Proxy, method: str, slept: list[float]
) -> None:
    def nowhere(headers: dict[str, str]) -> None:
        headers.pop("Location")

    proxy.faults += [Fault(method, "/uploads/", edit=nowhere)]
    stored = repository.push_stream(lambda: [DATA], MediaType.LAYER)
    assert b"".join(repository.open_blob(stored)) == DATA
    assert len(slept) == 1


@pytest.mark.parametrize(("method", "status"), [("HEAD", 201), ("POST", 200)])
def test_an_answer_to_something_else_is_asked_for_by_another_connection(
    repository: Repository, proxy: Proxy, method: str, status: int, slept: list[float]
) -> None:
    """As where a server answers one request twice: all that follows on that connection is late."""
    stored = repository.push_stream(lambda: [b"{}"], MediaType.LAYER)
    proxy.faults += [Fault(method, "/blobs/", status=status)]
    before = len({seen.peer for seen in proxy.seen})
    assert repository.has_blob(stored.digest)
    assert repository.push_stream(lambda: [DATA], MediaType.LAYER).size == len(DATA)
    assert len(slept) == 1
    assert len({seen.peer for seen in proxy.seen}) == before + 1


@pytest.mark.parametrize("streamed", [True, False])
def test_a_blob_whose_answer_alone_was_lost_is_not_sent_again(
    repository: Repository, proxy: Proxy, *, streamed: bool
) -> None:
    proxy.faults += [Fault("PUT", "/uploads/", cut=0)]
    if streamed:
        stored = repository.push_stream(lambda: [DATA], MediaType.LAYER)
    else:
        stored = Descriptor.of(MediaType.LAYER, DATA)
        repository.push_blob(stored, lambda: [DATA])
    assert sum(seen.received for seen in proxy.seen) == len(DATA)
    assert b"".join(repository.open_blob(stored)) == DATA


def test_an_empty_answer_is_asked_for_again(
    repository: Repository, proxy: Proxy, slept: list[float]
) -> None:
    """As where a connection gives one answer twice."""
    body = Index(()).dump()
    repository.put_manifest(body, MediaType.INDEX, "v1")
    proxy.faults += [Fault("GET", "/manifests/", status=200)]
    found = repository.get_manifest("v1")
    assert found is not None
    assert found.body == body
    assert len(slept) == 1


@pytest.mark.parametrize("position", [0, 1_000_000, len(DATA) - 1])
def test_a_flipped_bit_is_checked_and_false(
    repository: Repository, proxy: Proxy, stored: Descriptor, position: int, slept: list[float]
) -> None:
    proxy.faults += [Fault("GET", BLOBS, flip=position)]
    with pytest.raises(CheckedFalse, match="has other bytes than its digest names: sha256:"):
        list(repository.open_blob(stored))
    assert slept == [], "a lie is not asked for again"


def test_a_truncated_blob_is_checked_and_false(
    repository: Repository, proxy: Proxy, stored: Descriptor
) -> None:
    proxy.faults += [Fault("GET", BLOBS, truncate=1000)]
    with pytest.raises(CheckedFalse, match=f"is 1000 bytes, not {len(DATA)}"):
        list(repository.open_blob(stored))


def test_a_blob_without_end_is_left_at_its_size(
    repository: Repository, proxy: Proxy, stored: Descriptor
) -> None:
    short = Descriptor(stored.media_type, Digest.of(DATA[:10]), 10)

    proxy.faults += [Fault("GET", BLOBS, status=200, body=DATA)]
    with pytest.raises(CheckedFalse, match="is 2048000 bytes, not 10"):
        list(repository.open_blob(short))
    endless = (("Transfer-Encoding", "chunked"),)
    body = b"fff\r\n" + b"x" * 0xFFF + b"\r\n"
    proxy.set(Fault("GET", BLOBS, headers=endless, status=200, body=body))
    with pytest.raises(CheckedFalse, match="is longer than the 10 bytes it has"):
        list(repository.open_blob(short))


def test_429_waits_as_long_as_it_says(
    repository: Repository, proxy: Proxy, stored: Descriptor, slept: list[float]
) -> None:
    date = formatdate(time.time() + 30, usegmt=True)
    proxy.faults += [
        Fault("GET", BLOBS, status=429, headers=(("Retry-After", "7"),)),
        Fault("HEAD", BLOBS, status=429, headers=(("Retry-After", date),)),
    ]
    assert b"".join(repository.open_blob(stored)) == DATA
    assert slept == [7.5]
    assert repository.has_blob(stored.digest)
    assert 28 < slept[1] <= 30.5


def test_a_host_at_which_no_registry_is_is_named(repository: Repository, proxy: Proxy) -> None:
    """A registry below a path of its host is there for nobody, and says nothing as one does."""
    proxy.faults += [Fault("POST", "/uploads/", None, status=404, body=b"404 page not found\n")]
    with pytest.raises(CouldNotCheck, match="the registry answered 404") as caught:
        repository.push_stream(lambda: [DATA], MediaType.LAYER)
    assert "see that one is at HOST/v2/" in (caught.value.hint or "")


@pytest.mark.parametrize("zone", ["GMT", "+0000", "-0000", "+0200"])
def test_a_date_is_no_time_of_this_machines_own_zone(
    monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    """Of ``-0000`` Python makes a time without a zone, which it then takes for a local one."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        said = "Mon, 30 Nov 2026 17:01:00 " + zone
        sent = f"Mon, 30 Nov 2026 {17 if zone != '+0200' else 15}:00:00 GMT"
        assert asked_to_wait({"Retry-After": said, "Date": sent}) == 60.0
    finally:
        monkeypatch.undo()
        time.tzset()


def test_who_listens_hears_of_each_wait(
    repository: Repository, proxy: Proxy, stored: Descriptor, slept: list[float]
) -> None:
    told: list[object] = []
    proxy.faults += [Fault("HEAD", BLOBS, status=503), Fault("GET", BLOBS, status=503)]
    with listening(told.append):
        assert repository.has_blob(stored.digest)
        assert b"".join(repository.open_blob(stored)) == DATA
    waits = [each for each in told if isinstance(each, Waiting)]
    assert [each.seconds for each in waits] == slept == [0.5, 0.5]
    assert all("answered 503" in each.problem for each in waits)


def test_a_server_that_wants_an_hour_is_reported_not_slept_for(
    repository: Repository, proxy: Proxy, stored: Descriptor, slept: list[float]
) -> None:
    body = b'{"errors": [{"code": "TOOMANYREQUESTS", "message": "slow\\u001b[31m down"}]}'
    proxy.faults += [
        Fault("HEAD", BLOBS, None, status=429, headers=(("Retry-After", "3600"),)),
        Fault(
            "GET", "/manifests/", None, status=429, headers=(("Retry-After", "3600"),), body=body
        ),
    ]
    with pytest.raises(Unreachable, match="the registry answered 429"):
        repository.has_blob(stored.digest)
    with pytest.raises(Unreachable, match=r"429: TOOMANYREQUESTS slow \[31m down"):
        repository.get_manifest("v1")
    assert slept == []


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_registry_that_takes_next_to_nothing_is_given_up_and_named(
    repository: Repository, proxy: Proxy, patience: Patience, method: str
) -> None:
    registry = Registry(proxy.host, keyring=US, patience=replace(patience, connect=1.5))
    ours = registry.repository(repository.path)
    assert not ours.has_blob(Digest.of(b"absent")), "logged in before it stalls"
    proxy.faults += [Fault(method, "/blobs/uploads/", None, take=1000)]
    data = bytes(32 << 20)  # more than the kernel holds for the two
    blob = Descriptor(MediaType.LAYER, Digest.of(data), len(data))
    deeds: dict[str, Callable[[], object]] = {
        "PUT": lambda: ours.push_blob(blob, lambda: [data]),
        "PATCH": lambda: ours.push_stream(lambda: [data], MediaType.LAYER),
    }
    with pytest.raises(Unreachable, match="it took too little of what was sent") as caught:
        deeds[method]()
    where = f"http://{proxy.host}/v2/{repository.path}/blobs/uploads/"
    assert caught.value.message.startswith(where)
    assert len(proxy.paths("POST")) == patience.attempts


def test_patience_with_an_upload_is_not_multiplied(repository: Repository, proxy: Proxy) -> None:
    """To begin one is tried again, and so is all of it: five times, not twenty-five."""
    proxy.faults += [Fault("POST", "/blobs/uploads/", None, status=429)]
    blob = Descriptor(MediaType.LAYER, Digest.of(DATA), len(DATA))
    deeds: tuple[Callable[[], object], ...] = (
        lambda: repository.push_blob(blob, lambda: [DATA]),
        lambda: repository.push_stream(lambda: [DATA], MediaType.LAYER),
    )
    for number, deed in enumerate(deeds, 1):
        with pytest.raises(Unreachable, match="answered 429"):
            deed()
        assert len(proxy.paths("POST")) == 4 * number


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (403, "adding 1.2 GiB of storage resource will exceed the upper limit of 10.0 GiB"),
        (403, "Your project exceeded its storage quota"),
        (507, ""),
        (400, "write /data/blob: no space left on device"),
    ],
)
def test_a_registry_without_room_is_no_matter_of_credentials(
    repository: Repository, proxy: Proxy, status: int, message: str
) -> None:
    body = f'{{"errors": [{{"code": "DENIED", "message": "{message}"}}]}}'.encode()
    proxy.faults += [Fault("PUT", "/blobs/uploads/", None, status=status, body=body)]
    blob = Descriptor(MediaType.LAYER, Digest.of(DATA), len(DATA))
    with pytest.raises(CouldNotCheck, match=f"{status}: DENIED") as caught:
        repository.push_blob(blob, lambda: [DATA])
    assert "there is no room for it" in (caught.value.hint or "")


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_5xx_is_tried_again_and_then_reported(
    repository: Repository, proxy: Proxy, stored: Descriptor, slept: list[float], status: int
) -> None:
    proxy.faults += [Fault("HEAD", BLOBS, times=3, status=status)]
    assert repository.has_blob(stored.digest)
    assert slept == [0.5, 1.0, 2.0], "doubled each time"
    proxy.set(Fault("HEAD", BLOBS, times=None, status=status))
    with pytest.raises(Unreachable, match=f"looking for blob .*: the registry answered {status}"):
        repository.has_blob(stored.digest)
    assert len(proxy.paths("HEAD")) == 8


@pytest.mark.parametrize("code", ["MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN"])
def test_a_blob_that_looks_absent_for_a_moment_is_waited_for(
    repository: Repository, proxy: Proxy, stored: Descriptor, slept: list[float], code: str
) -> None:
    manifest = Manifest(stored, (stored,)).dump()
    body = f'{{"errors": [{{"code": "{code}"}}]}}'.encode()
    refused = Fault("PUT", "/manifests/", times=2, status=400, body=body)
    proxy.faults += [refused]
    pushed = repository.put_manifest(manifest, MediaType.MANIFEST, "waited")
    assert len(slept) == 2
    found = repository.get_manifest("waited")
    assert found is not None
    assert found.body == manifest
    assert pushed.digest == Digest.of(manifest)
    proxy.set(replace(refused, times=None))
    with pytest.raises(Unreachable, match=f"400: {code}"):
        repository.put_manifest(manifest, MediaType.MANIFEST, "never")


def test_404_is_an_answer_and_418_is_not(repository: Repository, proxy: Proxy) -> None:
    assert repository.get_manifest("absent") is None
    proxy.faults += [Fault("GET", "/manifests/", status=418)]
    with pytest.raises(CouldNotCheck, match="the registry answered 418"):
        repository.get_manifest("absent")


def push_manifest(repository: Repository, stored: Descriptor) -> tuple[bytes, Descriptor]:
    config = repository.push_stream(lambda: [b"{}"], MediaType.CONFIG)
    body = Manifest(config, (stored,)).dump()
    return body, repository.put_manifest(body, MediaType.MANIFEST, "v1")


def test_a_wrong_docker_content_digest_is_a_hint_and_no_more(
    repository: Repository, proxy: Proxy, stored: Descriptor
) -> None:
    body, manifest = push_manifest(repository, stored)
    other = str(Digest.of(b"other"))

    def lie(headers: dict[str, str]) -> None:
        headers["Docker-Content-Digest"] = other

    proxy.faults += [Fault(method, "/manifests/", None, edit=lie) for method in ("GET", "HEAD")]
    fetched = repository.get_manifest("v1")
    assert fetched is not None
    assert (fetched.descriptor, fetched.body) == (manifest, body)
    assert repository.head_manifest(manifest.digest) == manifest


def test_without_the_header_the_digest_is_computed(
    repository: Repository, proxy: Proxy, stored: Descriptor
) -> None:
    body, manifest = push_manifest(repository, stored)

    def silent(headers: dict[str, str]) -> None:
        headers.pop("Docker-Content-Digest", None)

    proxy.faults += [Fault(method, "/manifests/", None, edit=silent) for method in ("GET", "HEAD")]
    fetched = repository.get_manifest("v1")
    assert fetched is not None
    assert (fetched.descriptor, fetched.body) == (manifest, body)
    assert repository.head_manifest("v1") == manifest


def test_a_flipped_manifest_is_checked_and_false(
    repository: Repository, proxy: Proxy, stored: Descriptor
) -> None:
    _, manifest = push_manifest(repository, stored)
    proxy.faults += [Fault("GET", "/manifests/", None, flip=20)]
    with pytest.raises(CheckedFalse, match="has other bytes than its digest names"):
        repository.get_manifest(manifest.digest)
    with pytest.raises(CheckedFalse, match="has other bytes than its digest names"):
        repository.get_manifest("v1")


def test_a_manifest_of_100_mb_is_refused_unread(repository: Repository, proxy: Proxy) -> None:
    announced = (("Content-Length", "100000000"),)
    proxy.faults += [Fault("GET", "/manifests/", status=200, headers=announced, body=b"{")]
    with pytest.raises(CheckedFalse, match="is larger than 4 MiB, which no manifest may be"):
        repository.get_manifest("v1")
    body = b"5000000\r\n" + b" " * 0x5000000 + b"\r\n0\r\n\r\n"
    chunked = (("Transfer-Encoding", "chunked"),)
    proxy.set(Fault("GET", "/manifests/", status=200, headers=chunked, body=body))
    with pytest.raises(CheckedFalse, match="is larger than 4 MiB"):
        repository.get_manifest("v1")


def test_an_upload_that_is_cut_is_begun_anew(
    repository: Repository, proxy: Proxy, slept: list[float]
) -> None:
    proxy.faults += [
        Fault("PATCH", "/uploads/", cut_request=500_000),
        Fault("PUT", "/uploads/", skip=1, cut_request=500_000),
    ]
    calls = []

    def source() -> Iterator[bytes]:
        calls.append(1)
        for start in range(0, len(DATA), 100_000):
            yield DATA[start : start + 100_000]

    stored = repository.push_stream(source, MediaType.LAYER)
    assert stored.digest == Digest.of(DATA)
    assert len(calls) == 2
    data = DATA + b"more"
    repository.push_blob(Descriptor("x", Digest.of(data), len(data)), lambda: [data])
    assert len(slept) == 2
    assert b"".join(repository.open_blob(stored)) == DATA


def test_a_slow_line_is_no_stalled_one() -> None:
    """The limit is for what is taken, not for all that is sent at once."""
    ours, theirs = socket.socketpair()
    ours.settimeout(1)
    taken: list[int] = []

    def take() -> None:
        while data := theirs.recv(1 << 16):
            taken.append(len(data))
            time.sleep(0.1)

    reader = threading.Thread(target=take)
    reader.start()
    connection = _Http("registry.example")
    connection.sock = ours
    try:
        connection.send(bytes(1 << 20))
    finally:
        connection.close()
        reader.join()
        theirs.close()
    assert sum(taken) == 1 << 20


def test_a_server_that_takes_no_more_is_given_up(proxy: Proxy) -> None:
    # It opens uploads, and never reads what is sent to them.
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        location = f"http://127.0.0.1:{deaf.getsockname()[1]}/upload"
        headers = (("Location", location),)
        proxy.faults += [Fault("POST", "/uploads/", None, status=202, headers=headers)]
        patience = Patience(attempts=2, base=0.01, stall=0.3, connect=0.3)
        repository = Registry(proxy.host, keyring=US, patience=patience).repository("o/r")
        started = time.monotonic()
        with pytest.raises(Unreachable, match="it took too little of what was sent"):
            repository.push_stream(lambda: [b"x" * (64 << 20)], MediaType.LAYER)
        assert time.monotonic() - started < 10


def test_a_stream_goes_as_one_patch(repository: Repository, proxy: Proxy) -> None:
    repository.push_stream(lambda: [DATA, DATA, DATA], MediaType.LAYER)
    patches = [seen for seen in proxy.seen if seen.method == "PATCH"]
    assert [seen.received for seen in patches] == [3 * len(DATA)]
    assert patches[0].headers["transfer-encoding"] == "chunked"
    assert "content-range" not in patches[0].headers


def test_a_put_whose_answer_is_lost_is_safe(repository: Repository, proxy: Proxy) -> None:
    proxy.faults += [Fault("PUT", "/", times=2, cut=0)]
    stored = repository.push_stream(lambda: [DATA], MediaType.LAYER)
    _, manifest = push_manifest(repository, stored)
    assert repository.head_manifest("v1") == manifest


def test_who_is_gone_is_tried_as_often_here_as_elsewhere() -> None:
    slept: list[float] = []
    patience = Patience(attempts=4, sleep=slept.append)
    with pytest.raises(CouldNotCheck, match="refused"):
        Registry("127.0.0.1:9", keyring=US, patience=patience).repository("o/r").list_tags()
    assert len(slept) == 3
