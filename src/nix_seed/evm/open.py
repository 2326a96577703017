"""Opens the contract that a policy names; the libraries it needs are imported only then."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nix_seed.core.errors import InputError
from nix_seed.registry.http import Patience
from nix_seed.trust.rules.policy import LedgerSpec

if TYPE_CHECKING:
    from nix_seed.evm.ledger import EvmLedger
    from nix_seed.evm.signatures import EvmSignature


def require_evm() -> None:
    """Raise ``InputError`` unless the extra is installed."""
    for library in ("web3", "eth_account"):
        if importlib.util.find_spec(library) is None:
            raise InputError(
                f"a ledger on an EVM chain needs the library {library}, which is not installed",
                hint="install it with: pip install 'nix-seed[evm]'",
            )


def open_ledger(
    spec: LedgerSpec,
    *,
    rpc: Sequence[str] = (),
    key: Path | None = None,
    passphrase: str | None = None,
    signatures: Sequence[Path] = (),
    most: int | None = None,
    patience: Patience | None = None,
) -> EvmLedger:
    """Return the ledger *spec*.

    *rpc* are addresses of nodes to ask instead of the policy's. Only publishing takes a *key* (the
    account that pays, at most *most* wei per gas) and files of the builders' *signatures*.
    """
    require_evm()
    from nix_seed.evm.contract import Contract
    from nix_seed.evm.keys import EvmKey
    from nix_seed.evm.ledger import EvmLedger
    from nix_seed.evm.node import Node
    from nix_seed.evm.nodes import Nodes
    from nix_seed.evm.send import MOST_FEE, Sender

    urls = rpc or spec.rpc
    nodes = Nodes([Node.connect(url, patience) for url in urls], spec.chain_id, spec.confirmations)
    sender = None
    if key is not None:
        sender = Sender(EvmKey.open(key, passphrase), MOST_FEE if most is None else most)
    return EvmLedger(Contract(spec, nodes), sender, read_signatures(signatures))


def read_signatures(files: Sequence[Path]) -> tuple[EvmSignature, ...]:
    """Read files that 'nix-seed ledger evm sign' wrote."""
    from nix_seed.core.files import explained
    from nix_seed.evm.signatures import EvmSignature

    found = []
    for path in files:
        with explained(f"reading {path}"):
            text = path.read_bytes()
        found.append(EvmSignature.load(text, str(path)))
    return tuple(found)
