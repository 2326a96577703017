"""What judges the parts of a release that need more than its policy."""

from __future__ import annotations

from dataclasses import dataclass

from nix_seed.release.ledgers import Ledger
from nix_seed.release.pins import RootPins
from nix_seed.trust.rules.bundle import BundleCheck
from nix_seed.trust.rules.claims import LogJudge
from nix_seed.trust.watch_logs import LogWatch


@dataclass(frozen=True, slots=True)
class Judges:
    """What judges the parts that need more than the policy: log entries, and certificates.

    *watch* holds logs to what they showed before, *pins* the records; None: that is not asked.
    *ledgers* must hold every promotion as well; those *unasked*, by id, too, and may not be asked.
    """

    logs: LogJudge
    certificates: BundleCheck | None = None
    watch: LogWatch | None = None
    pins: RootPins | None = None
    ledgers: tuple[Ledger, ...] = ()
    unasked: tuple[str, ...] = ()
