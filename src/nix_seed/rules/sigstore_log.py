"""What Sigstore's verifier passes over in a log entry (sigstore 4.5): checked beside it.

It verifies the checkpoint's signature and compares the root. It does not compare the tree's size,
takes the log's name in the signature line from nobody, of ``logId`` reads four bytes, and passes
over an index and a time that no promise signs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from nix_seed.formats.tlog.checkpoint import SignedCheckpoint
from nix_seed.formats.tlog.entry import LogEntry
from nix_seed.formats.tlog.merkle import TreeHead
from nix_seed.formats.tlog.note import NoteKey
from nix_seed.ground.errors import CheckedFalse, InputError
from nix_seed.rules.bundle_verify import Reason, Refused

__all__ = ["check_log"]


def check_log(entry: Mapping[str, Any], keys: Iterable[bytes]) -> None:
    """Raise ``Refused`` unless the entry's checkpoint is, all of it, of the log it names.

    *keys* are the logs' SubjectPublicKeyInfos. That the leaf is in the tree was proved before.
    """
    try:
        found = LogEntry.from_json(entry, "the log entry")
        if found.proof is None:
            raise Refused(Reason.LOG, "the log entry has no inclusion proof")
        signed = SignedCheckpoint.parse(found.proof.checkpoint, "the log entry's checkpoint")
        if signed.head != TreeHead(found.proof.size, found.proof.root):
            raise Refused(
                Reason.LOG, "the log entry's proof is of another tree than its checkpoint"
            )
        _check_promise(found)
        _key_of(found, keys, _name(signed.checkpoint.origin)).check(signed.note)
    except (InputError, CheckedFalse) as error:
        raise Refused(Reason.LOG, error.message) from error


def _check_promise(entry: LogEntry) -> None:
    """Index and time are signed by Rekor v1's promise; without one, the proof has the index."""
    if entry.promise is not None and not entry.integrated_time:
        raise Refused(Reason.LOG, "the log entry has a promise without the time it is of")
    if entry.promise is None and entry.integrated_time:
        raise Refused(Reason.LOG, "the log entry gives a time that nothing signs")
    if entry.promise is None and (entry.proof is None or entry.index != entry.proof.index):
        raise Refused(Reason.LOG, "the log entry's index is not that of its proof")


def _key_of(entry: LogEntry, keys: Iterable[bytes], name: str) -> NoteKey:
    for der in keys:
        key = NoteKey.from_der(name, der)
        if entry.log_id in (key.log_id, hashlib.sha256(der).digest()):
            return key
    raise Refused(Reason.LOG, "the log entry's logId is that of no trusted log")


def _name(origin: str) -> str:
    """Rekor v1 signs as ``NAME`` for the origin ``NAME - TREE``."""
    return origin.partition(" - ")[0]
