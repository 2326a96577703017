"""The ledger that an EVM contract keeps: the optional extra ``nix-seed[evm]``.

Only ``nix_seed.clients.ledgers.choose`` is to be imported without the extra. docs/ledger-evm.md
says what the contract promises, and what a node that lies can still do.
"""
