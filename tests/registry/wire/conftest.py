"""A real registry behind a proxy that does what goes wrong, and a client of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from nix_seed.formats.oci.manifest import Descriptor, MediaType
from nix_seed.registry.client import Repository
from nix_seed.registry.errors import Patience
from support.faults import DATA, US, Proxy, fault_proxy
from support.registries import Running, docker_registry
from support.repositories import Registry


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture
def proxy(running: Running) -> Iterator[Proxy]:
    with fault_proxy(running.host) as made:
        yield made


@pytest.fixture
def slept() -> list[float]:
    return []


@pytest.fixture
def patience(slept: list[float]) -> Patience:
    return Patience(attempts=4, base=1.0, sleep=slept.append, chance=lambda: 0.5)


@pytest.fixture
def repository(proxy: Proxy, patience: Patience, request: pytest.FixtureRequest) -> Repository:
    name = "test/" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]
    return Registry(proxy.host, keyring=US, patience=patience).repository(name)


@pytest.fixture
def stored(repository: Repository, proxy: Proxy) -> Descriptor:
    descriptor = repository.push_stream(lambda: [DATA], MediaType.LAYER)
    proxy.seen.clear()
    return descriptor
