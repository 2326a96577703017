"""What a check of a machine or an image found, and what all of it comes to."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from nix_seed.core.errors import CouldNotCheck, NixSeedError
from nix_seed.core.members import members
from nix_seed.setup.rules.contract import ClauseResult


class Health(StrEnum):
    """How a check ended. A warning is something that works, and yet is worth knowing."""

    FINE = "fine"
    WARNING = "warning"
    FALSE = "false"
    UNCHECKED = "not checked"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The check *name* of an *area* (``nix``, ``docker``): *said* is what was found.

    *fix* says what to do about it; only what is fine may do without. *why* is what it is for.
    """

    area: str
    name: str
    outcome: Health
    said: str
    fix: str = ""
    why: str = ""

    def __post_init__(self) -> None:
        if self.outcome is not Health.FINE and not self.fix:
            raise ValueError(f"{self.area}, {self.name}: what is not fine needs a fix")

    def to_json(self) -> dict[str, Any]:
        """Return it as programs read it."""
        return members(self, "area", "name", "outcome", "said", "fix", "why")


def exit_code(diagnoses: Iterable[Diagnosis]) -> int:
    """Return 1 if something was checked and is false, else 3 if something was not checked, else 0.

    Nothing checked at all is 3: it would say that all is well.
    """
    outcomes = {each.outcome for each in diagnoses}
    if Health.FALSE in outcomes:
        return 1
    return 3 if Health.UNCHECKED in outcomes or not outcomes else 0


def diagnose_error(area: str, name: str, error: Exception) -> Diagnosis:
    """Return what an *error* in the middle of a check comes to; a bug is no answer either."""
    if not isinstance(error, NixSeedError):
        said = f"an unexpected {type(error).__name__}: {error}"
        return Diagnosis(area, name, Health.UNCHECKED, said, "this is a fault of nix-seed")
    outcome = Health.UNCHECKED if isinstance(error, CouldNotCheck) else Health.FALSE
    said = "\n".join(part for part in (error.message, error.detail) if part)
    return Diagnosis(area, name, outcome, said, error.hint or "see its own message")


def diagnose_finding(area: str, finding: ClauseResult) -> Diagnosis:
    """Return what a clause of the image contract comes to, kept or broken."""
    check = finding.check
    if finding.passed:
        return Diagnosis(area, check.name, Health.FINE, finding.said, why=check.why)
    said = finding.said or "it failed, and said nothing"
    return Diagnosis(area, check.name, Health.FALSE, said, check.fix, check.why)
