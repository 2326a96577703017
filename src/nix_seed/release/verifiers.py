"""What a release is judged by, in one value: the policy, the time, and what needs more."""

from dataclasses import dataclass, field
from datetime import datetime

from nix_seed.core.events import OnEvent, ignore
from nix_seed.registry.open import Stores
from nix_seed.release.ledgers import Ledger
from nix_seed.release.pins import RootPins
from nix_seed.release.rules.record import promoter_trust
from nix_seed.trust.rules.bundle import BundleCheck, Trust
from nix_seed.trust.rules.claims import trust_of
from nix_seed.trust.rules.policy import Policy
from nix_seed.trust.watch_logs import LogWatch


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
    on_event: OnEvent = ignore

    @property
    def builders(self) -> Trust:
        """Whose word on builds counts."""
        return trust_of(self.policy, self.certificates)

    @property
    def promoters(self) -> Trust:
        """Whose word on releases counts."""
        return promoter_trust(self.policy, self.certificates)
