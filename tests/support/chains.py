"""Two EVM chains for the same tests: eth-tester with py-evm in process, and a real node, anvil."""

from __future__ import annotations

import fcntl
import platform
import shutil
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from nix_seed.evm.node import HttpProvider
from nix_seed.registry.errors import Patience
from support.apt import CACHE
from support.registries import free_port
from support.rekor import running

if TYPE_CHECKING:
    from web3.providers.base import BaseProvider

ANVIL = "1.7.1"
PATIENCE = Patience(attempts=2, base=0.05, connect=5.0, stall=60.0)
_ETHER = 10**18


class Chain(ABC):
    """A chain that tests may do anything to."""

    name: str
    chain_id: int
    url: str | None = None

    @property
    @abstractmethod
    def provider(self) -> BaseProvider:
        """What a client asks it through."""

    @abstractmethod
    def fund(self, account: str) -> None:
        """Give *account* what gas it may need."""

    @abstractmethod
    def mine(self, blocks: int = 1) -> None:
        """Make blocks."""

    @abstractmethod
    def keep(self) -> Any:
        """Return a mark to rewind to."""

    @abstractmethod
    def rewind(self, mark: Any) -> None:
        """Forget every block since *mark*, as a reorganisation does."""


class InProcess(Chain):
    name = "eth-tester"
    chain_id = 131277322940537  # what eth-tester's own genesis says

    def __init__(self) -> None:
        # Takes seconds, which those do without who only collect tests.
        from eth_tester import EthereumTester, PyEVMBackend  # type: ignore[import-untyped]
        from web3.providers.eth_tester import EthereumTesterProvider

        self._tester = EthereumTester(PyEVMBackend())
        self._provider = EthereumTesterProvider(self._tester)

    @property
    def provider(self) -> BaseProvider:
        return self._provider

    def fund(self, account: str) -> None:
        rich = self._tester.get_accounts()[0]
        self._tester.send_transaction(
            {"from": rich, "to": account, "value": 100 * _ETHER, "gas": 21000}
        )

    def mine(self, blocks: int = 1) -> None:
        self._tester.mine_blocks(blocks)

    def keep(self) -> Any:
        return self._tester.take_snapshot()

    def rewind(self, mark: Any) -> None:
        self._tester.revert_to_snapshot(mark)


class Anvil(Chain):
    name = "anvil"
    chain_id = 31337

    def __init__(self, url: str) -> None:
        self.url = url
        self._provider = HttpProvider(url, PATIENCE)

    @property
    def provider(self) -> BaseProvider:
        return self._provider

    def fund(self, account: str) -> None:
        self.do("anvil_setBalance", account, hex(100 * _ETHER))

    def mine(self, blocks: int = 1) -> None:
        self.do("anvil_mine", hex(blocks))

    def keep(self) -> Any:
        return self.do("evm_snapshot")

    def rewind(self, mark: Any) -> None:
        assert self.do("evm_revert", mark) is True
        # Its pool forgets what was mined only a moment later, and would mine it again.
        self.do("anvil_dropAllTransactions")

    def do(self, method: str, *parameters: Any) -> Any:
        answer = self._provider.make_request(method, list(parameters))  # type: ignore[arg-type]
        assert "error" not in answer, answer
        return answer["result"]


@contextmanager
def anvil(*options: str) -> Iterator[Anvil]:
    """Run a node on loopback."""
    program, port = anvil_program(), free_port()
    command = [program, "--host", "127.0.0.1", "--port", str(port), "--silent", *options]
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "log"
        # anvil answers a GET of its root with 200 or 405 as versions differ: ask it as clients do.
        with running(command, log, None):
            node = Anvil(f"http://127.0.0.1:{port}")
            _await(node)
            yield node


def anvil_program() -> str:
    """Return the node's path, from npm, which is asked once a machine."""
    systems = {"Linux": "linux", "Darwin": "darwin"}
    machines = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
    try:
        kind = f"{systems[platform.system()]}-{machines[platform.machine()]}"
    except KeyError:
        pytest.skip("anvil runs only on Linux and macOS, x86_64 and ARM64")
    package = f"@foundry-rs/anvil-{kind}"
    root = CACHE / f"anvil-{ANVIL}-{kind}"
    program = root / "node_modules" / package / "bin/anvil"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / ".anvil.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            _install(root, f"{package}@{ANVIL}")
    return str(program)


def _install(root: Path, package: str) -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("needs npm: apt-get install npm")
    root.mkdir(parents=True, exist_ok=True)
    # No script of a package is run; its binary is all that is wanted of it.
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-save", "--prefix", str(root)]
    done = subprocess.run(
        [npm, "install", *options, package], cwd=root, capture_output=True, text=True,
        timeout=280, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        pytest.skip(f"needs anvil, which npm could not install: {done.stderr[-300:]}")


def _await(node: Anvil) -> None:
    import time

    end = time.monotonic() + 60
    while True:
        try:
            assert node.do("eth_chainId") == hex(node.chain_id)
            return
        except Exception:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
