"""The contract behind the interface of all ledgers."""

from collections.abc import Iterator, Sequence

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError
from nix_seed.evm.contract import Contract
from nix_seed.evm.send import Sender
from nix_seed.evm.signatures import EvmSignature
from nix_seed.release.rules.record import LedgerEntry


class EvmLedger:
    """A ledger on chain; satisfies ``Ledger``.

    What it returns is final and, with several nodes, what all of them say. Publishing takes
    *signatures* of the contract's builders, and a *sender* who pays; reading takes neither.
    """

    def __init__(
        self,
        contract: Contract,
        sender: Sender | None = None,
        signatures: Sequence[EvmSignature] = (),
    ) -> None:
        self.contract = contract
        self._sender = sender
        self._signatures = tuple(signatures)

    @property
    def name(self) -> str:
        """The policy's id of it, its chain and address."""
        spec = self.contract.spec
        return f"{spec.id} ({self.contract.domain.address} on chain {spec.chain_id})"

    def publish(self, entry: LedgerEntry) -> LedgerEntry:
        """Enter *entry*, or find it entered; it is final when this returns.

        ``CheckedFalse``: another root or record stands for the commit, the root stands for another
        commit, or too few builders signed.
        """
        found = self._find(entry)
        if found is not None:
            return found
        if self._sender is None:
            raise InputError(
                f"entering a release into {self.name} takes an account that pays",
                hint="name its key with --key",
            )
        if self.contract.is_entered(entry.commit_key):
            return self._settled(entry, self._sender)
        try:
            sent = self.contract.publish(entry, self._signatures, self._sender)
        except CheckedFalse:
            # Another promoter may have been first; then its entry says why this one failed.
            if not self.contract.is_entered(entry.commit_key):
                raise
            return self._settled(entry, self._sender)
        found = self._find(entry)
        if found is None:
            raise CouldNotCheck(
                f"{self.name} does not show the entry that transaction 0x{sent.hash.hex()} made",
                hint="try again: the chain may have been reorganised, or the node lies",
            )
        return found

    def by_commit(self, commit_key: Digest) -> tuple[LedgerEntry, ...]:
        """Return the one entry of a commit, or none: the contract takes no second."""
        found = self.contract.entry(commit_key)
        return () if found is None else (found,)

    def by_root(self, root: Digest) -> tuple[LedgerEntry, ...]:
        """Return the one entry of a root, or none."""
        found = self.contract.entry_of(root)
        return () if found is None else (found,)

    def entries(self, since: int | None = None) -> Iterator[LedgerEntry]:
        """Yield the entries from number *since* on, once the replay of all of them holds."""
        yield from self.contract.entries()[since or 0 :]

    def _settled(self, entry: LedgerEntry, sender: Sender) -> LedgerEntry:
        """Wait until what stands for the commit, in a block not yet final, is final."""
        return sender.await_final(
            lambda: self._find(entry), f"entering the release into {self.name}"
        )

    def _find(self, entry: LedgerEntry) -> LedgerEntry | None:
        """Return the entry as it stands; raise if another stands in its place."""
        found = self.contract.entry(entry.commit_key)
        if found is not None:
            if found.says(entry):
                return found
            what = "root" if found.root != entry.root else "record"
            raise CheckedFalse(
                f"{self.name} holds another {what} for this commit: {getattr(found, what)}, "
                f"not {getattr(entry, what)}",
                hint="one of the two is not the release; find out which before anything else",
            )
        other = self.contract.entry_of(entry.root)
        if other is not None:
            raise CheckedFalse(
                f"{self.name} holds this root for another commit, whose key is {other.commit_key}"
            )
        return None
