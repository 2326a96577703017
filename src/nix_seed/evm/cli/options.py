"""Options by which a contract, its nodes and an account are named, and what they mean."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from nix_seed.cli.options import policy_option, with_options
from nix_seed.cli.say import say
from nix_seed.evm.open import require_evm

if TYPE_CHECKING:
    from nix_seed.evm.builders import EvmBuilder
    from nix_seed.evm.keys import EvmKey
    from nix_seed.evm.send import Sender
    from nix_seed.evm.signatures import EvmSignature
    from nix_seed.trust.rules.policy import LedgerSpec

Command = TypeVar("Command", bound=Callable[..., Any])
_FILE = click.Path(path_type=Path)
_NODES: list[Callable[[Any], Any]] = [
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
]
_CONTRACT: list[Callable[[Any], Any]] = [
    policy_option("The policy whose [[ledgers]] name the contract."),
    click.option("--ledger", "ledger_id", metavar="ID", help="Which of the policy's ledgers."),
    click.option("--chain-id", type=click.IntRange(min=1), metavar="N", help="With --address."),
    click.option("--address", metavar="0x…", help="The contract, instead of the policy's."),
]

key_option = click.option(
    "--key", required=True, type=_FILE, metavar="FILE", help="Key file of the account."
)
fee_option = click.option(
    "--max-fee",
    type=click.FloatRange(min=0, min_open=True),
    default=100,
    show_default=True,
    metavar="GWEI",
    help="The most to pay per gas.",
)
out_option = click.option(
    "-o", "--out", required=True, type=_FILE, metavar="FILE", help="Where the signature goes."
)
signature_option = click.option(
    "--signature",
    "signatures",
    multiple=True,
    required=True,
    type=_FILE,
    metavar="FILE",
    help="A builder's signature; may be repeated.",
)
builder_option = click.option(
    "--builder",
    "builders",
    multiple=True,
    required=True,
    metavar="ID=0x…",
    help="A builder and its account; may be repeated.",
)
threshold_option = click.option(
    "--threshold", required=True, type=int, metavar="N", help="How many builders must sign."
)


def nodes_options(command: Command) -> Command:
    """Add which nodes to ask, and what they say that counts as final."""
    return with_options(command, _NODES)


def contract_options(command: Command) -> Command:
    """Add which contract is meant, and which nodes to ask about it."""
    return nodes_options(with_options(command, _CONTRACT))


def spec_of(options: dict[str, Any]) -> LedgerSpec:
    """Return the contract that *options* name, or the policy's."""
    from dataclasses import replace

    from nix_seed.core.errors import InputError
    from nix_seed.trust.rules.policy import LedgerSpec

    rpc, confirmations = options["rpc"], options["confirmations"]
    if options["address"] is not None:
        if options["chain_id"] is None:
            raise InputError("--address needs --chain-id: the same address is on every chain")
        return LedgerSpec("evm", "evm", options["chain_id"], options["address"], rpc, confirmations)
    if options["chain_id"] is not None:
        raise InputError("--chain-id needs --address")
    spec = _named(options["policy_file"], options["ledger_id"])
    confirmations = spec.confirmations if confirmations is None else confirmations
    return replace(spec, rpc=rpc or spec.rpc, confirmations=confirmations)


def _named(file: Path, name: str | None) -> LedgerSpec:
    from nix_seed.core.errors import InputError
    from nix_seed.release.load import load_policy

    ledgers = load_policy(file, datetime.now(UTC)).policy.ledgers
    if not ledgers:
        raise InputError(
            f"{file} names no ledger",
            hint="add [[ledgers]], as 'nix-seed ledger evm deploy' prints it, or use --address",
        )
    found = [each for each in ledgers if name in (None, each.id)]
    if len(found) != 1:
        known = ", ".join(each.id for each in ledgers)
        raise InputError(f"{file} has the ledgers {known}", hint="name one of them with --ledger")
    return found[0]


def key_of(file: Path) -> EvmKey:
    """Read a key file, by the passphrase in the environment."""
    from nix_seed.cli.trust.key import PASSPHRASE

    require_evm()
    from nix_seed.evm.keys import EvmKey

    return EvmKey.open(file, os.environ.get(PASSPHRASE))


def sender_of(file: Path, gwei: float) -> Sender:
    """Return who pays, and how much at most."""
    key = key_of(file)
    from nix_seed.evm.send import GWEI, Sender

    return Sender(key, int(gwei * GWEI))


def builders_of(texts: tuple[str, ...]) -> list[EvmBuilder]:
    """Read ``ID=0x…``, each."""
    from nix_seed.core.errors import InputError

    require_evm()
    from nix_seed.evm.builders import EvmBuilder

    found = []
    for text in texts:
        name, separator, account = text.rpartition("=")
        if not separator:
            raise InputError(f"{text!r} is not of the form ID=0x…")
        found.append(EvmBuilder.read(name, account))
    return found


def echo_signature(path: Path, signature: EvmSignature, *, as_json: bool) -> None:
    """Say who signed, and for which epoch."""
    signer, epoch = signature.signer, signature.content.epoch
    if as_json:
        say({"file": str(path), "signer": signer, "epoch": epoch})
        return
    say(f"{path}: signed by {signer} for epoch {epoch}")


def write_signature(path: Path, text: bytes) -> None:
    """Write a signature's file, never over another."""
    from nix_seed.core.errors import InputError
    from nix_seed.core.files import explained

    with explained(f"writing {path}"):
        try:
            with path.open("xb") as file:
                file.write(text)
        except FileExistsError as error:
            raise InputError(f"{path} exists already", hint="choose another name") from error
