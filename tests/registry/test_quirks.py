"""Every verb against every quirk: it works, or says what to do. Nothing ends unexpectedly."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from nix_seed.cli.image.index import command as index
from nix_seed.cli.image.inspect import command as inspect
from nix_seed.cli.image.lock import command as lock
from nix_seed.cli.registry.pull import command as pull
from nix_seed.cli.registry.push import command as push
from nix_seed.core.errors import CouldNotCheck, NixSeedError
from nix_seed.formats.oci.reference import parse_reference
from nix_seed.registry.client import Repository
from nix_seed.registry.credentials import Credential, Keyring
from nix_seed.registry.errors import Denied, Patience
from nix_seed.registry.open import Stores
from nix_seed.release.load import load_policy, verifiers_of
from nix_seed.release.verify import Query, verify_image
from support.families import FAMILIES, Family
from support.quirks import PASSWORD, USER, Quirky, Reply, quirky_registry, refuse
from support.repositories import Registry
from support.seed_images import seed_image
from support.trust import COMMIT, World

US = Keyring(given=Credential("the test", USER, PASSWORD))
QUICK = Patience(attempts=4, base=0.001, stall=5)
HASTY = Patience(attempts=2, base=0.001, stall=0.2)
SYSTEMS = ("x86_64-linux", "aarch64-linux")
WRITABLE = sorted(name for name, each in FAMILIES.items() if "push" not in dict(each.refused))


@pytest.fixture(params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[request.param]


@pytest.fixture
def registry(family: Family, monkeypatch: pytest.MonkeyPatch) -> Iterator[Quirky]:
    monkeypatch.setenv("NIX_SEED_REGISTRY_USERNAME", USER)
    monkeypatch.setenv("NIX_SEED_REGISTRY_PASSWORD", PASSWORD)
    with quirky_registry(family.quirk, api=family.api, **family.server) as running:
        yield running


def repository(running: Quirky, path: str, keyring: Keyring = US) -> Repository:
    return Registry(running.host, keyring=keyring, patience=QUICK).repository(path)


def run(command: Any, *arguments: str) -> Result:
    done = CliRunner().invoke(command, arguments)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def test_push_exists_pull_index_lock(family: Family, registry: Quirky, tmp_path: Path) -> None:
    asked = repository(registry, "q/seed")
    assert asked.head_manifest("v1") is None, "exists: not there is no error"
    assert asked.head_manifest("v1", writing=True) is None
    for system in SYSTEMS:
        seed_image(tmp_path / "a", system, system=system)
    refused = dict(family.refused).get("push")
    if refused is not None:
        with pytest.raises(CouldNotCheck) as caught:
            run(push, f"oci:{tmp_path / 'a'}:{SYSTEMS[0]}", f"{registry.host}/q/seed:v1")
        assert refused in f"{caught.value.message} {caught.value.hint}"
        return
    for system in SYSTEMS:
        run(push, f"oci:{tmp_path / 'a'}:{system}", f"{registry.host}/q/seed:{system}")
        run(push, f"oci:{tmp_path / 'a'}:{system}", f"{registry.host}/q/seed:{system}")
    assert asked.head_manifest(SYSTEMS[0]) is not None
    fetched = asked.get_manifest(SYSTEMS[0])
    assert fetched is not None
    there = fetched.descriptor
    images = [f"{registry.host}/q/seed:{system}" for system in SYSTEMS]
    run(index, f"{registry.host}/q/seed:all", *images)
    run(lock, f"{registry.host}/q/seed:all", "-o", str(tmp_path / "seed.lock"))
    locked = json.loads((tmp_path / "seed.lock").read_text())["systems"]
    assert locked[SYSTEMS[0]]["digest"] == str(there.digest)
    run(push, images[0], f"{registry.host}/q/copy:v1")
    run(pull, f"{registry.host}/q/copy:v1", f"oci:{tmp_path / 'b'}")
    shown = json.loads(run(inspect, f"oci:{tmp_path / 'b'}", "--json").stdout)
    assert shown["digest"] == str(there.digest)


@pytest.mark.parametrize("family", WRITABLE, indirect=True)
def test_attest_and_verify(family: Family, registry: Quirky, tmp_path: Path) -> None:
    refused = dict(family.refused)
    world = World(tmp_path, repository(registry, "q/attested"))
    subject = world.image.descriptor.digest
    if "attest" in refused:
        if "verify" not in refused:
            # What cannot be listed beside the first is said before the second is signed.
            world.publish("alice")
            with pytest.raises(CouldNotCheck) as caught:
                world.store.check_attachable(subject)
        else:
            with pytest.raises(CouldNotCheck) as caught:
                publish_both(world)
        said = f"{caught.value.message} {caught.value.hint}"
        assert refused["attest"].replace("\\", "") in said
        if "verify" not in refused:
            assert len(world.store.referrers(subject)) == 1, "nothing was begun that could not end"
    else:
        publish_both(world)
        assert len(world.store.referrers(subject)) == 2
        verify(world)
    if "verify" in refused:
        with pytest.raises(CouldNotCheck, match=refused["verify"]):
            world.store.referrers(subject)


def publish_both(world: World) -> None:
    for name in ("alice", "bob"):
        world.store.check_attachable(world.image.descriptor.digest)
        world.publish(name)


def verify(world: World) -> None:
    loaded = load_policy(world.write_policy(), datetime.now(UTC))
    by = verifiers_of(loaded, Stores(US, patience=QUICK))
    found = verify_image(by, parse_reference(world.reference), Query(COMMIT))
    assert found, found


def test_there_are_enough_and_each_is_reported() -> None:
    assert len(FAMILIES) >= 30
    assert all(family.report.count("/") == 6 for family in FAMILIES.values())


def test_a_stranger_is_still_told_to_log_in() -> None:
    def quirk(query: Any, go: Any) -> Reply:
        return refuse(403, "DENIED")

    with (
        quirky_registry(quirk, api=False) as running,
        pytest.raises(Denied, match="it needs pull on q/x"),
    ):
        repository(running, "q/x", Keyring()).head_manifest("v1")


def test_every_page_is_read_and_a_circle_ends() -> None:
    names = [f"t{number}" for number in range(5)]
    quay = FAMILIES["quay-links-pages-without-brackets"].quirk
    with quirky_registry(quay, api=False) as running:
        asked = repository(running, "q/x")
        for name in names:
            asked.put_manifest(b'{"schemaVersion":2}', "x", name)
        assert list(asked.list_tags()) == names

    def circle(query: Any, go: Any) -> Reply:
        reply: Reply = go()
        return reply.but(Link=f'<{query.url}>; rel="next"') if query.kind == "tags" else reply

    with quirky_registry(circle, api=False) as running:
        asked = repository(running, "q/x")
        asked.put_manifest(b'{"schemaVersion":2}', "x", "v1")
        with pytest.raises(CouldNotCheck, match="its pages lead in a circle"):
            asked.list_tags()


def test_a_long_link_and_endless_lists_are_read_in_bounds() -> None:
    def long(query: Any, go: Any) -> Reply:
        return Reply(200, {"Link": 'a="' * 20_000}, b'{"name":"q/x","tags":["v1"]}')

    with quirky_registry(long, api=False) as running:
        asked, start = repository(running, "q/x"), time.process_time()
        assert asked.list_tags() == ("v1",)
        assert time.process_time() - start < 2

    def endless(query: Any, go: Any) -> Reply:
        more = f"/v2/q/x/tags/list?n={len(query.server.seen)}"
        body = b'{"name":"q/x","tags":["v1"],"x":"' + b"x" * ((4 << 20) - 64) + b'"}'
        return Reply(200, {"Link": f'<{more}>; rel="next"'}, body)

    with quirky_registry(endless, api=False) as running:
        with pytest.raises(CouldNotCheck, match="too long to be read"):
            repository(running, "q/x").list_tags()
        assert len(running.seen) < 20


def test_a_stranger_who_asks_too_much_is_told_to_log_in() -> None:
    with quirky_registry(lambda query, go: Reply(429), api=False) as running:
        asked = Registry(running.host, keyring=Keyring(), patience=HASTY).repository("q/x")
        with pytest.raises(CouldNotCheck) as caught:
            asked.get_manifest("v1")
        assert caught.value.hint == "it limits what strangers may ask; log in, or try again later"


@pytest.mark.parametrize(
    "reply",
    [
        Reply(500, {}, b'{"errors":["x"]}'),
        Reply(404, {}, b'{"errors":["x"]}'),
        Reply(400, {}, b'{"errors":7}'),
        Reply(400, {}, b"[" * 100_000),
        Reply(307, {"Location": "https://[x"}),
        Reply(307, {"Location": "http://other\\@home/"}),
        Reply(307, {"Location": "ftp://x/"}),
        Reply(200, {"Content-Length": "\xb2"}, b"{}"),
        Reply(200, {"Content-Length": "9" * 5000}, b"{}"),
        Reply(200, {"Docker-Content-Digest": "sha256:\xb2"}, b"{}"),
        Reply(200, {"Link": '<https://[x>; rel="next"'}, b'{"tags":[]}'),
        Reply(200, {"Link": '<http://u@other/>; rel="next"'}, b'{"tags":[]}'),
        Reply(200, {}, b'{"tags":{"a":1}}'),
        Reply(429, {"Retry-After": "Mon, 01 Jan 99999 00:00:00 GMT"}),
        Reply(401, {"WWW-Authenticate": 'Bearer realm="http://other\\@home/"'}),
        Reply(401, {"WWW-Authenticate": 'Bearer realm="https://[x"'}),
        Reply(401, {"WWW-Authenticate": 'Bearer realm="http://registry.example/token"'}),
    ],
)
def test_no_answer_ends_unexpectedly(reply: Reply) -> None:
    with quirky_registry(lambda query, go: reply, api=True) as running:
        asked = Registry(running.host, keyring=US, patience=HASTY).repository("q/x")
        for question in (
            lambda: asked.head_manifest("v1"),
            lambda: asked.get_manifest("v1"),
            asked.list_tags,
            lambda: asked.push_stream(lambda: [b"x"], "x"),
        ):
            with suppress(NixSeedError):
                question()


def test_an_error_that_repeats_our_credentials_is_not_printed() -> None:
    def quirk(query: Any, go: Any) -> Reply:
        return refuse(418, "TEAPOT", f"you sent {query.headers['authorization']} and {PASSWORD}")

    with quirky_registry(quirk, api=True) as running:
        asked = repository(running, "q/x")
        with pytest.raises(CouldNotCheck, match="repeat our credentials") as caught:
            asked.get_manifest("v1")
        assert PASSWORD not in str(caught.value.message)
        assert "Bearer" not in str(caught.value.message)
