"""Tokens, challenges and scopes, with a registry that accepts nothing but tokens."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from nix_seed.formats.oci.manifest import MediaType
from nix_seed.registry.auth import Challenge, parse_challenges
from nix_seed.registry.client import Repository
from nix_seed.registry.credentials import Credential, Keyring
from nix_seed.registry.errors import Denied, Patience
from support.faults import fault_proxy
from support.registries import PASSWORD, USER, Running, docker_registry
from support.repositories import Registry
from support.tokens import REFRESH_TOKEN, TokenServer, token_server
from support.web import PlainHandler, answering

US = Keyring(given=Credential("the test", USER, PASSWORD))
QUICK = Patience(attempts=3, base=0.01)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, TokenServer]]:
    root = tmp_path_factory.mktemp("tokens")
    with (
        token_server(root / "token") as tokens,
        docker_registry(root / "registry", tokens=tokens.trust) as running,
    ):
        yield running, tokens


@pytest.fixture
def tokens(place: tuple[Running, TokenServer]) -> Iterator[TokenServer]:
    server = place[1]
    server.asked.clear()
    yield server
    server.life, server.told, server.anonymous, server.fail = 300, 300, (), []


def repository(place: tuple[Running, TokenServer], keyring: Keyring = US) -> Repository:
    return Registry(place[0].host, keyring=keyring, patience=QUICK).repository("o/r")


def test_one_token_a_scope(place: tuple[Running, TokenServer], tokens: TokenServer) -> None:
    ours = repository(place)
    for text in (b"a", b"b", b"c"):
        stored = ours.push_stream(lambda text=text: [text], MediaType.LAYER)  # type: ignore[misc]
        assert b"".join(ours.open_blob(stored)) == text
    assert [asked["scope"] for asked in tokens.asked] == [
        ["repository:o/r:pull,push"],
        ["repository:o/r:pull"],
    ]
    assert tokens.asked[0]["service"] == ["test-registry"]


@pytest.mark.parametrize("status", [401, 403])
def test_a_password_that_expired_is_asked_for_again(tmp_path: Path, status: int) -> None:
    """https://github.com/bazel-contrib/rules_img/issues/715"""
    clock, given = [0.0], ["old"]
    config = tmp_path / ".docker/config.json"
    config.parent.mkdir()
    config.write_text('{"credsStore": "ecr"}')

    def helper(name: str, server: str) -> bytes:
        return json.dumps({"Username": USER, "Secret": given[-1]}).encode()

    def answer(said: str | None) -> int:
        right = base64.b64encode(f"{USER}:{valid}".encode()).decode()
        return 404 if said == f"Basic {right}" else status if said else 401

    class Ecr(PlainHandler):
        def do_GET(self) -> None:
            self.send_response(answer(self.headers.get("Authorization")))
            self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
            self.send_header("WWW-Authenticate", 'Basic realm="ecr"')
            self.send_header("Content-Length", "0")
            self.end_headers()

    patience = replace(QUICK, monotonic=lambda: clock[0])
    with answering(Ecr) as server:
        host, valid = f"127.0.0.1:{server.server_port}", "old"
        keyring = Keyring({}, tmp_path, helper=helper)
        ours = Registry(host, keyring=keyring, patience=patience).repository("o/r")
        assert ours.get_manifest("v1") is None
        valid = "new"
        with pytest.raises(Denied, match="denied"):
            ours.get_manifest("v1")
        given.append("new")
        clock[0] += 3600
        assert ours.get_manifest("v1") is None


def test_many_threads_ask_for_one_token(
    place: tuple[Running, TokenServer], tokens: TokenServer
) -> None:
    stored = repository(place).push_stream(lambda: [b"data"], MediaType.LAYER)
    tokens.asked.clear()
    ours = repository(place)
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ours.has_blob, [stored.digest] * 32))
    assert len(tokens.asked) == 1


def test_a_token_that_expires_midway_is_fetched_again(
    place: tuple[Running, TokenServer], tokens: TokenServer
) -> None:
    tokens.life, tokens.told = 5, 300  # long enough for the upload to begin on a busy machine
    ours = repository(place)
    sent = []

    def source() -> Iterator[bytes]:
        sent.append(1)
        yield b"first half"
        while time.time() <= tokens.ends:  # the token dies while this blob is on its way
            time.sleep(0.1)
        tokens.life = 300
        yield b"second half"

    stored = ours.push_stream(source, MediaType.LAYER)
    assert b"".join(ours.open_blob(stored)) == b"first halfsecond half"
    assert len(sent) == 1, "only the PUT after the stream is answered 401"
    assert len(tokens.asked) >= 2


def test_a_token_is_not_used_past_the_time_it_was_given(
    place: tuple[Running, TokenServer], tokens: TokenServer
) -> None:
    tokens.told = 1
    stored = repository(place).push_stream(lambda: [b"data"], MediaType.LAYER)
    tokens.asked.clear()
    ours = repository(place)
    assert ours.has_blob(stored.digest)
    time.sleep(1)
    assert ours.has_blob(stored.digest)
    assert len(tokens.asked) == 2


def test_a_stream_is_not_sent_in_vain_with_an_expired_token(
    place: tuple[Running, TokenServer], tokens: TokenServer
) -> None:
    tokens.told = 1
    with fault_proxy(place[0].host) as proxy:
        ours = Registry(proxy.host, keyring=US, patience=QUICK).repository("o/r")
        ours.push_stream(lambda: [b"one"], MediaType.LAYER)
        time.sleep(1)
        proxy.seen.clear()
        ours.push_stream(lambda: [b"two"], MediaType.LAYER)
        assert [seen.method for seen in proxy.seen] == ["POST", "PATCH", "PUT"]


def test_mounting_asks_for_both_repositories(
    place: tuple[Running, TokenServer], tokens: TokenServer
) -> None:
    stored = repository(place).push_stream(lambda: [b"shared"], MediaType.LAYER)
    other = Registry(place[0].host, keyring=US, patience=QUICK).repository("o/other")
    tokens.asked.clear()
    assert other.mount_blob(stored.digest, "o/r")
    assert tokens.asked[0]["scope"] == ["repository:o/other:pull,push", "repository:o/r:pull"]


def test_anonymous_pull_and_denied_push(
    place: tuple[Running, TokenServer], tokens: TokenServer
) -> None:
    stored = repository(place).push_stream(lambda: [b"public"], MediaType.LAYER)
    tokens.anonymous = ("pull",)
    stranger = repository(place, Keyring())
    assert b"".join(stranger.open_blob(stored)) == b"public"
    with pytest.raises(Denied, match="it needs pull and push on o/r, as anonymous"):
        stranger.push_stream(lambda: [b"x"], MediaType.LAYER)


def test_a_token_server_that_refuses_is_named(place: tuple[Running, TokenServer]) -> None:
    wrong = repository(place, Keyring(given=Credential("the test", USER, "hunter2")))
    with pytest.raises(Denied) as caught:
        wrong.get_manifest("v1")
    assert caught.value.message.startswith("asking 127.0.0.1:")
    assert "denied (401: UNAUTHORIZED who are you?); it needs pull on o/r" in caught.value.message


def test_a_token_server_in_trouble_is_asked_again(
    place: tuple[Running, TokenServer], tokens: TokenServer
) -> None:
    tokens.fail = [503, 429]
    assert repository(place).get_manifest("absent") is None
    assert len(tokens.asked) == 3


def test_identity_tokens_are_exchanged(
    place: tuple[Running, TokenServer], tokens: TokenServer
) -> None:
    keyring = Keyring(given=Credential("the test", identity_token=REFRESH_TOKEN))
    assert repository(place, keyring).get_manifest("absent") is None
    assert tokens.asked[0]["grant_type"] == ["refresh_token"]
    assert tokens.asked[0]["client_id"] == ["nix-seed"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("Basic", (Challenge("basic", {}),)),
        (
            'Bearer realm="https://a/t?x=1,2",service="s" , scope="repository:o/r:pull,push"',
            (
                Challenge(
                    "bearer",
                    {
                        "realm": "https://a/t?x=1,2",
                        "service": "s",
                        "scope": "repository:o/r:pull,push",
                    },
                ),
            ),
        ),
        (
            'Basic realm="a \\"b\\"", BEARER Realm=c',
            (Challenge("basic", {"realm": 'a "b"'}), Challenge("bearer", {"realm": "c"})),
        ),
        (
            'Negotiate, Basic realm="x"',
            (Challenge("negotiate", {}), Challenge("basic", {"realm": "x"})),
        ),
        ('Bearer realm="cut', (Challenge("bearer", {}),)),
    ],
)
def test_challenges(text: str, expected: tuple[Challenge, ...]) -> None:
    assert parse_challenges(text)[: len(expected)] == expected


def test_secrets_are_in_no_repr() -> None:
    credential = Credential("x", "me", "pw-secret", "id-secret", "bearer-secret")
    keyring = Keyring({"NIX_SEED_REGISTRY_PASSWORD": "env-secret"}, Path("/home/me"), credential)
    assert "secret" not in f"{credential!r} {credential} {keyring!r}"
