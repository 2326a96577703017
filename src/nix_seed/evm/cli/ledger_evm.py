"""``nix-seed ledger evm``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nix_seed.cli.options import json_option
from nix_seed.cli.release.ledger import entry_json, entry_lines
from nix_seed.cli.say import say
from nix_seed.evm.cli.builders import builders, set_json, set_lines
from nix_seed.evm.cli.options import (
    builder_option,
    builders_of,
    contract_options,
    echo_signature,
    fee_option,
    key_of,
    key_option,
    nodes_options,
    out_option,
    sender_of,
    signature_option,
    spec_of,
    threshold_option,
    write_signature,
)
from nix_seed.evm.open import connect, open_contract, read_signatures, require_evm

if TYPE_CHECKING:
    from nix_seed.core.digests import Digest
    from nix_seed.evm.contract import Contract
    from nix_seed.evm.signatures import EvmSignature
    from nix_seed.release.rules.ledger_entry import LedgerEntry


@click.group("evm", short_help="A contract that takes one release per commit.")
def evm() -> None:
    """Deploy and use the contract; docs/ledger-evm.md. Needs the extra nix-seed[evm].

    Passphrases of key files are read from the environment variable NIX_SEED_KEY_PASSPHRASE, never
    from the command line.
    """


evm.add_command(builders)


@evm.group("key", short_help="Make and show keys of accounts.")
def _key() -> None:
    """Make and show keys of accounts: those that sign as builders, and those that pay for gas."""


@_key.command("generate")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def _generate(file: Path, as_json: bool) -> None:
    """Write a new key to FILE, encrypted as a keystore of version 3; never over another."""
    from nix_seed.cli.trust.key import PASSPHRASE

    require_evm()
    from nix_seed.evm.keys import EvmKey

    key = EvmKey.generate()
    key.write(file, os.environ.get(PASSPHRASE))
    _echo_account(key.address, as_json)


@_key.command("show")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def _show_key(file: Path, as_json: bool) -> None:
    """Print the account of the key in FILE: a keystore, or 64 hex digits."""
    _echo_account(key_of(file).address, as_json)


def _echo_account(address: str, as_json: bool) -> None:
    say({"address": address} if as_json else address)


@evm.command("deploy", short_help="Deploy a new contract.")
@click.option("--chain-id", required=True, type=click.IntRange(min=1), metavar="N")
@builder_option
@threshold_option
@key_option
@fee_option
@nodes_options
@json_option
def _deploy(
    chain_id: int,
    builders: tuple[str, ...],
    threshold: int,
    key: Path,
    max_fee: float,
    rpc: tuple[str, ...],
    confirmations: int | None,
    as_json: bool,
) -> None:
    """Deploy the contract, paid by --key, and print the table that names it in trust.toml.

    Nobody can change it afterwards, and nobody but its builders, up to their threshold, can enter
    a release or replace them.
    """
    members = builders_of(builders)
    nodes = connect(chain_id, rpc, confirmations)
    from nix_seed.evm.builders import BuilderSet
    from nix_seed.evm.contract import deploy

    proposed = BuilderSet.propose(members, threshold, 1)
    address, sent = deploy(nodes, proposed, sender_of(key, max_fee))
    block = sent.receipt.block.number
    if as_json:
        value = {"chainId": chain_id, "address": address, "fromBlock": block}
        say(value | _sent_json(sent.hash, sent.receipt.gas))
        return
    say("[[ledgers]]")
    say('id = "evm"\nkind = "evm"')
    say(f'chainId = {chain_id}\naddress = "{address}"')
    if confirmations is not None:
        say(f"confirmations = {confirmations}")
    say(f"fromBlock = {block}")
    say(f"deployed by transaction 0x{sent.hash.hex()}, {sent.receipt.gas} gas", err=True)


@evm.command("sign", short_help="Sign a release as a builder; needs no network.")
@click.option("--commit", metavar="COMMIT", help="The commit that is released.")
@click.option("--commit-key", metavar="DIGEST", help="Or its key, as attestations name it.")
@click.option("--root", required=True, metavar="DIGEST", help="Merkle root over its systems.")
@click.option("--record", required=True, metavar="DIGEST", help="SHA-256 of the release's record.")
@click.option(
    "--epoch", type=click.IntRange(min=1), metavar="N", help="Of the builders [asked of the nodes]."
)
@key_option
@out_option
@contract_options
@json_option
def _sign(as_json: bool, **options: Any) -> None:
    """Sign that COMMIT is released by this root and record, for one contract on one chain.

    Whoever signs answers for it: promote or verify the release first. With --epoch no node is
    asked. The file that is written is for 'nix-seed ledger evm publish'.
    """
    key = key_of(options["key"])
    from nix_seed.evm.messages import Domain, ReleaseMessage
    from nix_seed.evm.signatures import EvmSignature

    entry, epoch = _entry_of(options), options["epoch"]
    if epoch is None:
        signature = open_contract(spec_of(options)).sign(entry, key)
    else:
        domain = Domain.of(spec_of(options))
        signature = EvmSignature.make(key, domain, ReleaseMessage(entry, epoch))
    write_signature(options["out"], signature.dump())
    echo_signature(options["out"], signature, as_json=as_json)


def _entry_of(options: dict[str, Any]) -> LedgerEntry:
    from nix_seed.core.digests import Digest
    from nix_seed.core.errors import InputError
    from nix_seed.formats.intoto.statement import Commit
    from nix_seed.release.rules.ledger_entry import LedgerEntry

    commit, given = options["commit"], options["commit_key"]
    if (commit is None) == (given is None):
        raise InputError("say either --commit or --commit-key")
    key = Digest.parse(given) if commit is None else Commit(commit).key
    return LedgerEntry(key, Digest.parse(options["root"]), Digest.parse(options["record"]))


@evm.command("publish", short_help="Enter a release that enough builders signed.")
@signature_option
@key_option
@fee_option
@contract_options
@json_option
def _publish(as_json: bool, **options: Any) -> None:
    """Enter the release that the builders' signatures are for, paid by --key.

    Anybody may do so. The same again changes nothing and costs nothing.
    """
    contract = open_contract(spec_of(options))
    from nix_seed.evm.ledger import EvmLedger

    signatures = read_signatures(options["signatures"])
    entry = _released(signatures)
    sender = sender_of(options["key"], options["max_fee"])
    found = EvmLedger(contract, sender, signatures).publish(entry)
    say(entry_json(found) if as_json else "\n".join(entry_lines(found)))


def _released(signatures: tuple[EvmSignature, ...]) -> LedgerEntry:
    from nix_seed.core.errors import InputError
    from nix_seed.evm.messages import ReleaseMessage

    entries = {
        each.content.entry if isinstance(each.content, ReleaseMessage) else None
        for each in signatures
    }
    entry = entries.pop()
    if entry is None or entries:
        raise InputError(
            "these are not signatures of one and the same release",
            hint="let each builder sign the same commit, root and record",
        )
    return entry


@evm.command("show", short_help="Show the contract, its builders and its entries.")
@click.argument("commit", required=False)
@click.option("--root", metavar="DIGEST", help="Show the entry that has this root.")
@click.option("--all", "every", is_flag=True, help="Replay and show every entry.")
@contract_options
@json_option
def _show(commit: str | None, root: str | None, every: bool, as_json: bool, **options: Any) -> None:
    """Show the contract and its builders, and the entry of COMMIT, if one is named.

    Everything shown is final. Exit 1 if there is no such entry, or if a node lies.
    """
    from nix_seed.core.digests import Digest
    from nix_seed.core.errors import InputError
    from nix_seed.formats.intoto.statement import Commit

    if sum((commit is not None, root is not None, every)) > 1:
        raise InputError("say one of COMMIT, --root and --all")
    contract = open_contract(spec_of(options))
    key = None if commit is None else Commit(commit).key
    found = _found(contract, key, None if root is None else Digest.parse(root), every)
    status = contract.status()
    if as_json:
        value = {
            "chainId": contract.spec.chain_id,
            "address": contract.domain.address,
            "block": status.block,
            "count": status.count,
            "head": f"0x{status.head.hex()}",
            **set_json(status.builders),
            "entries": [entry_json(each) for each in found],
        }
        say(value)
    else:
        say(f"contract {contract.domain.address} on chain {contract.spec.chain_id}")
        say("\n".join(set_lines(status.builders)))
        say(f"entries  {status.count}, as of block {status.block}")
        for entry in found:
            say("\n".join(["", *entry_lines(entry)]))
    if not found and (commit or root):
        say("there is no such entry", err=True)
        click.get_current_context().exit(1)


def _found(
    contract: Contract, key: Digest | None, root: Digest | None, every: bool
) -> tuple[LedgerEntry, ...]:
    if every:
        return contract.entries()
    if key is not None:
        entry = contract.entry(key)
    elif root is not None:
        entry = contract.entry_of(root)
    else:
        return ()
    return () if entry is None else (entry,)


def _sent_json(transaction: bytes, gas: int) -> dict[str, Any]:
    return {"transaction": f"0x{transaction.hex()}", "gas": gas}
