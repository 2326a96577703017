"""``nix-seed ledger evm``; the libraries of the extra are imported when a command is run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from nix_seed.cli.command import (
    PATH,
    SeedCommand,
    SeedGroup,
    argument,
    exit_with,
    option,
    together,
)
from nix_seed.cli.lazily import lazily
from nix_seed.cli.options import json_option, policy_option
from nix_seed.cli.release.ledger import entry_json, entry_lines
from nix_seed.cli.say import answer, note, say
from nix_seed.cli.trust.key import PASSPHRASE
from nix_seed.core.digests import Digest
from nix_seed.core.errors import InputError
from nix_seed.core.files import explained, write_new
from nix_seed.evm.open import require_evm

with lazily():
    from nix_seed.evm import contract as contracts, nodes as chains, signatures as signing
    from nix_seed.formats.intoto import statement as intoto
    from nix_seed.release import load
    from nix_seed.release.rules import record as records
    from nix_seed.trust.rules import policy as policies


Content = TypeVar("Content", "signing.ReleaseMessage", "signing.BuilderSet")

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


class _Command(SeedCommand):
    """A command that needs the extra; its help does not."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run it, if the libraries are there."""
        require_evm()
        return super().invoke(ctx)


class _Group(SeedGroup):
    command_class = _Command


@click.group("evm", cls=_Group, short_help="A contract that takes one release per commit.")
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
    history = contracts.EvmLedger.open(_spec(options)).history()
    lines = (line for each in history for line in _set_lines(each))
    answer({"sets": [_set_json(each) for each in history]}, lines)


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
    members, spec = _read_builders(options["builders"]), _spec(options)
    key = _read_key(options["key"])
    epoch = options["epoch"] or contracts.EvmLedger.open(spec).status().builders.epoch + 1
    proposed = signing.BuilderSet.propose(members, options["threshold"], epoch)
    _write(options, signing.EvmSignature.make(key, signing.Domain.of(spec), proposed))


@_builders.command("set", short_help="Replace the builders, with enough signatures.")
@_signature_option
@_key_option
@_fee_option
@_contract_options
def _set_builders(**options: Any) -> None:
    """Replace the builders by the set that the signatures are for, paid by --key."""
    spec, signatures = _spec(options), _signatures(options)
    proposed = _one(
        (each.content for each in signatures),
        signing.BuilderSet,
        "set of builders",
        "builders, threshold and epoch",
    )
    contract = contracts.EvmLedger.open(spec, _sender(options), signatures)
    sent = contract.set_builders(proposed)
    answer(_set_json(proposed) | _sent_json(sent), _set_lines(proposed))


@evm.group("key", short_help="Make and show keys of accounts.")
def _key() -> None:
    """Make and show keys of accounts: those that sign as builders, and those that pay for gas."""


@_key.command("generate")
@argument("file", type=PATH)
@json_option
def _generate(file: Path) -> None:
    """Write a new key to FILE, encrypted as a keystore of version 3; never over another."""
    key = signing.EvmKey.generate()
    key.write(file, os.environ.get(PASSPHRASE))
    answer({"address": key.address}, key.address)


@_key.command("show")
@argument("file", type=PATH)
@json_option
def _show_key(file: Path) -> None:
    """Print the account of the key in FILE: a keystore, or 64 hex digits."""
    address = _read_key(file).address
    answer({"address": address}, address)


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
    chain_id, confirmations = options["chain_id"], options["confirmations"]
    members = _read_builders(options["builders"])
    nodes = chains.Nodes.connect(chain_id, options["rpc"], confirmations)
    proposed = signing.BuilderSet.propose(members, options["threshold"], 1)
    address, sent = contracts.deploy(nodes, proposed, _sender(options))
    block = sent.receipt.block.number
    table = [
        "[[ledgers]]",
        'id = "evm"',
        'kind = "evm"',
        f"chainId = {chain_id}",
        f'address = "{address}"',
        *([] if confirmations is None else [f"confirmations = {confirmations}"]),
        f"fromBlock = {block}",
    ]
    answer({"chainId": chain_id, "address": address, "fromBlock": block} | _sent_json(sent), table)
    note(f"deployed by transaction 0x{sent.hash.hex()}, {sent.receipt.gas} gas")


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
    key = _read_key(options["key"])
    commit, given, epoch = options["commit"], options["commit_key"], options["epoch"]
    if (commit is None) == (given is None):
        raise InputError("say either --commit or --commit-key")
    commit_key = Digest.parse(given) if commit is None else intoto.Commit(commit).key
    root, record = Digest.parse(options["root"]), Digest.parse(options["record"])
    entry = records.LedgerEntry(commit_key, root, record)
    if epoch is None:
        signature = contracts.EvmLedger.open(_spec(options)).sign(entry, key)
    else:
        domain = signing.Domain.of(_spec(options))
        signature = signing.EvmSignature.make(key, domain, signing.ReleaseMessage(entry, epoch))
    _write(options, signature)


@evm.command("publish", short_help="Enter a release that enough builders signed.")
@_signature_option
@_key_option
@_fee_option
@_contract_options
def _publish(**options: Any) -> None:
    """Enter the release that the builders' signatures are for, paid by --key.

    Anybody may do so. The same again changes nothing and costs nothing.
    """
    spec, signatures = _spec(options), _signatures(options)
    contents = (each.content for each in signatures)
    # Of one release, whatever the epochs: which of them count is said when they are counted.
    plain = (replace(c, epoch=0) if isinstance(c, signing.ReleaseMessage) else c for c in contents)
    entry = _one(plain, signing.ReleaseMessage, "release", "commit, root and record").entry
    found = contracts.EvmLedger.open(spec, _sender(options), signatures).publish(entry)
    answer(entry_json(found), entry_lines(found))


@evm.command("show", short_help="Show the contract, its builders and its entries.")
@argument("commit", required=False)
@option("--root DIGEST", "Show the entry that has this root.")
@option("--all", "Replay and show every entry.", into="every")
@_contract_options
def _show(**options: Any) -> None:
    """Show the contract and its builders, and the entry of COMMIT, if one is named.

    Everything shown is final. Exit 1 if there is no such entry, or if a node lies.
    """
    commit, root, every = options["commit"], options["root"], options["every"]
    if sum((commit is not None, root is not None, every)) > 1:
        raise InputError("say one of COMMIT, --root and --all")
    contract = contracts.EvmLedger.open(_spec(options))
    entries = tuple(contract.entries()) if every else ()
    if commit is not None:
        entries = contract.by_commit(intoto.Commit(commit).key)
    elif root is not None:
        entries = contract.by_root(Digest.parse(root))
    status = contract.status()
    value = {
        "chainId": contract.spec.chain_id,
        "address": contract.domain.address,
        "block": status.block,
        "count": status.count,
        "head": f"0x{status.head.hex()}",
        **_set_json(status.builders),
        "entries": [entry_json(each) for each in entries],
    }
    lines = [
        f"contract {contract.domain.address} on chain {contract.spec.chain_id}",
        *_set_lines(status.builders),
        f"entries  {status.count}, as of block {status.block}",
        *(line for entry in entries for line in ("", *entry_lines(entry))),
    ]
    answer(value, lines)
    if not entries and (commit or root):
        say("there is no such entry", err=True)
        exit_with(1)


def _spec(options: dict[str, Any]) -> policies.LedgerSpec:
    """Return the contract that *options* name, or the policy's."""
    rpc, confirmations = options["rpc"], options["confirmations"]
    if options["address"] is not None:
        if options["chain_id"] is None:
            raise InputError("--address needs --chain-id: the same address is on every chain")
        return policies.LedgerSpec(
            "evm", "evm", options["chain_id"], options["address"], rpc, confirmations
        )
    if options["chain_id"] is not None:
        raise InputError("--chain-id needs --address")
    file, name = options["policy_file"], options["ledger_id"]
    ledgers = load.load_policy(file).policy.ledgers
    if not ledgers:
        raise InputError(
            f"{file} names no ledger",
            hint="add [[ledgers]], as 'nix-seed ledger evm deploy' prints it, or use --address",
        )
    found = [each for each in ledgers if name in (None, each.id)]
    if len(found) != 1:
        known = ", ".join(each.id for each in ledgers)
        raise InputError(f"{file} has the ledgers {known}", hint="name one of them with --ledger")
    spec = found[0]
    confirmations = spec.confirmations if confirmations is None else confirmations
    return replace(spec, rpc=rpc or spec.rpc, confirmations=confirmations)


def _read_key(file: Path) -> signing.EvmKey:
    return signing.EvmKey.open(file, os.environ.get(PASSPHRASE))


def _sender(options: dict[str, Any]) -> chains.Sender:
    """Return who pays, and how much at most."""
    return chains.Sender(_read_key(options["key"]), int(options["max_fee"] * chains.GWEI))


def _read_builders(texts: Sequence[str]) -> list[signing.EvmBuilder]:
    found = []
    for text in texts:
        name, separator, account = text.rpartition("=")
        if not separator:
            raise InputError(f"{text!r} is not of the form ID=0x…")
        found.append(signing.EvmBuilder.read(name, account))
    return found


def _signatures(options: dict[str, Any]) -> tuple[signing.EvmSignature, ...]:
    """Read files that 'nix-seed ledger evm sign' wrote."""
    found = []
    for path in options["signatures"]:
        with explained(f"reading {path}"):
            text = path.read_bytes()
        found.append(signing.EvmSignature.load(text, str(path)))
    return tuple(found)


def _one(
    contents: Iterator[signing.Signed], kind: type[Content], label: str, members: str
) -> Content:
    """Return what all signatures are for, which must be one and the same."""
    found = set(contents)
    one = found.pop()
    if found or not isinstance(one, kind):
        raise InputError(
            f"these are not signatures of one and the same {label}",
            hint=f"let each builder sign the same {members}",
        )
    return one


def _write(options: dict[str, Any], signature: signing.EvmSignature) -> None:
    """Write a signature's file, never over another, and say who signed."""
    path, signer, epoch = options["out"], signature.signer, signature.content.epoch
    write_new(path, signature.dump())
    value = {"file": str(path), "signer": signer, "epoch": epoch}
    answer(value, f"{path}: signed by {signer} for epoch {epoch}")


def _set_json(found: signing.BuilderSet) -> dict[str, Any]:
    return {
        "epoch": found.epoch,
        "threshold": found.threshold,
        "builders": [{"id": each.id, "address": each.account} for each in found.builders],
    }


def _set_lines(found: signing.BuilderSet) -> Iterator[str]:
    yield f"epoch    {found.epoch}: {found.threshold} of {len(found.builders)} builders must sign"
    for each in found.builders:
        yield f"  {each.account}  {each.id}"


def _sent_json(sent: chains.Sent) -> dict[str, Any]:
    return {"transaction": f"0x{sent.hash.hex()}", "gas": sent.receipt.gas}
