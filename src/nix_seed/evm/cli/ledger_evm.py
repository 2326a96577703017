"""``nix-seed ledger evm``: its commands and their options; what they do is in ``work``."""

from pathlib import Path
from types import ModuleType
from typing import Any

import click

from nix_seed.cli.command import PATH, SeedGroup, argument, option, together
from nix_seed.cli.options import json_option, policy_option
from nix_seed.evm.open import require_evm

_nodes_options = together(
    option(
        "--rpc URL",
        "A node to ask, instead of the policy's; of several, all must agree.",
        multiple=True,
        envvar="NIX_SEED_EVM_RPC",
    ),
    option(
        "--confirmations N",
        "Blocks on top that make one final [the policy's, or what nodes call finalized].",
        type=click.IntRange(min=0),
    ),
)
_contract_options = together(
    policy_option("The policy whose [[ledgers]] name the contract."),
    option("--ledger ID", "Which of the policy's ledgers.", into="ledger_id"),
    option("--chain-id N", "With --address.", type=click.IntRange(min=1)),
    option("--address 0x…", "The contract, instead of the policy's."),
    _nodes_options,
    json_option,
)
_key_option = option("--key FILE", "Key file of the account.", required=True)
_fee_option = option(
    "--max-fee GWEI",
    "The most to pay per gas.",
    type=click.FloatRange(min=0, min_open=True),
    default=100,
)
_out_option = option("-o, --out FILE", "Where the signature goes.", required=True)
_signature_option = option(
    "--signature FILE",
    "A builder's signature; may be repeated.",
    into="signatures",
    multiple=True,
    required=True,
)
_set_options = together(
    option(
        "--builder ID=0x…",
        "A builder and its account; may be repeated.",
        into="builders",
        multiple=True,
        required=True,
    ),
    option("--threshold N", "How many builders must sign.", required=True, type=int),
)


def _work() -> ModuleType:
    """Return what the commands do; it imports the libraries of the extra."""
    require_evm()
    from nix_seed.evm.cli import work

    return work


@click.group("evm", cls=SeedGroup, short_help="A contract that takes one release per commit.")
def evm() -> None:
    """Deploy and use the contract; docs/ledger-evm.md. Needs the extra nix-seed[evm].

    Passphrases of key files are read from the environment variable NIX_SEED_KEY_PASSPHRASE, never
    from the command line.
    """


@evm.group("builders", short_help="Show and change who must sign.")
def _builders() -> None:
    """Show and change the contract's builders: only they themselves can, up to their threshold."""


@_builders.command("show")
@_contract_options
def _show_builders(**options: Any) -> None:
    """Show every set of builders there was, the present one last."""
    _work().show_builders(options)


@_builders.command("sign", short_help="Sign the next set of builders.")
@_set_options
@option("--epoch N", "The set's [the next, by the nodes].", type=click.IntRange(min=2))
@_key_option
@_out_option
@_contract_options
def _sign_builders(**options: Any) -> None:
    """Sign that the named builders, all of them, are to replace the present ones.

    With --epoch no node is asked. The file that is written is for 'builders set'.
    """
    _work().sign_builders(options)


@_builders.command("set", short_help="Replace the builders, with enough signatures.")
@_signature_option
@_key_option
@_fee_option
@_contract_options
def _set_builders(**options: Any) -> None:
    """Replace the builders by the set that the signatures are for, paid by --key."""
    _work().set_builders(options)


@evm.group("key", short_help="Make and show keys of accounts.")
def _key() -> None:
    """Make and show keys of accounts: those that sign as builders, and those that pay for gas."""


@_key.command("generate")
@argument("file", type=PATH)
@json_option
def _generate(file: Path) -> None:
    """Write a new key to FILE, encrypted as a keystore of version 3; never over another."""
    _work().generate_key(file)


@_key.command("show")
@argument("file", type=PATH)
@json_option
def _show_key(file: Path) -> None:
    """Print the account of the key in FILE: a keystore, or 64 hex digits."""
    _work().show_key(file)


@evm.command("deploy", short_help="Deploy a new contract.")
@option("--chain-id N", required=True, type=click.IntRange(min=1))
@_set_options
@_key_option
@_fee_option
@_nodes_options
@json_option
def _deploy(**options: Any) -> None:
    """Deploy the contract, paid by --key, and print the table that names it in trust.toml.

    Nobody can change it afterwards, and nobody but its builders, up to their threshold, can enter
    a release or replace them.
    """
    _work().deploy_contract(options)


@evm.command("sign", short_help="Sign a release as a builder; needs no network.")
@option("--commit COMMIT", "The commit that is released.")
@option("--commit-key DIGEST", "Or its key, as attestations name it.")
@option("--root DIGEST", "Merkle root over its systems.", required=True)
@option("--record DIGEST", "SHA-256 of the release's record.", required=True)
@option("--epoch N", "Of the builders [asked of the nodes].", type=click.IntRange(min=1))
@_key_option
@_out_option
@_contract_options
def _sign(**options: Any) -> None:
    """Sign that COMMIT is released by this root and record, for one contract on one chain.

    Whoever signs answers for it: promote or verify the release first. With --epoch no node is
    asked. The file that is written is for 'nix-seed ledger evm publish'.
    """
    _work().sign_release(options)


@evm.command("publish", short_help="Enter a release that enough builders signed.")
@_signature_option
@_key_option
@_fee_option
@_contract_options
def _publish(**options: Any) -> None:
    """Enter the release that the builders' signatures are for, paid by --key.

    Anybody may do so. The same again changes nothing and costs nothing.
    """
    _work().publish_release(options)


@evm.command("show", short_help="Show the contract, its builders and its entries.")
@argument("commit", required=False)
@option("--root DIGEST", "Show the entry that has this root.")
@option("--all", "Replay and show every entry.", into="every")
@_contract_options
def _show(**options: Any) -> None:
    """Show the contract and its builders, and the entry of COMMIT, if one is named.

    Everything shown is final. Exit 1 if there is no such entry, or if a node lies.
    """
    _work().show_contract(options)
