"""A real registry behind a proxy that lies: nothing it says turns a no into a yes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pytest

from nix_seed.core.errors import CheckedFalse
from nix_seed.formats.oci.manifest import Index, fallback_tag
from nix_seed.formats.oci.reference import parse_reference
from nix_seed.registry.credentials import Keyring
from nix_seed.registry.errors import Patience
from nix_seed.registry.open import Stores
from nix_seed.release.load import load_policy, verifiers_of
from nix_seed.release.rules.answer import Verification
from nix_seed.release.verify import Query, verify_image
from support.faults import Fault, Proxy, fault_proxy
from support.registries import Running, docker_registry, referrers_registry
from support.repositories import Registry
from support.trust import COMMIT, World

QUICK = Patience(attempts=2, base=0.01)
NUMBERS = count()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with docker_registry(tmp_path_factory.mktemp("registry"), password=False) as registry:
        yield registry


@pytest.fixture
def world(running: Running, tmp_path: Path) -> World:
    return in_registry(running, tmp_path)


def in_registry(running: Running, root: Path) -> World:
    registry = Registry(running.host, keyring=Keyring(), patience=QUICK)
    return World(root, registry.repository(f"attacked/{next(NUMBERS)}"))


@pytest.fixture
def proxy(running: Running) -> Iterator[Proxy]:
    with fault_proxy(running.host) as proxy:
        yield proxy


def verify(world: World, proxy: Proxy | None = None) -> Verification:
    """Verify, through the *proxy* if there is one."""
    loaded = load_policy(world.write_policy(), datetime.now(UTC))
    reference = world.reference
    if proxy is not None:
        reference = reference.replace(proxy.upstream, proxy.host)
    by = verifiers_of(loaded, Stores(Keyring(), patience=QUICK))
    return verify_image(by, parse_reference(reference), Query(COMMIT))


def test_honest(world: World, proxy: Proxy) -> None:
    world.publish("alice", "bob")
    assert verify(world, proxy).reason == "2 builders agree (alice, bob), 2 are wanted"


def test_a_dissent_is_found_by_its_commit(world: World) -> None:
    world.publish("alice", "bob")
    world.publish("carol", image=world.other)
    found = verify(world)
    assert found.exit_code == 1
    detail = found.images[0].dissents[0].difference
    assert detail is not None
    assert [path.path.name for path in detail.paths] == ["gcc-12.2.0"]


def test_another_manifest_under_the_tag(world: World, proxy: Proxy) -> None:
    """A registry may serve any image under a tag: the builders' word does not follow it."""
    world.publish("alice", "bob")
    other = world.store.get_manifest(world.other.descriptor.digest)
    assert other is not None
    kind = ("Content-Type", other.descriptor.media_type)
    proxy.set(Fault("GET", "/manifests/seed$", None, status=200, headers=(kind,), body=other.body))
    found = verify(world, proxy)
    assert found.exit_code == 1
    assert found.reason == "alice, bob built something else from this commit"


def test_other_bytes_under_a_digest(world: World, proxy: Proxy) -> None:
    world.publish("alice", "bob")
    digest = world.image.descriptor.digest
    proxy.set(Fault("GET", f"/manifests/sha256[^/]*{digest.hex}$", None, flip=100))
    with pytest.raises(CheckedFalse):
        verify(world, proxy)


def test_flipped_bundles(world: World, proxy: Proxy) -> None:
    """Every blob is served with one bit turned: none of them is evidence."""
    world.publish("alice", "bob")
    proxy.set(Fault("GET", "/blobs/", None, skip=1, flip=50))
    found = verify(world, proxy)
    assert found.exit_code in (1, 3)
    assert not found


def test_the_list_beside_the_image_is_hidden(world: World, proxy: Proxy) -> None:
    world.publish("alice", "bob")
    tag = fallback_tag(world.image.descriptor.digest)
    proxy.set(Fault("GET", f"/manifests/{tag}$", None, status=404))
    assert verify(world, proxy), "what is listed under the commit is enough"


def test_both_lists_are_hidden(world: World, proxy: Proxy) -> None:
    world.publish("alice", "bob")
    proxy.set(Fault("GET", "/manifests/sha256-", None, status=404))
    found = verify(world, proxy)
    assert found.exit_code == 1
    assert found.reason == "0 of the 2 builders wanted agree"


def test_a_dissent_is_hidden_beside_its_image(world: World, proxy: Proxy) -> None:
    world.publish("alice", "bob")
    world.publish("carol", image=world.other)
    tag = fallback_tag(world.other.descriptor.digest)
    proxy.set(Fault("GET", f"/manifests/{tag}$", None, status=404))
    assert verify(world, proxy).reason == "carol built something else from this commit"


def test_the_lists_cannot_be_had(world: World, proxy: Proxy) -> None:
    world.publish("alice", "bob")
    proxy.set(Fault("GET", "/manifests/sha256-", None, status=503))
    found = verify(world, proxy)
    assert found.exit_code == 3
    assert found.reason.startswith("not everything could be checked")


def test_the_list_is_no_list(world: World, proxy: Proxy) -> None:
    world.publish("alice", "bob")
    kind = ("Content-Type", "application/vnd.oci.image.index.v1+json")
    proxy.set(Fault("GET", "/manifests/sha256-", None, status=200, headers=(kind,), body=b"[]"))
    found = verify(world, proxy)
    assert found.exit_code == 1
    assert "an object is wanted, not list" in found.reason


def test_one_bundle_cannot_be_had(world: World, proxy: Proxy) -> None:
    """It may be a dissent: not even a quorum of the others is a yes."""
    world.publish("alice", "bob", "carol")
    proxy.set(Fault("GET", "/blobs/", None, skip=1, status=503))
    found = verify(world, proxy)
    assert found.exit_code == 3
    assert found.reason.startswith("not everything could be checked")


@pytest.mark.interop
def test_referrers_in_one_of_two_places(tmp_path: Path) -> None:
    """In a registry with the API, either list may be emptied: the other one is read as well."""
    with referrers_registry(tmp_path) as running:
        world = in_registry(running, tmp_path / "world")
        world.publish("alice", "bob")
        for subject in (world.image.descriptor.digest, COMMIT.key):
            world.store.put_manifest(
                Index(()).dump(),
                "application/vnd.oci.image.index.v1+json",
                fallback_tag(subject),
            )
        assert verify(world), "the API still lists them"
        with fault_proxy(running.host) as proxy:
            proxy.set(Fault("GET", "/referrers/", None, status=404))
            assert verify(world, proxy).exit_code == 1
