"""Is it what independent builders got, and was it released? Every check of ``verify``.

Each check has its evidence: attestations, log entries, builders, dissent, the promotion's record.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeAlias

from nix_seed.core.verdict import Fate
from nix_seed.core.words import human_size, plural
from nix_seed.release.rules.answer import ImageVerification, about, evaluate_images, other_commits
from nix_seed.release.rules.record import PromotionResult
from nix_seed.report.page import parts
from nix_seed.report.page.parts import PageSection, ShownCheck, State, fold, macro
from nix_seed.report.report import Absent, TrustAnswer
from nix_seed.trust.rules.claims import JudgedClaim
from nix_seed.trust.rules.policy import Policy, signer_name
from nix_seed.trust.rules.quorum import Outcome

_table = partial(macro, of="trust.html.j2")
_Said: TypeAlias = tuple[parts.Child, str, JudgedClaim | None, str]
_SHADOWED = "agrees, but shares an attribute with one that is counted"
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


def promotion_checks(trust: TrustAnswer | Absent) -> Sequence[ShownCheck]:
    """Return the checks of the release that the image is part of, or why there are none."""
    if isinstance(trust, Absent):
        reason = "Whether those who may release this image did so."
        return [ShownCheck("Promotion", State(trust.state), reason)]
    if not trust.policy.promoters:
        reason = "The policy knows no promoters, so nobody was asked to have released this image."
        return [ShownCheck("Promotion", State.NOT_ASKED, reason)]
    found = trust.verification.promotion
    if found is None:
        reason = "Its images are of no one commit that could have been promoted."
        return [ShownCheck("Promotion", State.FALSE, reason)]
    return list(_promotion_checks(found))


def _promotion_checks(found: PromotionResult) -> Iterator[ShownCheck]:
    evidence = None if found.record is None else _table("record", found.record)
    for check in found.checks:
        name = _QUESTIONS.get(check.name, f"Promotion: {check.name}")
        yield ShownCheck(name, State(check.fate), fold(check.reason), evidence)
        evidence = None


def _tables(policy: Policy, image: ImageVerification) -> Iterator[tuple[str, list[_Said]]]:
    """Yield for each commit that was asked about its title, and what every builder says of it."""
    for quorum in image.quorums:
        said = [*_said(policy, replace(image, quorums=(quorum,)))]
        yield f"Builders, and what each says of commit {quorum.asked.commit.hex[:12]}", said
    if not image.quorums:
        yield "Builders, and what each says", [*_said(policy, image)]


def _said(policy: Policy, image: ImageVerification) -> Iterator[_Said]:
    """Yield what every builder of the policy says, heard or not, and all that did not count."""
    for builder in policy.builders:
        operator = builder.operator or "not said"
        reason: list[_Said] = [
            (builder.id, operator, claim, _SHADOWED if builder in quorum.shadowed else claim.reason)
            for quorum in image.quorums
            for claim in quorum.claims
            if claim.builder == builder and claim.discount != "another commit"
        ]
        missing = (each for quorum in image.quorums for each in quorum.missing)
        why = next(
            (each.reason for each in missing if each.builder == builder), "nothing was found"
        )
        yield from reason or [(builder.id, operator, None, why)]
    for quorum in image.quorums:
        for claim in quorum.claims:
            if claim.builder is None:
                yield fold(claim.claim.predicate.builder), "", claim, claim.reason


_UNASKED = (
    ("Signatures", "Whether anybody signed a statement about this image."),
    ("Logs", "Whether what was said of it lies in transparency logs."),
    ("Quorum", "Whether independent builders of its commit got the same."),
    ("Contents", "Whether its layers hold what its spec says."),
)


def origin(trust: TrustAnswer | Absent) -> list[tuple[str, parts.Child]]:
    """Return the commit, the source and the proved time that builders who agree give the image."""
    if isinstance(trust, Absent):
        return []
    quorums = [quorum for image in trust.verification.images for quorum in image.quorums]
    met = [quorum for quorum in quorums if quorum.met]
    commits = dict.fromkeys(quorum.asked.commit.hex for quorum in met)
    times = [c.claim.time for quorum in met for c in quorum.claims if c.claim.time is not None]
    return [
        ("Commit", [parts.digest(commit) for commit in commits] or None),
        ("Source", fold(trust.policy.source) if trust.policy.source and commits else None),
        ("Attested by", min(times).strftime("%Y-%m-%d %H:%M UTC") if times else None),
    ]


def verdict(trust: TrustAnswer | Absent) -> tuple[State, str]:
    """Return the state and words of the whole, short: of a promotion the promoters alone."""
    if isinstance(trust, Absent):
        return State(trust.state), trust.reason
    found = trust.verification
    state = State(found.fate)
    record = found.promotion.record if found.promotion is not None else None
    reason = found.reason
    if state is State.VERIFIED and record is not None:
        images = evaluate_images(found.images, ())[1]
        reason = f"{images}; promoted by {', '.join(each.id for each in record.promoters)}"
    whose = about(found, trust.policy.source)
    return state, "; ".join([f"{whose}: {reason}" if whose else reason, *other_commits(found)])


def trust_section(trust: TrustAnswer | Absent) -> PageSection:
    """Return the section."""
    state, reason = verdict(trust)
    question = "Do its builders agree?"
    if isinstance(trust, Absent):
        body: list[parts.Child] = [parts.note(state, reason, trust.hint)]
        if trust.state == "not asked":
            checks = [ShownCheck(name, State.NOT_ASKED, what) for name, what in _UNASKED]
            body.append(parts.check_list([*checks, *promotion_checks(trust)]))
        return PageSection("trust", "Trust", None, body, question, state, reason)
    lead = f"{state.value[0].upper()}{state.value[1:]} {reason}."
    found, policy = trust.verification, trust.policy
    images = [(each, [*_checks(policy, each)], [*_tables(policy, each)]) for each in found.images]
    if images:
        images[-1][1].extend(promotion_checks(trust))
    quorum = policy.quorum
    distinct = f" with distinct {', '.join(quorum.distinct)}" if quorum.distinct else ""
    logs = f"; each word in {plural(quorum.logs, 'log')}" if quorum.logs else "; no log"
    witnesses = f" under {plural(quorum.witnesses, 'witness')}" if quorum.witnesses else ""
    builders = plural(len(policy.builders), "builder")
    body = [
        _table(
            "body",
            trust,
            f"{quorum.threshold} of {builders}{distinct}{logs}{witnesses}",
            images,
            promotion_checks(trust),
        )
    ]
    return PageSection("trust", "Trust", lead, body, question, state, reason)


def _checks(policy: Policy, image: ImageVerification) -> Iterator[ShownCheck]:
    yield _signatures(image)
    yield _logged(policy, image)
    for quorum in image.quorums:
        state = State.VERIFIED if quorum.outcome is Outcome.MET else State.FALSE
        name = macro("line", ["Quorum on commit ", parts.digest(quorum.asked.commit)], "hint")
        yield ShownCheck("Quorum", state, [fold(quorum.reason), name], _table("quorum", quorum))
    if not image.quorums:
        reason = "No builder of the policy says of any commit that this is its image."
        yield ShownCheck("Quorum", State.FALSE, reason)
    for trouble in image.troubles:
        yield ShownCheck("Beside the image", State(trouble.fate), fold(trouble.reason))
    yield _depth(image)


def _signatures(image: ImageVerification) -> ShownCheck:
    fates = [finding.verdict.fate for finding in image.findings]
    counts = {fate: fates.count(fate) for fate in Fate}
    reason = f"{plural(len(fates), 'attestation')} found: " + ", ".join(
        f"{count} {fate.value}" for fate, count in counts.items() if count
    )
    if not fates:
        return ShownCheck("Signatures", State.FALSE, "No attestation was found beside the image.")
    # What is checked and false counts for nothing; it is the quorum that may miss it.
    state = State.STATED if counts[Fate.FALSE] else State.VERIFIED
    if counts[Fate.UNCHECKED] or not counts[Fate.VERIFIED]:
        state = State.UNCHECKED if counts[Fate.UNCHECKED] else State.FALSE
    table = _table("signed", image, lambda verdict: signer_name(verdict.signer))
    return ShownCheck("Signatures", state, reason, table)


def _logged(policy: Policy, image: ImageVerification) -> ShownCheck:
    if not policy.quorum.logs:
        return ShownCheck("Logs", State.NOT_ASKED, "The policy demands no transparency log.")
    good = [each for each in image.findings if each.verdict.verified]
    held = [each for each in good if len(each.logs.logs) >= policy.quorum.logs]
    reason = (
        f"{len(held)} of {plural(len(good), 'verified attestation')} are proved to lie in"
        f" {plural(policy.quorum.logs, 'log')} of the policy."
    )
    state = State.FALSE
    if held:
        state = State.VERIFIED if len(held) == len(good) else State.STATED
    return ShownCheck("Logs", state, reason, _table("logged", image, good) if good else None)


def _depth(image: ImageVerification) -> ShownCheck:
    depth = image.depth
    if depth is None:
        reason = "The layers were not read; their digests are those that builders signed."
        return ShownCheck("Contents", State.NOT_ASKED, reason)
    counts = f"{plural(depth.layers, 'layer')}, {plural(depth.paths, 'store path')}"
    read = f"{counts}, {human_size(depth.size)} read"
    if not depth.problems:
        return ShownCheck(
            "Contents", State.VERIFIED, f"{read}: every NAR hash is as the spec says."
        )
    problems = macro("bullets", list(map(fold, depth.problems)))
    return ShownCheck(
        "Contents", State.FALSE, f"{read}: {plural(len(depth.problems), 'problem')}.", problems
    )
