"""The contract as its builders and readers use it: deploy, read, replay, change the builders.

A replay of its events is held against its storage: none withheld, added or altered. The contract
keeps the number of entries and a hash chain over them
(``head' = keccak256(head ‖ commitKey ‖ root ‖ record)``, from 32 zero bytes on), so a replay either
ends in the contract's own ``head`` or is not what happened. To releases it is a ledger like any.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import pairwise
from typing import Any, Final, Self

from eth_utils.crypto import keccak
from web3 import Web3

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError
from nix_seed.core.values import dataclass
from nix_seed.evm import signatures as signing
from nix_seed.evm.node import ContractEvent, shipped
from nix_seed.evm.nodes import Nodes, Sender, Sent, View
from nix_seed.evm.signatures import BuilderSet, EvmSignature
from nix_seed.release.rules.record import LedgerEntry
from nix_seed.trust.rules.policy import LedgerSpec

_NOTHING: Final = bytes(32)
_LIES: Final = "a node that lies shows this; ask another"


@dataclass(frozen=True, slots=True)
class Status:
    """What the contract says of itself at *block*, a height that is final."""

    builders: BuilderSet
    count: int
    head: bytes
    block: int


class EvmLedger:
    """The contract of *spec*, seen through *nodes*; satisfies ``Ledger``.

    What it returns is final and, with several nodes, what all of them say. Publishing and changing
    the builders take *signatures* of those there are, and a *sender* who pays; reading neither.
    """

    def __init__(
        self,
        spec: LedgerSpec,
        nodes: Nodes,
        sender: Sender | None = None,
        signatures: Sequence[EvmSignature] = (),
    ) -> None:
        self.spec = spec
        self.nodes = nodes
        self.domain = signing.Domain.of(spec)
        self._sender = sender
        self._signatures = tuple(signatures)

    @classmethod
    def open(
        cls,
        spec: LedgerSpec,
        sender: Sender | None = None,
        signatures: Sequence[EvmSignature] = (),
    ) -> Self:
        """Return the contract of *spec*, seen through its nodes; none is asked yet."""
        nodes = Nodes.connect(spec.chain_id, spec.rpc, spec.confirmations)
        return cls(spec, nodes, sender, signatures)

    @property
    def name(self) -> str:
        """The policy's id of it, its chain and address."""
        return f"{self.spec.id} ({self.domain.address} on chain {self.spec.chain_id})"

    def view(self) -> AbstractContextManager[View]:
        """Give a view of it at the newest final block; its code has been compared."""
        return self.nodes.view(self.domain.address, self.spec.from_block)

    def status(self) -> Status:
        """Return the present builders, the number of entries, and the head of their chain."""
        with self.view() as view:
            head = view.read("head")
            return Status(present_builders(view), view.read("count"), head, view.block.number)

    def by_commit(self, commit_key: Digest) -> tuple[LedgerEntry, ...]:
        """Return the one entry of a commit, or none: the contract takes no second."""
        with self.view() as view:
            return self._entries(view, commit_key)

    def by_root(self, root: Digest) -> tuple[LedgerEntry, ...]:
        """Return the one entry of a root, or none."""
        with self.view() as view:
            key = view.read("commitOf", root.raw)
            found = () if key == _NOTHING else self._entries(view, Digest(key.hex()))
        if key != _NOTHING and [each.root for each in found] != [root]:
            raise CheckedFalse(
                f"{self.spec.id} shows another root for the commit of the root {root}", hint=_LIES
            )
        return found

    def entries(self, since: int | None = None) -> Iterator[LedgerEntry]:
        """Yield the entries from number *since* on, once the replay of all of them holds."""
        with self.view() as view:
            found = replay_entries(view)
        yield from found[since or 0 :]

    def history(self) -> tuple[BuilderSet, ...]:
        """Replay all sets of builders, the present one last."""
        with self.view() as view:
            return replay_builders(view)

    def sign(self, entry: LedgerEntry, key: signing.EvmKey) -> EvmSignature:
        """Sign *entry* as one of the present builders; ``InputError`` if the key is of none."""
        builders = self.status().builders
        if builders.named(key.address) is None:
            known = ", ".join(f"{each.id} {each.account}" for each in builders.builders)
            raise InputError(
                f"{key.address} is no builder of epoch {builders.epoch}", hint=f"these are: {known}"
            )
        return EvmSignature.make(key, self.domain, signing.ReleaseMessage(entry, builders.epoch))

    def publish(self, entry: LedgerEntry) -> LedgerEntry:
        """Enter *entry*, or find it entered; it is final when this returns.

        ``CheckedFalse``: another root or record stands for the commit, the root stands for another
        commit, or too few builders signed.
        """
        found = self._find(entry)
        if found is not None:
            return found
        sender = self._payer
        if self._is_entered(entry.commit_key):
            return self._settled(entry, sender)
        try:
            sent = self._enter(entry)
        except CheckedFalse:
            # Another promoter may have been first; then its entry says why this one failed.
            if not self._is_entered(entry.commit_key):
                raise
            return self._settled(entry, sender)
        found = self._find(entry)
        if found is None:
            raise CouldNotCheck(
                f"{self.name} does not show the entry that transaction 0x{sent.hash.hex()} made",
                hint="try again: the chain may have been reorganised, or the node lies",
            )
        return found

    def set_builders(self, proposed: BuilderSet) -> Sent:
        """Replace the builders by *proposed*, which the present ones have signed."""
        builders = self.status().builders
        if proposed.epoch != builders.epoch + 1:
            raise CheckedFalse(
                f"the proposed builders are for epoch {proposed.epoch}, and the contract's next is "
                f"{builders.epoch + 1}",
                hint="propose and sign them anew: 'nix-seed ledger evm builders sign'",
            )
        words = self._counted(proposed, builders)
        members = [(each.account, each.raw_id) for each in proposed.builders]
        arguments = (members, proposed.threshold, proposed.epoch, words)
        return self._send("setBuilders", arguments, "changing the builders")

    @property
    def _payer(self) -> Sender:
        if self._sender is None:
            raise InputError(
                f"entering a release into {self.name} takes an account that pays",
                hint="name its key with --key",
            )
        return self._sender

    def _find(self, entry: LedgerEntry) -> LedgerEntry | None:
        """Return the entry as it stands; raise if another stands in its place."""
        for found in self.by_commit(entry.commit_key):
            if found.says(entry):
                return found
            what = "root" if found.root != entry.root else "record"
            raise CheckedFalse(
                f"{self.name} holds another {what} for this commit: {getattr(found, what)}, "
                f"not {getattr(entry, what)}",
                hint="one of the two is not the release; find out which before anything else",
            )
        for other in self.by_root(entry.root):
            raise CheckedFalse(
                f"{self.name} holds this root for another commit, whose key is {other.commit_key}"
            )
        return None

    def _is_entered(self, commit_key: Digest) -> bool:
        """Whether anything stands for a commit in the newest block, final or not."""
        key = commit_key.raw
        root, _ = self.nodes.first.read(self.domain.address, "entries", key, at="latest")
        return bool(root != _NOTHING)

    def _enter(self, entry: LedgerEntry) -> Sent:
        builders = self.status().builders
        # Nobody signs where it lies.
        content = signing.ReleaseMessage(replace(entry, position=""), builders.epoch)
        words = self._counted(content, builders)
        arguments = (entry.commit_key.raw, entry.root.raw, entry.record.raw, words)
        return self._send("publish", arguments, "entering the release")

    def _counted(self, content: signing.Signed, builders: BuilderSet) -> list[tuple[int, int, int]]:
        """Return the signatures that count, as the contract takes them."""
        found = signing.collect(self._signatures, self.domain, content, builders)
        return [each.words for each in found]

    def _settled(self, entry: LedgerEntry, sender: Sender) -> LedgerEntry:
        """Wait until what stands for the commit, in a block not yet final, is final."""
        doing = f"entering the release into {self.name}"
        return sender.await_final(lambda: self._find(entry), doing)

    def _entries(self, view: View, commit_key: Digest) -> tuple[LedgerEntry, ...]:
        """Return what the state shows for a commit, and where its event lies, if that is found."""
        root, record = view.read("entries", commit_key.raw)
        if root == _NOTHING:
            return ()
        log = view.log_about("Published", commit_key.raw)
        if log is not None and (log.values["root"], log.values["record"]) != (root, record):
            raise CheckedFalse(
                f"{self.spec.id} shows one entry for a commit in its state, another in its events",
                hint=_LIES,
            )
        where = f"by block {view.block.number}" if log is None else _position(log)
        return (LedgerEntry(commit_key, Digest(root.hex()), Digest(record.hex()), where),)

    def _send(self, function: str, arguments: Any, doing: str) -> Sent:
        contract = Web3().eth.contract(self.domain.address, abi=shipped().abi)  # type: ignore[call-overload]
        data = contract.encode_abi(function, list(arguments))
        return self._payer.send(self.nodes, self.domain.address, bytes.fromhex(data[2:]), doing)


def deploy(nodes: Nodes, builders: BuilderSet, sender: Sender) -> tuple[str, Sent]:
    """Deploy the contract; return its address, where its code has been compared."""
    if builders.epoch != 1:
        raise InputError(f"a contract begins with epoch 1, not {builders.epoch}")
    contract = Web3().eth.contract(abi=shipped().abi, bytecode=shipped().bytecode)
    members = [(each.account, each.raw_id) for each in builders.builders]
    data = contract.constructor(members, builders.threshold).data_in_transaction
    sent = sender.send(nodes, None, bytes.fromhex(data[2:]), "deploying the ledger")
    address = sent.receipt.contract
    if address is None:
        raise CouldNotCheck("the node does not say where the contract is")
    with nodes.view(address) as view:
        found = present_builders(view)
    if found != builders:
        raise CheckedFalse(f"the contract at {address} has other builders than were given")
    return address, sent


def replay_entries(view: View) -> tuple[LedgerEntry, ...]:
    """Return every entry, in order, from the events there are.

    ``CouldNotCheck``: events are missing, as with a node that prunes them. ``CheckedFalse``: they
    are not those that the contract's state was made by.
    """
    count, head = view.read("count"), view.read("head")
    logs = view.logs("Published")
    _check_numbers(view, "entries", count, [log.values["index"] for log in logs])
    chain = _NOTHING
    entries = []
    for log in logs:
        said = [log.values[name] for name in ("commitKey", "root", "record")]
        chain = keccak(chain + b"".join(said))
        key, root, record = (Digest(each.hex()) for each in said)
        entries.append(LedgerEntry(key, root, record, _position(log)))
    if chain != head:
        raise CheckedFalse(
            f"the entries that are shown of {view.address} are not those it was made by",
            hint=_LIES,
        )
    return tuple(entries)


def replay_builders(view: View) -> tuple[BuilderSet, ...]:
    """Return every set of builders there was, the present one last."""
    present = present_builders(view)
    values = [log.values for log in view.logs("BuildersChanged")]
    sets = [BuilderSet(_builders(v["builders"]), v["threshold"], v["epoch"]) for v in values]
    numbers = [each.epoch - 1 for each in sets]
    _check_numbers(view, "sets of builders", present.epoch, numbers)
    if sets[-1] != present:
        raise CheckedFalse(
            f"the builders of {view.address} are not those that its last event names", hint=_LIES
        )
    return tuple(sets)


def present_builders(view: View) -> BuilderSet:
    """Return the builders who must sign now."""
    builders = _builders(view.read("builderSet"))
    return BuilderSet(builders, view.read("threshold"), view.read("epoch"))


def _position(log: ContractEvent) -> str:
    """Return where an entry lies, for people."""
    return f"entry {log.values['index']}, block {log.block}, transaction 0x{log.transaction.hex()}"


def _builders(values: Sequence[Any]) -> tuple[signing.EvmBuilder, ...]:
    # Events decode a struct by its names, calls as a tuple.
    pairs = ((v["account"], v["id"]) if hasattr(v, "keys") else v for v in values)
    return tuple(signing.EvmBuilder.from_chain(account, raw) for account, raw in pairs)


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
        hint=_LIES,
    )
