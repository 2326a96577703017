"""Opens the contract that a policy names; the libraries it needs are imported only then."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nix_seed.core.errors import InputError

if TYPE_CHECKING:
    from nix_seed.evm.contract import Contract
    from nix_seed.evm.ledger import EvmLedger
    from nix_seed.evm.nodes import Nodes
    from nix_seed.evm.signatures import EvmSignature
    from nix_seed.trust.rules.policy import LedgerSpec


def require_evm() -> None:
    """Raise ``InputError`` unless the extra is installed."""
    for library in ("web3", "eth_account"):
        if importlib.util.find_spec(library) is None:
            raise InputError(
                f"a ledger on an EVM chain needs the library {library}, which is not installed",
                hint="install it with: pip install 'nix-seed[evm]'",
            )


def connect(chain_id: int, rpc: Sequence[str], confirmations: int | None) -> Nodes:
    """Return the nodes at *rpc*; none is asked yet."""
    require_evm()
    from nix_seed.evm.node import EvmNode
    from nix_seed.evm.nodes import Nodes

    return Nodes([EvmNode.connect(url) for url in rpc], chain_id, confirmations)


def open_contract(spec: LedgerSpec) -> Contract:
    """Return the contract of *spec*, seen through its nodes."""
    nodes = connect(spec.chain_id, spec.rpc, spec.confirmations)
    from nix_seed.evm.contract import Contract

    return Contract(spec, nodes)


def open_ledger(spec: LedgerSpec) -> EvmLedger:
    """Return the ledger *spec*, for reading: who publishes names an account besides."""
    contract = open_contract(spec)
    from nix_seed.evm.ledger import EvmLedger

    return EvmLedger(contract)


def read_signatures(files: Sequence[Path]) -> tuple[EvmSignature, ...]:
    """Read files that 'nix-seed ledger evm sign' wrote."""
    from nix_seed.core.files import read_given
    from nix_seed.evm.signatures import EvmSignature

    found = []
    for path in files:
        found.append(EvmSignature.load(read_given(path), str(path)))
    return tuple(found)
