"""``nix-seed ledger evm``: its commands and their options; what they do is in ``work``."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import click

from nix_seed.cli.command import SeedGroup
from nix_seed.cli.options import json_option, policy_option, with_options
from nix_seed.evm.open import require_evm

Command = TypeVar("Command", bound=Callable[..., Any])
_FILE = click.Path(path_type=Path)


def _all(*options: Callable[[Any], Any]) -> Callable[[Command], Command]:
    return lambda command: with_options(command, options)


_nodes_options = _all(
    click.option(
        "--rpc",
        multiple=True,
        envvar="NIX_SEED_EVM_RPC",
        metavar="URL",
        help="A node to ask, instead of the policy's; of several, all must agree.",
    ),
    click.option(
        "--confirmations",
        type=click.IntRange(min=0),
        metavar="N",
        help="Blocks on top that make one final [the policy's, or what nodes call finalized].",
    ),
)
_contract_options = _all(
    policy_option("The policy whose [[ledgers]] name the contract."),
    click.option("--ledger", "ledger_id", metavar="ID", help="Which of the policy's ledgers."),
    click.option("--chain-id", type=click.IntRange(min=1), metavar="N", help="With --address."),
    click.option("--address", metavar="0x…", help="The contract, instead of the policy's."),
    _nodes_options,
    json_option,
)
_key_option = click.option(
    "--key", required=True, type=_FILE, metavar="FILE", help="Key file of the account."
)
_fee_option = click.option(
    "--max-fee",
    type=click.FloatRange(min=0, min_open=True),
    default=100,
    show_default=True,
    metavar="GWEI",
    help="The most to pay per gas.",
)
_out_option = click.option(
    "-o", "--out", required=True, type=_FILE, metavar="FILE", help="Where the signature goes."
)
_signature_option = click.option(
    "--signature",
    "signatures",
    multiple=True,
    required=True,
    type=_FILE,
    metavar="FILE",
    help="A builder's signature; may be repeated.",
)
_set_options = _all(
    click.option(
        "--builder",
        "builders",
        multiple=True,
        required=True,
        metavar="ID=0x…",
        help="A builder and its account; may be repeated.",
    ),
    click.option(
        "--threshold", required=True, type=int, metavar="N", help="How many builders must sign."
    ),
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
@click.option(
    "--epoch", type=click.IntRange(min=2), metavar="N", help="The set's [the next, by the nodes]."
)
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
@click.argument("file", type=_FILE)
@json_option
def _generate(file: Path, as_json: bool) -> None:
    """Write a new key to FILE, encrypted as a keystore of version 3; never over another."""
    _work().generate_key(file, as_json)


@_key.command("show")
@click.argument("file", type=_FILE)
@json_option
def _show_key(file: Path, as_json: bool) -> None:
    """Print the account of the key in FILE: a keystore, or 64 hex digits."""
    _work().show_key(file, as_json)


@evm.command("deploy", short_help="Deploy a new contract.")
@click.option("--chain-id", required=True, type=click.IntRange(min=1), metavar="N")
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
@click.option("--commit", metavar="COMMIT", help="The commit that is released.")
@click.option("--commit-key", metavar="DIGEST", help="Or its key, as attestations name it.")
@click.option("--root", required=True, metavar="DIGEST", help="Merkle root over its systems.")
@click.option("--record", required=True, metavar="DIGEST", help="SHA-256 of the release's record.")
@click.option(
    "--epoch", type=click.IntRange(min=1), metavar="N", help="Of the builders [asked of the nodes]."
)
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
@click.argument("commit", required=False)
@click.option("--root", metavar="DIGEST", help="Show the entry that has this root.")
@click.option("--all", "every", is_flag=True, help="Replay and show every entry.")
@_contract_options
def _show(**options: Any) -> None:
    """Show the contract and its builders, and the entry of COMMIT, if one is named.

    Everything shown is final. Exit 1 if there is no such entry, or if a node lies.
    """
    _work().show_contract(options)
