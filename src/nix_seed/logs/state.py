"""Remembers the largest checkpoint seen of each log, so that a log cannot take back what it showed.

One file a log, ``<hash of origin and key>.checkpoint``: the signed note itself, evidence against
the log that anyone can verify. Safe for concurrent processes; it only ever moves forward.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nix_seed.core.errors import InputError
from nix_seed.core.files import explained, locked, read_if_there, write_atomically
from nix_seed.formats.tlog.merkle import Proof
from nix_seed.formats.tlog.note import SignedCheckpoint
from nix_seed.logs.log import Historian
from nix_seed.logs.rules.entry import TrustedLog
from nix_seed.logs.rules.history import HistoryResult, check_history

Consistency = Callable[[int, int], Proof]
"""Returns the log's consistency proof from a smaller size to a larger one (``Log.consistency``)."""


class CheckpointState:
    """The checkpoints kept in *directory*."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def seen(self, log: TrustedLog) -> SignedCheckpoint | None:
        """Return the largest checkpoint seen of *log*, None before the first."""
        path = self._path(log)
        data = read_if_there(path)
        if data is None:
            return None
        signed = SignedCheckpoint.parse(data, str(path))
        if not log.issued(signed.checkpoint.origin):
            raise InputError(f"{path} is of another log than {log.id}", hint=_HINT)
        log.key.check(signed.note)
        return signed

    def ask(
        self, log: TrustedLog, historian: Historian
    ) -> tuple[SignedCheckpoint, HistoryResult | None]:
        """Ask *historian* for the newest checkpoint, compare it with what was seen, remember it.

        It must not fall short of what was seen before it was asked. Another process may have seen
        more meanwhile, and that the log grew is no lie. Raises as ``advance`` does.
        """
        before = self.seen(log)
        signed = historian.checkpoint()
        back = before is not None and signed.head.size < before.head.size
        return signed, self.advance(log, signed, historian.consistency, newest=back)

    def advance(
        self,
        log: TrustedLog,
        signed: SignedCheckpoint,
        consistency: Consistency,
        *,
        newest: bool = True,
    ) -> HistoryResult | None:
        """Compare *signed*, whose signature was verified, with what was seen, and remember it.

        *consistency* is asked for a proof where one is needed. *newest*: the log gave it as its
        newest, so a smaller one is a rollback; not so for the checkpoint inside an entry.
        Returns None for the first checkpoint; raises ``CheckedFalse`` where the log rolled back,
        forked or shows a split view, and then remembers what it did before.
        """
        with self._alone():
            seen = self.seen(log)
            if seen is None:
                write_atomically(self._path(log), signed.dump())
                return None
            old, new = sorted((seen.head.size, signed.head.size))
            back = newest and signed.head.size < seen.head.size
            proof = consistency(old, new) if 0 < old < new and not back else ()
            result = check_history(log.id, seen.checkpoint, signed.checkpoint, proof, newest=newest)
            if signed.head.size > seen.head.size:
                write_atomically(self._path(log), signed.dump())
            return result

    def _path(self, log: TrustedLog) -> Path:
        # By key as well: another log that takes the same name has another history.
        name = hashlib.sha256(log.origin.encode() + b"\n" + log.key.der).hexdigest()
        return self._directory / f"{name}.checkpoint"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with explained("keeping the checkpoints seen"):
            self._directory.mkdir(parents=True, exist_ok=True)
            with locked(self._directory / "lock"):
                yield


_HINT = "remove it only if you know who changed it: it is what shows that a log rolled back"
