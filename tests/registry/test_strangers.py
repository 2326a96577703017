"""Registries behind proxies, and credentials as people leave them about."""

from __future__ import annotations

import base64
import gzip
import json
import os
import socket
import tracemalloc
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from fuzz.wire import answering
from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck
from nix_seed.formats.oci.manifest import Descriptor, Index, Manifest, MediaType, fallback_tag
from nix_seed.registry.auth import Challenge, parse_challenges
from nix_seed.registry.client import Repository
from nix_seed.registry.credentials import Credential, Keyring
from nix_seed.registry.errors import Denied, NotTaken, Patience, asked_to_wait
from nix_seed.registry.rules.http import parse_url, upgraded
from support.faults import Fault, fault_proxy
from support.quirks import PASSWORD, USER, Reply, page, quirky_registry, refuse
from support.registries import certificate
from support.repositories import Registry

US = Keyring(given=Credential("the test", USER, PASSWORD))
QUICK = Patience(attempts=3, base=0.001, stall=5)
LAYER = MediaType.LAYER_ZSTD
EMPTY_BLOB = Descriptor.of(MediaType.EMPTY, b"{}")


def repository(host: str, keyring: Keyring = US, **more: Any) -> Repository:
    return Registry(host, keyring=keyring, patience=QUICK, **more).repository("q/x")


def test_a_registry_that_knows_nothing_of_the_tls_before_it(tmp_path: Path) -> None:
    """Its token server, its uploads and its pages are named in plain HTTP: asked for by TLS.

    https://github.com/goharbor/harbor/issues/3933,
    https://github.com/distribution/distribution/issues/479
    """
    made = certificate(tmp_path)
    front = ""

    def quirk(query: Any, go: Any) -> Reply:
        reply: Reply = go()
        if where := reply.headers.get("Location"):
            reply = reply.but(Location=f"http://{front}{where}")
        if query.kind == "tags" and "next=1" not in query.url:
            more = f"http://{front}/v2/q/x/tags/list?next=1"
            reply = replace(reply, body=b'{"tags":["v1"]}').but(Link=f'<{more}>; rel="next"')
        return reply

    def challenge(text: str) -> str:
        return text.replace(running.host, front)

    with (
        quirky_registry(quirk, api=False, challenge=challenge) as running,
        fault_proxy(running.host, tls=made) as proxy,
    ):
        front = proxy.host
        ours = repository(proxy.host, ca_file=str(made.ca))
        stored = ours.push_stream(lambda: [b"data"], "x")
        ours.put_manifest(b'{"schemaVersion":2}', MediaType.MANIFEST, "v1")
        ours.put_manifest(b'{"schemaVersion":2}', MediaType.MANIFEST, "v2")
        assert b"".join(ours.open_blob(stored)) == b"data"
        assert ours.list_tags() == ("v1", "v2")


@pytest.mark.parametrize(
    ("address", "home", "asked"),
    [
        ("http://a.io/x?y", "https://a.io", "https://a.io/x?y"),
        ("http://a.io/x", "https://a.io:8443", "https://a.io:8443/x"),
        ("http://a.io:8443/x", "https://a.io:8443", "https://a.io:8443/x"),
        ("http://a.io:5000/x", "https://a.io", "http://a.io:5000/x"),
        ("http://b.io/x", "https://a.io", "http://b.io/x"),
        ("http://a.io/x", "http://a.io", "http://a.io/x"),
        ("https://a.io/x", "http://a.io", "https://a.io/x"),
    ],
)
def test_only_the_own_host_is_asked_by_tls_instead(address: str, home: str, asked: str) -> None:
    assert str(upgraded(parse_url(address), parse_url(home))) == asked


def test_a_token_server_that_has_moved_is_followed_without_the_password() -> None:
    seen: list[tuple[str, str | None]] = []

    with (
        quirky_registry(lambda query, go: go(), api=False) as running,
        fault_proxy(running.host) as other,
        fault_proxy(running.host) as front,
    ):
        elsewhere = f"http://{other.host}/token?scope=repository:q/x:pull"
        front.faults += [Fault("GET", "/token", status=307, headers=(("Location", elsewhere),))]
        running.challenge = lambda text: text.replace(running.host, front.host)
        ours = repository(running.host)
        assert ours.get_manifest("v1") is None
        seen += [(each.path, each.headers.get("authorization")) for each in other.seen]
    assert [path.partition("?")[0] for path, _ in seen] == ["/token"]
    assert seen[0][1] is None, "another host is given no password"


@pytest.mark.parametrize("media_type", [LAYER, MediaType.LAYER_GZIP])
@pytest.mark.parametrize("framed", [True, False])
def test_a_blob_compressed_on_its_way_is_what_its_digest_names(
    media_type: str, framed: bool
) -> None:
    blob = gzip.compress(os.urandom(9000)) if media_type.endswith("gzip") else b"plain" * 9000

    def quirk(query: Any, go: Any) -> Reply:
        reply: Reply = go()
        if query.method != "GET" or query.kind != "blobs":
            return reply
        zipped = not media_type.endswith("gzip")
        reply = replace(reply, body=gzip.compress(reply.body) if zipped else reply.body)
        reply = reply.but(Content_Encoding="gzip")
        return reply if framed else reply.but(X_No_Length="1")

    with quirky_registry(quirk, api=False) as running:
        ours = repository(running.host)
        stored = ours.push_stream(lambda: [blob], media_type)
        assert b"".join(ours.open_blob(stored)) == blob
        assert ours.read_range_unverified(stored, 100, 50) == blob[100:150]


def test_a_registry_that_says_it_stored_another_blob_is_asked_for_ours() -> None:
    """A header may be wrong; a blob that is not there was altered on its way."""
    other = f"sha256:{'ab' * 32}"
    lost: list[str] = []

    def quirk(query: Any, go: Any) -> Reply:
        reply: Reply = go()
        if query.kind == "blobs" and query.name in lost:
            return Reply(404)
        put = query.method == "PUT" and query.kind == "blobs"
        return reply.but(Docker_Content_Digest=other) if put else reply

    with quirky_registry(quirk, api=False) as running:
        ours = repository(running.host)
        assert ours.has_blob(ours.push_stream(lambda: [b"kept"], LAYER).digest)
        lost.append(str(Digest.of(b"lost")))
        with pytest.raises(CheckedFalse, match=f"says it stored {other}, but {lost[0]} was sent"):
            ours.push_stream(lambda: [b"lost"], LAYER)


def test_what_is_too_large_for_one_request_is_sent_in_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """https://github.com/podman-container-tools/podman/issues/24919"""
    monkeypatch.setattr("nix_seed.registry.blobs._PART", 300)
    sent: list[tuple[str, int, str]] = []

    def quirk(query: Any, go: Any) -> Reply:
        if query.method in ("PUT", "PATCH") and query.kind == "blobs":
            sent.append((query.method, len(query.body), query.headers.get("content-range", "")))
        return Reply(413) if len(query.body) > limit else go()

    def pushed(data: bytes) -> Descriptor:
        found = Descriptor(LAYER, Digest.of(data), len(data))
        ours.push_blob(found, lambda: [data])
        assert b"".join(ours.open_blob(found)) == data
        return found

    with quirky_registry(quirk, api=False) as running:
        ours, limit = repository(running.host), 400
        data = os.urandom(900)
        pushed(data)
        parts = [("PATCH", 300, "0-299"), ("PATCH", 300, "300-599"), ("PATCH", 300, "600-899")]
        assert sent == [("PUT", 900, ""), *parts, ("PUT", 0, "")]
        # What is as large is not tried at once again; what is small goes in one request.
        sent.clear()
        pushed(data + b"x")
        assert sent == [*parts, ("PATCH", 1, "900-900"), ("PUT", 0, "")]
        sent.clear()
        pushed(b"small")
        assert sent == [("PUT", 5, "")]
        other = Descriptor(LAYER, Digest.of(b"other"), 900)
        with pytest.raises(CheckedFalse, match="the local data has other bytes"):
            ours.push_blob(other, lambda: [data])
        limit = 200
        with pytest.raises(CouldNotCheck, match="answered 413") as caught:
            ours.push_blob(Descriptor(LAYER, Digest.of(data), 900), lambda: [data])
        assert "something before the registry limits" in (caught.value.hint or "")
        # A stream that comes once cannot be sent again.
        with pytest.raises(CouldNotCheck, match="answered 413"):
            ours.push_stream(lambda: [data], LAYER)


def test_what_expands_without_end_is_read_in_pieces() -> None:
    bomb = gzip.compress(bytes(64 << 20), 9)

    def quirk(query: Any, go: Any) -> Reply:
        if query.method == "GET" and query.kind == "blobs":
            return Reply(200, {"Content-Encoding": "gzip"}, bomb)
        return go()  # type: ignore[no-any-return]

    with quirky_registry(quirk, api=False) as running:
        ours = repository(running.host)
        stored = ours.push_stream(lambda: [b"small"], LAYER)
        tracemalloc.start()
        with pytest.raises(CheckedFalse, match="is longer than the 5 bytes it has"):
            b"".join(ours.open_blob(stored))
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
        tracemalloc.stop()


def test_a_login_page_is_no_manifest_and_proves_nothing() -> None:
    page = Reply(200, {"Content-Type": "text/html"}, b"<html>Sign in</html>")
    with quirky_registry(lambda query, go: page, api=False) as running:
        for name in ("v1", Digest("ab" * 32)):
            with pytest.raises(CouldNotCheck, match="a web page came in its place"):
                repository(running.host).get_manifest(name)


def test_a_page_that_is_not_there_does_not_end_a_list() -> None:
    def quirk(query: Any, go: Any) -> Reply:
        if "next" in query.url:
            return Reply(404)
        return Reply(200, {"Link": '</v2/q/x/tags/list?next=1>; rel="next"'}, b'{"tags":["v1"]}')

    with (
        quirky_registry(quirk, api=False) as running,
        pytest.raises(CouldNotCheck, match="page 2 of the list is not there"),
    ):
        repository(running.host).list_tags()


@pytest.mark.parametrize("late", [3600, 2])
def test_a_limit_that_names_a_date_is_waited_for_or_said(late: int) -> None:
    """Docker Hub and the proxies before registries name a date as well as seconds."""
    slept: list[float] = []
    until = format_datetime(datetime.now(UTC) + timedelta(seconds=late), usegmt=True)
    patience = replace(QUICK, sleep=slept.append)

    def quirk(query: Any, go: Any) -> Reply:
        first = len(query.server.seen) == 1
        return Reply(429, {"Retry-After": until}) if first else go()

    with quirky_registry(quirk, api=False) as running:
        asked = Registry(running.host, keyring=US, patience=patience).repository("q/x")
        if late > patience.longest_asked:
            with pytest.raises(CouldNotCheck, match="answered 429"):
                asked.get_manifest("v1")
            assert slept == []
        else:
            assert asked.get_manifest("v1") is None
            assert slept[0] >= late - 1


@pytest.mark.parametrize(
    ("until", "seconds"), [("00:01:30", 90), ("00:00:00", 0), ("23:59:59", 86399)]
)
def test_how_long_is_counted_by_the_clock_that_names_the_date(until: str, seconds: int) -> None:
    """This machine's may be a day ahead, and would not wait, or a day behind."""
    headers = {
        "Date": "Sat, 31 Jan 2026 00:00:00 GMT",
        "Retry-After": f"Sat, 31 Jan 2026 {until} GMT",
    }
    assert asked_to_wait(headers) == seconds
    assert asked_to_wait(headers | {"Retry-After": "7"}) == 7
    assert asked_to_wait(headers | {"Retry-After": "soon"}) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Bearer realm=https://cp.icr.io/token, service=registry",
            [Challenge("bearer", {"realm": "https://cp.icr.io/token", "service": "registry"})],
        ),
        (
            'Bearer realm="https://a/t" service="s" scope="x"',
            [Challenge("bearer", {"realm": "https://a/t", "service": "s", "scope": "x"})],
        ),
        (
            'bEaReR realm="https://a/t",,service="s",',
            [Challenge("bearer", {"realm": "https://a/t", "service": "s"})],
        ),
        (
            'Negotiate YII+a/b==, BASIC realm="Nexus"',
            [Challenge("negotiate", {}), Challenge("basic", {"realm": "Nexus"})],
        ),
        (
            'Basic realm="x" Bearer realm="https://a/t"',
            [Challenge("basic", {"realm": "x"}), Challenge("bearer", {"realm": "https://a/t"})],
        ),
    ],
)
def test_challenges_as_servers_spell_them(text: str, expected: list[Challenge]) -> None:
    assert list(parse_challenges(text)) == expected


def entry(username: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{username}:pw".encode()).decode()}


def named(keyring: Keyring, registry: str, repository: str = "o/r") -> str | None:
    found = keyring.find(registry, repository)
    return None if found is None else found.username


def written(path: Path, config: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(config))
    return path


def test_files_of_credentials_as_they_are_found(tmp_path: Path) -> None:
    auths = {
        "https://Registry.Example:5000/v2/": entry("port"),
        "http://plain.example": entry("plain"),
        "[::1]:5000": entry("six"),
    }
    written(tmp_path / ".docker/config.json", {"auths": auths})
    ours = Keyring({}, tmp_path)
    assert named(ours, "registry.example:5000") == "port"
    assert named(ours, "registry.example") is None
    assert named(ours, "plain.example") == "plain"
    assert named(ours, "[::1]:5000") == "six"


def test_a_helper_is_asked_for_the_key_it_is_named_by(tmp_path: Path) -> None:
    """https://github.com/regclient/regclient/pull/246"""
    keys = {"https://index.docker.io/v1/": "hub", "https://ecr.example": "ecr"}
    written(tmp_path / ".docker/config.json", {"credHelpers": keys})
    asked: list[tuple[str, str]] = []

    def helper(name: str, server: str) -> bytes:
        asked.append((name, server))
        return b'{"Username": "u", "Secret": "s"}'

    ours = Keyring({}, tmp_path, helper=helper)
    assert named(ours, "docker.io") == named(ours, "ecr.example") == "u"
    assert asked == [("hub", "https://index.docker.io/v1/"), ("ecr", "https://ecr.example")]


@pytest.mark.parametrize(
    "environ",
    [
        {"XDG_RUNTIME_DIR": "", "XDG_CONFIG_HOME": "", "REGISTRY_AUTH_FILE": ""},
        {"XDG_RUNTIME_DIR": ".", "XDG_CONFIG_HOME": "x"},
    ],
)
def test_no_file_of_where_we_stand_gives_credentials(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkout may hold containers/auth.json, which would name programs to run."""
    for directory in ("", "x"):
        written(tmp_path / "here" / directory / "containers/auth.json", {"credsStore": "evil"})
    monkeypatch.chdir(tmp_path / "here")
    assert named(Keyring(environ, tmp_path / "home"), "ghcr.io") is None


def test_the_variable_comes_after_what_was_logged_in_to(tmp_path: Path) -> None:
    """https://github.com/docker/cli/issues/6156"""
    text = json.dumps({"auths": {"a.io": entry("job"), "b.io": entry("job")}})
    ours = Keyring({"DOCKER_AUTH_CONFIG": text}, tmp_path)
    written(tmp_path / ".docker/config.json", {"auths": {"a.io": entry("login")}})
    assert (named(ours, "a.io"), named(ours, "b.io")) == ("login", "job")


def test_root_without_a_session_finds_what_podman_login_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """https://github.com/podman-container-tools/buildah/issues/5333"""
    monkeypatch.setattr("nix_seed.registry.credentials._RUN", str(tmp_path / "run"))
    written(tmp_path / f"run/{os.getuid()}/auth.json", {"auths": {"a.io": entry("p")}})
    assert named(Keyring({}, tmp_path), "a.io") == "p"
    assert named(Keyring({"XDG_RUNTIME_DIR": str(tmp_path)}, tmp_path), "a.io") is None


def test_a_file_nested_too_deeply_is_named(tmp_path: Path) -> None:
    path = tmp_path / ".docker/config.json"
    path.parent.mkdir()
    path.write_text('{"auths":' + "[" * 200_000)
    with pytest.raises(Exception, match="is not valid JSON"):
        named(Keyring({}, tmp_path), "a.io")


def test_a_registry_at_an_address_of_version_six() -> None:
    if not socket.has_ipv6:
        pytest.skip("needs IPv6")
    hasty = Patience(attempts=1, connect=0.5)
    asked = Registry("[::1]:9", keyring=Keyring(), patience=hasty).repository("q/x")
    with pytest.raises(CouldNotCheck, match=r"https://\[::1\]:9/v2/: no connection could be made"):
        asked.get_manifest("v1")


@pytest.mark.parametrize("status", [200, 403, 404, 502])
def test_a_web_page_is_named_with_its_title_and_what_to_do(status: int) -> None:
    """A gateway's refusal is not the registry's: another login does not help."""
    text = "<html><head><title>Access denied &amp; logged\n</title></head><body>…</body></html>"
    with quirky_registry(lambda query, go: page(status, text), api=False) as running:
        ours = repository(running.host)
        with pytest.raises(CouldNotCheck) as caught:
            ours.check_writable()
    said = f"(it sent a web page), answered {status}: Access denied & logged"
    assert said in caught.value.message
    hint = caught.value.hint or ""
    assert ("try again later" if status == 502 else "See what a browser shows") in hint


def test_a_password_that_a_proxy_asks_for_by_a_page_is_asked_for() -> None:
    asks = page(401).but(WWW_Authenticate='Basic realm="gateway"')
    with (
        quirky_registry(lambda query, go: asks, api=False) as running,
        pytest.raises(Denied) as caught,
    ):
        repository(running.host, Keyring()).check_writable()
    assert "log in with" in (caught.value.hint or "")


def test_a_document_that_a_registry_finds_invalid_has_a_reason() -> None:
    def quirk(query: Any, go: Any) -> Reply:
        took = query.method == "PUT" and query.kind == "manifests"
        return refuse(400, "MANIFEST_INVALID") if took else go()

    with quirky_registry(quirk, api=False) as running, pytest.raises(NotTaken) as caught:
        repository(running.host).put_manifest(Index(()).dump(), MediaType.INDEX, "v1")
    assert "does not know documents of this kind" in (caught.value.hint or "")


def test_what_is_listed_and_is_no_manifest_hides_no_other() -> None:
    subject, kind, broken = Digest("ab" * 32), "application/vnd.test.a", b'{"schemaVersion":true}'
    with quirky_registry(lambda query, go: go(), api=False) as running:
        ours, listed = repository(running.host), list[Descriptor]()
        for item in (broken, Manifest(EMPTY_BLOB, (EMPTY_BLOB,), artifact_type=kind).dump()):
            ours.push_blob(EMPTY_BLOB, lambda: [b"{}"])
            ours.put_manifest(item, MediaType.MANIFEST)
            listed.append(Descriptor.of(MediaType.MANIFEST, item))
        ours.put_manifest(Index(tuple(listed)).dump(), MediaType.INDEX, fallback_tag(subject))
        assert [each.digest for each in ours.referrers(subject, kind)] == [listed[1].digest]


def test_a_proxy_whose_client_went_away_is_asked_again() -> None:
    def quirk(query: Any, go: Any) -> Reply:
        return page(499) if len(query.server.seen) == 1 else go()

    with quirky_registry(quirk, api=False) as running:
        assert repository(running.host).list_tags() == ()


EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n"


def test_what_comes_before_an_answer_is_passed_over() -> None:
    with answering(EARLY + b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"tags":["v1"]}'):
        assert repository("registry.example").list_tags() == ("v1",)


@pytest.mark.parametrize("before", [EARLY, b"HTTP/1.1 100 Continue\r\n\r\n"])
def test_a_server_that_never_comes_to_its_answer_is_left(before: bytes) -> None:
    with answering(before * 1000), pytest.raises(CouldNotCheck, match="interim answers"):
        repository("registry.example").list_tags()
