"""``nix-seed ledger evm builders``: who must sign, and how that is changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from nix_seed.cli.options import json_option
from nix_seed.cli.say import say
from nix_seed.evm.cli.options import (
    builder_option,
    builders_of,
    contract_options,
    echo_signature,
    fee_option,
    key_of,
    key_option,
    out_option,
    sender_of,
    signature_option,
    spec_of,
    threshold_option,
    write_signature,
)
from nix_seed.evm.open import open_contract, read_signatures

if TYPE_CHECKING:
    from nix_seed.evm.builders import BuilderSet
    from nix_seed.evm.signatures import EvmSignature


@click.group("builders", short_help="Show and change who must sign.")
def builders() -> None:
    """Show and change the contract's builders: only they themselves can, up to their threshold."""


@builders.command("show")
@contract_options
@json_option
def _show(as_json: bool, **options: Any) -> None:
    """Show every set of builders there was, the present one last."""
    history = open_contract(spec_of(options)).history()
    if as_json:
        say({"sets": [set_json(each) for each in history]})
        return
    say("\n".join(line for each in history for line in set_lines(each)))


@builders.command("sign", short_help="Sign the next set of builders.")
@builder_option
@threshold_option
@click.option(
    "--epoch", type=click.IntRange(min=2), metavar="N", help="The set's [the next, by the nodes]."
)
@key_option
@out_option
@contract_options
@json_option
def _sign(as_json: bool, **options: Any) -> None:
    """Sign that the named builders, all of them, are to replace the present ones.

    With --epoch no node is asked. The file that is written is for 'builders set'.
    """
    members = builders_of(options["builders"])
    key = key_of(options["key"])
    from nix_seed.evm.builders import BuilderSet
    from nix_seed.evm.messages import Domain
    from nix_seed.evm.signatures import EvmSignature

    spec = spec_of(options)
    epoch = options["epoch"]
    if epoch is None:
        epoch = open_contract(spec_of(options)).status().builders.epoch + 1
    proposed = BuilderSet.propose(members, options["threshold"], epoch)
    signature = EvmSignature.make(key, Domain.of(spec), proposed)
    write_signature(options["out"], signature.dump())
    echo_signature(options["out"], signature, as_json=as_json)


@builders.command("set", short_help="Replace the builders, with enough signatures.")
@signature_option
@key_option
@fee_option
@contract_options
@json_option
def _set(as_json: bool, **options: Any) -> None:
    """Replace the builders by the set that the signatures are for, paid by --key."""
    contract = open_contract(spec_of(options))
    signatures = read_signatures(options["signatures"])
    proposed = _proposed(signatures)
    sender = sender_of(options["key"], options["max_fee"])
    sent = contract.set_builders(proposed, signatures, sender)
    if as_json:
        value = {"transaction": f"0x{sent.hash.hex()}", "gas": sent.receipt.gas}
        say(set_json(proposed) | value)
        return
    say("\n".join(set_lines(proposed)))


def _proposed(signatures: tuple[EvmSignature, ...]) -> BuilderSet:
    from nix_seed.core.errors import InputError
    from nix_seed.evm.builders import BuilderSet

    sets = {each.content if isinstance(each.content, BuilderSet) else None for each in signatures}
    found = sets.pop()
    if found is None or sets:
        raise InputError(
            "these are not signatures of one and the same set of builders",
            hint="let each builder sign the same builders, threshold and epoch",
        )
    return found


def set_json(found: BuilderSet) -> dict[str, Any]:
    """Return a set as JSON."""
    return {
        "epoch": found.epoch,
        "threshold": found.threshold,
        "builders": [{"id": each.id, "address": each.account} for each in found.builders],
    }


def set_lines(found: BuilderSet) -> Iterator[str]:
    """Yield a set as people read it."""
    number = len(found.builders)
    yield f"epoch    {found.epoch}: {found.threshold} of {number} builders must sign"
    for each in found.builders:
        yield f"  {each.account}  {each.id}"
