"""What a release is judged by, in one value: the policy, the time, and what needs more.

A ledger is opened by its policy, whatever keeps it (docs/formats-promotion.md); the add-on that it
needs is imported only then. A ledger proves what is in it, and not that nothing else is, so this
machine is one more witness: under which root it saw a commit promoted is kept in one file a commit,
``<hash of repository and commit key>.root``.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CouldNotCheck, InputError
from nix_seed.core.files import read_if_there, write_atomically
from nix_seed.core.values import dataclass
from nix_seed.formats.intoto.statement import Commit
from nix_seed.registry.open import Stores
from nix_seed.release.rules.record import LedgerEntry, promoter_trust
from nix_seed.trust.rules.bundle import BundleCheck, Trust
from nix_seed.trust.rules.claims import trust_of
from nix_seed.trust.rules.policy import LedgerSpec, Policy
from nix_seed.trust.watch_logs import LogWatch


class RootPins:
    """The roots kept in *directory*."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def seen(self, repository: str, commit: Commit) -> Digest | None:
        """Return the root seen before; ``CouldNotCheck`` where its file is damaged."""
        path = self._path(repository, commit)
        text = read_if_there(path)
        if text is None:
            return None
        try:
            return Digest.parse(text.decode("utf-8", "replace").strip())
        except InputError as error:
            raise CouldNotCheck(
                f"the root seen before is damaged: {path}: {error.message}"
            ) from error

    def keep(self, repository: str, commit: Commit, root: Digest) -> None:
        """Remember *root*, unless one is remembered."""
        path = self._path(repository, commit)
        if not path.exists():
            write_atomically(path, f"{root}\n".encode())

    def _path(self, repository: str, commit: Commit) -> Path:
        name = hashlib.sha256(repository.encode() + b"\0" + commit.key.raw).hexdigest()
        return self._directory / f"{name}.root"


class Ledger(Protocol):
    """A ledger of releases, by commit and by root. How it takes an entry is its own affair.

    ``CouldNotCheck``: it is out of reach. ``CheckedFalse``: it answered, and what it says is false
    or forbids what was asked.
    """

    @property
    def name(self) -> str:
        """What people call it; also names it in errors."""
        ...

    def by_commit(self, commit_key: Digest) -> tuple[LedgerEntry, ...]:
        """Return what it holds for a commit: more than one entry is an alarm."""
        ...

    def by_root(self, root: Digest) -> tuple[LedgerEntry, ...]:
        """Return the entries with this root."""
        ...

    def entries(self, since: int | None = None) -> Iterator[LedgerEntry]:
        """Replay the ledger from its first entry, or from *since* (a block, or an index) on."""
        ...


def open_ledger(spec: LedgerSpec) -> Ledger:
    """Return the ledger *spec*, as the add-on for its kind opens it.

    Raises ``InputError`` where no add-on for this kind is installed.
    """
    from importlib.metadata import entry_points

    for add_on in entry_points(group="nix_seed.ledgers", name=spec.kind):
        ledger: Ledger = add_on.load()(spec)
        return ledger
    raise InputError(
        f"the policy names a ledger of the kind {spec.kind}, and nothing here can read one",
        hint=f"install it with: pip install 'nix-seed[{spec.kind}]'",
    )


@dataclass(frozen=True, slots=True)
class Verifiers:
    """Judges by *policy* at the time *now* what lies in *stores*.

    *certificates* judges keyless signatures. *watch* holds logs to what they showed before, *pins*
    the records; None: that is not asked. *ledgers* must hold every promotion as well; those
    *unasked*, by id, too, and may not be asked.
    """

    policy: Policy
    now: datetime
    stores: Stores = field(default_factory=Stores)
    certificates: BundleCheck | None = None
    watch: LogWatch | None = None
    pins: RootPins | None = None
    ledgers: tuple[Ledger, ...] = ()
    unasked: tuple[str, ...] = ()

    @property
    def builders(self) -> Trust:
        """Whose word on builds counts."""
        return trust_of(self.policy, self.certificates)

    @property
    def promoters(self) -> Trust:
        """Whose word on releases counts."""
        return promoter_trust(self.policy, self.certificates)
