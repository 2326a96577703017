"""Replays the contract's events and holds them to its storage: none withheld, added or altered.

The contract keeps the number of entries and a hash chain over them
(``head' = keccak256(head ‖ commitKey ‖ root ‖ record)``, from 32 zero bytes on), so a replay either
ends in the contract's own ``head`` or is not what happened.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from eth_utils.crypto import keccak

from nix_seed.clients.ledgers.evm.builders import BuilderSet, EvmBuilder
from nix_seed.clients.ledgers.evm.node import Log
from nix_seed.clients.ledgers.evm.nodes import View
from nix_seed.ground.digests import Digest
from nix_seed.ground.errors import CheckedFalse, CouldNotCheck
from nix_seed.rules.ledger_entry import LedgerEntry

__all__ = ["position", "present_builders", "replay_builders", "replay_entries"]


def replay_entries(view: View, first: int) -> tuple[LedgerEntry, ...]:
    """Return every entry, in order, from the events since block *first*.

    ``CouldNotCheck``: events are missing, as with a node that prunes them. ``CheckedFalse``: they
    are not those that the contract's state was made by.
    """
    count, head = view.read("count"), view.read("head")
    logs = view.logs("Published", first)
    numbers = [log.values["index"] for log in logs]
    _check_numbers(view, "entries", count, numbers)
    chain = bytes(32)
    for log in logs:
        values = log.values
        chain = keccak(chain + values["commitKey"] + values["root"] + values["record"])
    if chain != head:
        raise CheckedFalse(
            f"the entries that are shown of {view.address} are not those it was made by",
            hint="a node that lies shows this; ask another",
        )
    return tuple(_entry(log) for log in logs)


def replay_builders(view: View, first: int) -> tuple[BuilderSet, ...]:
    """Return every set of builders there was, the present one last."""
    present = present_builders(view)
    logs = view.logs("BuildersChanged", first)
    sets = [_set(log.values) for log in logs]
    numbers = [each.epoch - 1 for each in sets]
    _check_numbers(view, "sets of builders", present.epoch, numbers)
    if sets[-1] != present:
        raise CheckedFalse(
            f"the builders of {view.address} are not those that its last event names",
            hint="a node that lies shows this; ask another",
        )
    return tuple(sets)


def present_builders(view: View) -> BuilderSet:
    """Return the builders who must sign now."""
    return BuilderSet(
        _builders(view.read("builderSet")), view.read("threshold"), view.read("epoch")
    )


def position(log: Log) -> str:
    """Return where an entry lies, for people."""
    return f"entry {log.values['index']}, block {log.block}, transaction 0x{log.transaction.hex()}"


def _entry(log: Log) -> LedgerEntry:
    values = log.values
    key, root, record = (Digest(values[name].hex()) for name in ("commitKey", "root", "record"))
    return LedgerEntry(key, root, record, position(log))


def _set(values: Any) -> BuilderSet:
    return BuilderSet(_builders(values["builders"]), values["threshold"], values["epoch"])


def _builders(values: Sequence[Any]) -> tuple[EvmBuilder, ...]:
    return tuple(EvmBuilder.from_chain(account, raw) for account, raw in map(_pair, values))


def _pair(value: Any) -> tuple[str, bytes]:
    """Events decode a struct by its names, calls as a tuple."""
    return (value["account"], value["id"]) if hasattr(value, "keys") else (value[0], value[1])


def _check_numbers(view: View, what: str, count: int, numbers: Sequence[int]) -> None:
    """Raise unless *numbers* are 0 to *count* - 1; a node may claim any count, however large."""
    if len(numbers) == count and all(number == i for i, number in enumerate(numbers)):
        return
    rising = all(one < other for one, other in pairwise(numbers))
    if rising and len(numbers) < count and (not numbers or numbers[-1] < count):
        lacks = next((i for i, number in enumerate(numbers) if number != i), len(numbers))
        raise CouldNotCheck(
            f"{count - len(numbers)} of the {count} {what} of {view.address} are not shown; "
            f"the first that lacks is number {lacks}",
            hint="the node withholds or has pruned them, or fromBlock is too high: ask another",
        )
    raise CheckedFalse(
        f"the {what} that are shown of {view.address} are not numbered 0 to {count - 1}",
        hint="a node that lies shows this; ask another",
    )
