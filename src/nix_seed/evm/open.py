"""Opens the contract that a policy names; the libraries it needs are imported only then."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from nix_seed.core.errors import InputError

if TYPE_CHECKING:
    from nix_seed.evm.contract import EvmLedger
    from nix_seed.trust.rules.policy import LedgerSpec


def require_evm() -> None:
    """Raise ``InputError`` unless the extra is installed."""
    for library in ("web3", "eth_account"):
        if importlib.util.find_spec(library) is None:
            raise InputError(
                f"a ledger on an EVM chain needs the library {library}, which is not installed",
                hint="install it with: pip install 'nix-seed[evm]'",
            )


def open_ledger(spec: LedgerSpec) -> EvmLedger:
    """Return the ledger *spec*, for reading: who publishes names an account besides."""
    require_evm()
    from nix_seed.evm.contract import EvmLedger

    return EvmLedger.open(spec)
