"""What the commands of ``nix-seed ledger evm`` do; imported when one is run."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from nix_seed.cli.command import exit_with
from nix_seed.cli.release.ledger import entry_json, entry_lines
from nix_seed.cli.say import answer, note, say
from nix_seed.cli.trust.key import PASSPHRASE
from nix_seed.core.digests import Digest
from nix_seed.core.errors import InputError
from nix_seed.core.files import explained, write_new
from nix_seed.evm import signatures as signing
from nix_seed.evm.contract import Contract, EvmLedger, deploy
from nix_seed.evm.nodes import GWEI, Nodes, Sender, Sent
from nix_seed.formats.intoto.statement import Commit
from nix_seed.release.load import load_policy
from nix_seed.release.rules.record import LedgerEntry
from nix_seed.trust.rules.policy import LedgerSpec

Content = TypeVar("Content", signing.ReleaseMessage, signing.BuilderSet)


def show_builders(options: dict[str, Any]) -> None:
    """Show every set of builders there was."""
    history = Contract.open(_spec(options)).history()
    lines = (line for each in history for line in _set_lines(each))
    answer({"sets": [_set_json(each) for each in history]}, lines)


def sign_builders(options: dict[str, Any]) -> None:
    """Sign the next set of builders."""
    members, key, spec = _builders(options["builders"]), _key(options["key"]), _spec(options)
    epoch = options["epoch"] or Contract.open(spec).status().builders.epoch + 1
    proposed = signing.BuilderSet.propose(members, options["threshold"], epoch)
    _write(options, signing.EvmSignature.make(key, signing.Domain.of(spec), proposed))


def set_builders(options: dict[str, Any]) -> None:
    """Replace the builders by those that the signatures are for."""
    contract, signatures = Contract.open(_spec(options)), _signatures(options)
    proposed = _one(
        (each.content for each in signatures),
        signing.BuilderSet,
        "set of builders",
        "builders, threshold and epoch",
    )
    sent = contract.set_builders(proposed, signatures, _sender(options))
    answer(_set_json(proposed) | _sent_json(sent), _set_lines(proposed))


def generate_key(file: Path) -> None:
    """Write a new key."""
    key = signing.EvmKey.generate()
    key.write(file, os.environ.get(PASSPHRASE))
    answer({"address": key.address}, key.address)


def show_key(file: Path) -> None:
    """Print a key's account."""
    address = _key(file).address
    answer({"address": address}, address)


def deploy_contract(options: dict[str, Any]) -> None:
    """Deploy the contract, and print the table that names it."""
    chain_id, confirmations = options["chain_id"], options["confirmations"]
    members = _builders(options["builders"])
    nodes = Nodes.connect(chain_id, options["rpc"], confirmations)
    proposed = signing.BuilderSet.propose(members, options["threshold"], 1)
    address, sent = deploy(nodes, proposed, _sender(options))
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


def sign_release(options: dict[str, Any]) -> None:
    """Sign a release as a builder."""
    key = _key(options["key"])
    commit, given, epoch = options["commit"], options["commit_key"], options["epoch"]
    if (commit is None) == (given is None):
        raise InputError("say either --commit or --commit-key")
    commit_key = Digest.parse(given) if commit is None else Commit(commit).key
    root, record = Digest.parse(options["root"]), Digest.parse(options["record"])
    entry = LedgerEntry(commit_key, root, record)
    if epoch is None:
        signature = Contract.open(_spec(options)).sign(entry, key)
    else:
        domain = signing.Domain.of(_spec(options))
        signature = signing.EvmSignature.make(key, domain, signing.ReleaseMessage(entry, epoch))
    _write(options, signature)


def publish_release(options: dict[str, Any]) -> None:
    """Enter the release that the signatures are for."""
    contract, signatures = Contract.open(_spec(options)), _signatures(options)
    contents = (each.content for each in signatures)
    # Of one release, whatever the epochs: which of them count is said when they are counted.
    plain = (replace(c, epoch=0) if isinstance(c, signing.ReleaseMessage) else c for c in contents)
    entry = _one(plain, signing.ReleaseMessage, "release", "commit, root and record").entry
    found = EvmLedger(contract, _sender(options), signatures).publish(entry)
    answer(entry_json(found), entry_lines(found))


def show_contract(options: dict[str, Any]) -> None:
    """Show the contract, and what was asked of it."""
    commit, root, every = options["commit"], options["root"], options["every"]
    if sum((commit is not None, root is not None, every)) > 1:
        raise InputError("say one of COMMIT, --root and --all")
    contract = Contract.open(_spec(options))
    found: Sequence[LedgerEntry | None] = contract.entries() if every else ()
    if commit is not None:
        found = [contract.entry(Commit(commit).key)]
    elif root is not None:
        found = [contract.entry_of(Digest.parse(root))]
    entries = [each for each in found if each is not None]
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


def _spec(options: dict[str, Any]) -> LedgerSpec:
    """Return the contract that *options* name, or the policy's."""
    rpc, confirmations = options["rpc"], options["confirmations"]
    if options["address"] is not None:
        if options["chain_id"] is None:
            raise InputError("--address needs --chain-id: the same address is on every chain")
        return LedgerSpec("evm", "evm", options["chain_id"], options["address"], rpc, confirmations)
    if options["chain_id"] is not None:
        raise InputError("--chain-id needs --address")
    file, name = options["policy_file"], options["ledger_id"]
    ledgers = load_policy(file).policy.ledgers
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


def _key(file: Path) -> signing.EvmKey:
    return signing.EvmKey.open(file, os.environ.get(PASSPHRASE))


def _sender(options: dict[str, Any]) -> Sender:
    """Return who pays, and how much at most."""
    return Sender(_key(options["key"]), int(options["max_fee"] * GWEI))


def _builders(texts: Sequence[str]) -> list[signing.EvmBuilder]:
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


def _sent_json(sent: Sent) -> dict[str, Any]:
    return {"transaction": f"0x{sent.hash.hex()}", "gas": sent.receipt.gas}
