"""Rekor v2, and the embedded log behind ``nix-seed log serve``: one API, one client.

Writing is ``POST /api/v2/log/entries``. Reading is tlog-tiles below ``/api/v2``, or from anywhere
else where the tiles are served apart from the server.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

from nix_seed.clients.logs.base import Entry, check_own, evaluate_own
from nix_seed.clients.logs.http import HttpSource, LogHttp, Reply, parse_answer, refusal
from nix_seed.clients.logs.tile_log import TileReader
from nix_seed.clients.logs.tile_source import TileSource
from nix_seed.formats.intoto.envelope import Envelope
from nix_seed.formats.tlog.body import (
    ECDSA_P256,
    HashedRekord,
    LoggedSignature,
    Verifier,
    request_v2,
)
from nix_seed.formats.tlog.checkpoint import SignedCheckpoint
from nix_seed.formats.tlog.merkle import Proof
from nix_seed.ground.errors import CheckedFalse, CouldNotCheck, InputError
from nix_seed.rules.log_verify import EntryResult, TrustedLog
from nix_seed.rules.logged import logged_signature

__all__ = ["RekorV2"]

_INDEX = re.compile(r"[0-9]{1,19}")
_TRIES = 20  # to see a duplicate in the tree: it may have come in a moment ago
_PAUSE = 1.0


class RekorV2:
    """The log *trusted* at *url*; satisfies ``Log``. *tiles* reads its files from elsewhere."""

    def __init__(
        self,
        trusted: TrustedLog,
        url: str,
        *,
        tiles: TileSource | None = None,
        http: LogHttp | None = None,
    ) -> None:
        self._trusted = trusted
        self._http = http or LogHttp(url)
        self._reader = TileReader(trusted, tiles or HttpSource(LogHttp(f"{self._http.url}/api/v2")))

    @property
    def trusted(self) -> TrustedLog:
        """The log's identity and key."""
        return self._trusted

    @property
    def reader(self) -> TileReader:
        """Reads the log's files, and proves them."""
        return self._reader

    def append(self, envelope: Envelope, verifier: Verifier) -> Entry:
        """Log the envelope's signature; return the entry verbatim, its proof verified."""
        if verifier.key_details != ECDSA_P256:
            raise InputError(
                f"the log {self._trusted.id} takes signatures by ECDSA on P-256 only",
                hint="only a hash travels to the log, and Ed25519 cannot be verified by it; "
                "sign with the default kind of key, or log to Rekor v1",
            )
        logged = logged_signature(envelope, verifier)
        body = HashedRekord.of(logged)
        doing = f"logging to {self._trusted.id} at {self._http.url}"
        reply = self._http.post("api/v2/log/entries", request_v2(body), doing)
        if reply.status == 409:
            entry = self._duplicate(reply, body, doing)
        elif reply.status in {200, 201}:
            entry = parse_answer(reply, doing)
        else:
            raise refusal(reply, doing)
        check_own(self._trusted, entry, logged)
        return entry

    def _duplicate(self, reply: Reply, body: HashedRekord, doing: str) -> Entry:
        """Return the entry that a 409 points at, if it is ours to the byte."""
        text = reply.headers.get("X-Log-Index", "")
        if not _INDEX.fullmatch(text):
            raise CouldNotCheck(f"{doing}: the log has it already, and does not say where (409)")
        index = int(text)
        signed = self._checkpoint_over(index, doing)
        entry = self._reader.entry(index, signed)
        if entry.body != body.dump():
            raise CheckedFalse(
                f"{doing}: the log says that entry {index} is the one sent, but it is another",
                hint="nothing was logged; do not trust this log",
            )
        return entry.to_json()

    def _checkpoint_over(self, index: int, doing: str) -> SignedCheckpoint:
        for _ in range(_TRIES):
            signed = self.checkpoint()
            if index < signed.head.size:
                return signed
            time.sleep(_PAUSE)
        raise CouldNotCheck(
            f"{doing}: the log says it is entry {index} already, but holds {signed.head.size}",
            hint="try again later; if it stays so, do not trust this log",
        )

    def verify(self, entry: Entry, logged: LoggedSignature) -> EntryResult:
        """Judge *entry* by this log's key."""
        return evaluate_own(self._trusted, entry, logged)

    def lookup(self, digest: bytes) -> Iterator[Entry]:
        """Read the whole log for the SHA-256 *digest* of signed bytes; yield what was found."""
        for entry in self._reader.find(digest, self.checkpoint()):
            yield entry.to_json()

    def checkpoint(self) -> SignedCheckpoint:
        """Return the newest checkpoint."""
        return self._reader.checkpoint()

    def consistency(self, old: int, new: int) -> Proof:
        """Return the consistency proof between two sizes, made of the log's tiles."""
        return self._reader.consistency(old, new)
