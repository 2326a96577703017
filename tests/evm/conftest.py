"""The same tests on both back ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.chains import Anvil, Chain, InProcess, anvil
from support.evm import Evm, release


@pytest.fixture(scope="session")
def node() -> Iterator[Anvil]:
    """A real node, over JSON-RPC."""
    with anvil() as running:
        yield running


@pytest.fixture(scope="session", params=["eth-tester", "anvil"])
def chain(request: pytest.FixtureRequest) -> Chain:
    if request.param == "eth-tester":
        return InProcess()
    found: Chain = request.getfixturevalue("node")
    return found


@pytest.fixture
def evm(chain: Chain) -> Evm:
    return Evm(chain)


@pytest.fixture(scope="module")
def world(node: Anvil) -> Evm:
    """A contract with three entries."""
    evm = Evm(node)
    for name in "abc":
        evm.publish(release(name), "alice", "bob")
    return evm
