"""The ledger that an EVM contract keeps: an add-on, the optional extra ``nix-seed[evm]``.

No other room imports this one. The product finds it by the entry points ``nix_seed.ledgers`` and
``nix_seed.ledger_commands``. docs/ledger-evm.md says what the contract promises, and what a node
that lies can still do.
"""
