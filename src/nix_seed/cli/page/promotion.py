"""Was it released, once, by those who may? The checks of a promotion, with its record."""

from __future__ import annotations

from collections.abc import Sequence

from nix_seed.cli.page.parts import Check, State, digest, facts, fold
from nix_seed.flows.report import Absent, Trusted
from nix_seed.formats.html.element import Element, el
from nix_seed.rules.promotion import PromotionResult, Record, Signature

__all__ = ["promotion_checks"]

# What each check of a promotion asks, in words.
_QUESTIONS = {
    "record": "Promotion",
    "repository": "Promotion: of this repository",
    "policy": "Promotion: by this policy",
    "promoters": "Promotion: signed by enough promoters",
    "unique": "Promotion: the only one of its commit",
    "members": "Promotion: of just these images",
    "index": "Promotion: as this index",
}


def promotion_checks(trust: Trusted | Absent) -> Sequence[Check]:
    """Return the checks of the release that the image is part of, or why there are none."""
    if isinstance(trust, Absent):
        words = "Whether those who may release this image did so."
        return [Check("Promotion", State(trust.state), words)]
    if not trust.policy.promoters:
        words = "The policy knows no promoters, so nobody was asked to have released this image."
        return [Check("Promotion", State.NOT_ASKED, words)]
    found = trust.verification.promotion
    if found is None:
        words = "Its images are of no one commit that could have been promoted."
        return [Check("Promotion", State.FALSE, words)]
    return _checks(found)


def _checks(found: PromotionResult) -> Sequence[Check]:
    evidence = None if found.record is None else _record(found.record)
    checks = []
    for number, check in enumerate(found.checks):
        name = _QUESTIONS.get(check.name, f"Promotion: {check.name}")
        shown = evidence if number == 0 else None
        checks.append(Check(name, State(check.fate.value), fold(check.words), shown))
    return checks


def _record(record: Record) -> Element:
    said = record.predicate
    signatures = [el("div", fold(_signature(each))) for each in record.signatures]
    return facts(
        [
            ("Commit", digest(str(said.commit))),
            ("Root", digest(str(said.root))),
            ("Systems", str(said.size)),
            ("Index", digest(str(said.index))),
            ("Record", digest(str(record.digest))),
            ("Comes after", [el("div", digest(str(each))) for each in said.previous] or "nothing"),
            ("Evidence", digest(str(said.evidence))),
            ("Signatures", signatures),
        ]
    )


def _signature(signature: Signature) -> str:
    who = signature.promoter.id if signature.promoter else "no promoter of the policy"
    logs = ", ".join(sorted(signature.logs)) or "no log"
    counts = "counts" if signature.counts else f"does not count: {signature.words}"
    return f"{who}, in {logs}: {counts}"
