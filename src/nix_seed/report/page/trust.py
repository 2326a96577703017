"""Was it released, once, by those who may? The checks of a promotion, with its record.

The builders of a policy: what each says of an image, and in what dissenters' images differ.

Is it what independent builders got? Every check of ``verify``, with its evidence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nix_seed.core.verdict import Fate
from nix_seed.core.words import human_size, plural
from nix_seed.release.rules.answer import ImageVerification, evaluate_images
from nix_seed.release.rules.record import PromotionResult, Record, RecordSignature
from nix_seed.report.page.parts import (
    Column,
    Row,
    Section,
    ShownCheck,
    State,
    check_list,
    data_table,
    digest,
    facts,
    fold,
    mark,
    note,
    slug,
)
from nix_seed.report.page.sizes import path_name
from nix_seed.report.report import Absent, Trusted
from nix_seed.report.rules.element import Child, Element, el
from nix_seed.trust.rules.claims import DissentDetail, JudgedClaim, Standing
from nix_seed.trust.rules.policy import Builder, Policy, signer_name
from nix_seed.trust.rules.quorum import Outcome, QuorumResult

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


def promotion_checks(trust: Trusted | Absent) -> Sequence[ShownCheck]:
    """Return the checks of the release that the image is part of, or why there are none."""
    if isinstance(trust, Absent):
        words = "Whether those who may release this image did so."
        return [ShownCheck("Promotion", State(trust.state), words)]
    if not trust.policy.promoters:
        words = "The policy knows no promoters, so nobody was asked to have released this image."
        return [ShownCheck("Promotion", State.NOT_ASKED, words)]
    found = trust.verification.promotion
    if found is None:
        words = "Its images are of no one commit that could have been promoted."
        return [ShownCheck("Promotion", State.FALSE, words)]
    return _promotion_checks(found)


def _promotion_checks(found: PromotionResult) -> Sequence[ShownCheck]:
    evidence = None if found.record is None else _record(found.record)
    checks = []
    for number, check in enumerate(found.checks):
        name = _QUESTIONS.get(check.name, f"Promotion: {check.name}")
        shown = evidence if number == 0 else None
        checks.append(ShownCheck(name, State(check.fate.value), fold(check.words), shown))
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


def _signature(signature: RecordSignature) -> str:
    who = signature.promoter.id if signature.promoter else "no promoter of the policy"
    logs = ", ".join(sorted(signature.logs)) or "no log"
    counts = "counts" if signature.counts else f"does not count: {signature.words}"
    return f"{who}, in {logs}: {counts}"


_MOST = 200  # paths of one dissent
_STANDINGS = {
    Standing.AGREES: State.VERIFIED,
    Standing.DISSENTS: State.FALSE,
    Standing.NOT_COUNTED: State.STATED,
}


def builder_table(policy: Policy, image: ImageVerification, name: str) -> Element:
    """Return every builder of the policy, heard or not, and every word that did not count."""
    columns = [
        Column("Builder"),
        Column("Says"),
        Column("Operator"),
        Column("In logs"),
        Column("Proved by (UTC)"),
        Column("Why", sorts=False),
    ]
    rows: list[list[Child]] = []
    for builder in policy.builders:
        words = [row for quorum in image.quorums for row in _rows(builder, quorum)]
        rows += words or [_silent(builder, image)]
    strangers = [
        claim for quorum in image.quorums for claim in quorum.claims if claim.builder is None
    ]
    rows += [
        _row(fold(claim.claim.predicate.builder), "", claim, claim.words) for claim in strangers
    ]
    return data_table("Builders, and what each says", columns, rows, name=name)


def _rows(builder: Builder, quorum: QuorumResult) -> Iterator[list[Child]]:
    for claim in quorum.claims:
        if claim.builder == builder and claim.discount != "another commit":
            words = claim.words
            if builder in quorum.shadowed:
                words = "agrees, but shares an attribute with one that is counted"
            yield _row(builder.id, builder.operator or "not said", claim, words)


def _row(who: Child, operator: str, claim: JudgedClaim, words: str) -> list[Child]:
    time = claim.claim.time
    return [
        who,
        _standing(_STANDINGS[claim.standing], claim.standing.value),
        operator,
        ", ".join(sorted(claim.claim.logs)) or "none",
        f"{time:%Y-%m-%d %H:%M}" if time else "no proved time",
        fold(words),
    ]


def _silent(builder: Builder, image: ImageVerification) -> list[Child]:
    missing = (each for quorum in image.quorums for each in quorum.missing)
    words = next((each.words for each in missing if each.builder == builder), "nothing was found")
    state = _standing(State.NOT_ASKED, "nothing")
    return [builder.id, state, builder.operator or "not said", "", "", fold(words)]


def _standing(state: State, word: str) -> Element:
    return el("span", mark(state), " ", word, class_=f"state {slug(state)}")


def dissent_tables(image: ImageVerification, number: int) -> Iterator[Element]:
    """Yield for each dissenter in which store paths its image differs."""
    for position, detail in enumerate(image.dissents):
        yield _dissent(detail, f"dissent-{number}-{position}")


def _dissent(detail: DissentDetail, name: str) -> Element:
    found = detail.difference
    caption = f"In what the image of {detail.builder} differs"
    columns = [
        Column("Store path"),
        Column("NAR hash here", sorts=False),
        Column("There", sorts=False),
    ]
    if found is None:
        return data_table(caption, columns, [[fold(detail.words), "", ""]], name=name)
    rows: list[list[Child]] = [
        [path_name(each.path), _hash(each.ours), _hash(each.theirs)] for each in found.paths[:_MOST]
    ]
    rest = len(found.paths) - _MOST
    if rest > 0:
        rows.append([f"and {rest} more: nix-seed diff lists them", "", ""])
    rows += [[f"seed.json: {member}", "differs", "differs"] for member in found.members]
    return data_table(caption, columns, rows, name=name)


def _hash(value: object) -> Child:
    return "absent" if value is None else digest(str(value))


_STATES = {
    Fate.VERIFIED: State.VERIFIED,
    Fate.FALSE: State.FALSE,
    Fate.UNCHECKED: State.UNCHECKED,
}
_UNASKED = (
    ("Signatures", "Whether anybody signed a statement about this image."),
    ("Logs", "Whether what was said of it lies in transparency logs."),
    ("Quorum", "Whether independent builders of its commit got the same."),
    ("Contents", "Whether its layers hold what its spec says."),
)


def verdict(trust: Trusted | Absent) -> tuple[State, str]:
    """Return the state and words of the whole, short: of a promotion the promoters alone."""
    if isinstance(trust, Absent):
        return State(trust.state), trust.words
    found = trust.verification
    state = _STATES[found.fate]
    record = found.promotion.record if found.promotion is not None else None
    if state is not State.VERIFIED or record is None:
        return state, found.words
    images = evaluate_images(found.images, ())[1]
    return state, f"{images}; promoted by {', '.join(each.id for each in record.promoters)}"


def trust_section(trust: Trusted | Absent) -> Section:
    """Return the section."""
    state, words = verdict(trust)
    if isinstance(trust, Absent):
        body: list[Child] = [note(state, words, trust.hint)]
        if trust.state == "not asked":
            checks = [ShownCheck(name, State.NOT_ASKED, what) for name, what in _UNASKED]
            body.append(check_list([*checks, *promotion_checks(trust)]))
        return Section("trust", "Trust", None, body)
    lead = f"{state.value[0].upper()}{state.value[1:]}: {trust.verification.words}."
    return Section("trust", "Trust", lead, list(_body(trust)))


def _body(trust: Trusted) -> Iterator[Child]:
    found = trust.verification
    yield facts(
        [
            ("Checked", f"{trust.now:%Y-%m-%d %H:%M} UTC"),
            ("Policy", digest(str(found.policy))),
            ("Its epoch", str(found.epoch)),
            ("It expires", f"{trust.policy.expires:%Y-%m-%d}"),
            ("It demands", _demands(trust.policy)),
        ]
    )
    several = len(found.images) > 1
    for number, image in enumerate(found.images):
        checks = list(_checks(trust.policy, image))
        if number == len(found.images) - 1:
            checks += promotion_checks(trust)
        yield el("h3", image.system) if several else None
        yield check_list(checks)
        yield builder_table(trust.policy, image, f"builders-{number}")
        yield from dissent_tables(image, number)
    if not found.images:
        yield check_list(promotion_checks(trust))
    yield _logs(trust.policy)


def _demands(policy: Policy) -> str:
    quorum = policy.quorum
    distinct = f" with distinct {', '.join(quorum.distinct)}" if quorum.distinct else ""
    logs = f"; each word in {plural(quorum.logs, 'log')}" if quorum.logs else "; no log"
    witnesses = f" under {plural(quorum.witnesses, 'witness')}" if quorum.witnesses else ""
    builders = plural(len(policy.builders), "builder")
    return f"{quorum.threshold} of {builders}{distinct}{logs}{witnesses}"


def _checks(policy: Policy, image: ImageVerification) -> Iterator[ShownCheck]:
    yield _signatures(image)
    yield _logged(policy, image)
    for quorum in image.quorums:
        yield _quorum(quorum)
    if not image.quorums:
        words = "No builder of the policy says of any commit that this is its image."
        yield ShownCheck("Quorum", State.FALSE, words)
    for trouble in image.troubles:
        yield ShownCheck("Beside the image", _STATES[trouble.fate], fold(trouble.words))
    yield _depth(image)


def _signatures(image: ImageVerification) -> ShownCheck:
    fates = [finding.verdict.fate for finding in image.findings]
    counts = {fate: fates.count(fate) for fate in Fate}
    words = f"{plural(len(fates), 'attestation')} found: " + ", ".join(
        f"{count} {fate.value}" for fate, count in counts.items() if count
    )
    if not fates:
        return ShownCheck("Signatures", State.FALSE, "No attestation was found beside the image.")
    # What is checked and false counts for nothing; it is the quorum that may miss it.
    state = State.STATED if counts[Fate.FALSE] else State.VERIFIED
    if counts[Fate.UNCHECKED] or not counts[Fate.VERIFIED]:
        state = State.UNCHECKED if counts[Fate.UNCHECKED] else State.FALSE
    rows = [
        [
            finding.name,
            finding.verdict.fate.value,
            fold(finding.verdict.words)
            if not finding.verdict.verified
            else _signer(finding.verdict),
            fold(finding.place),
        ]
        for finding in image.findings
    ]
    columns = [
        Column("Attestation"),
        Column("Check"),
        Column("Signed by, or why not"),
        Column("Found at"),
    ]
    table = data_table("Attestations", columns, rows, name=f"signed-{image.digest.hex[:12]}")
    return ShownCheck("Signatures", state, words, table)


def _signer(verdict: object) -> Child:
    signer = getattr(verdict, "signer", None)
    return "" if signer is None else digest(signer_name(signer))


def _logged(policy: Policy, image: ImageVerification) -> ShownCheck:
    if not policy.quorum.logs:
        return ShownCheck("Logs", State.NOT_ASKED, "The policy demands no transparency log.")
    good = [each for each in image.findings if each.verdict.verified]
    held = [each for each in good if len(each.logs.logs) >= policy.quorum.logs]
    words = (
        f"{len(held)} of {plural(len(good), 'verified attestation')} are proved to lie in"
        f" {plural(policy.quorum.logs, 'log')} of the policy."
    )
    rows: list[Row] = [
        [
            each.name,
            ", ".join(sorted(each.logs.logs)) or "none",
            ", ".join(f"{time:%Y-%m-%d %H:%M}" for _, time in each.logs.times) or "no proved time",
            [
                el("div", digest(f"{point.checkpoint.origin}, size {point.head.size}"))
                for _, point in each.logs.checkpoints
            ],
            fold("; ".join(each.logs.words)),
        ]
        for each in good
    ]
    columns = [
        Column("Attestation"),
        Column("Logs"),
        Column("By (UTC)"),
        Column("Checkpoint"),
        Column("What proves nothing"),
    ]
    table = data_table("Log entries", columns, rows, name=f"logged-{image.digest.hex[:12]}")
    state = State.FALSE
    if held:
        state = State.VERIFIED if len(held) == len(good) else State.STATED
    return ShownCheck("Logs", state, words, table if rows else None)


def _quorum(quorum: QuorumResult) -> ShownCheck:
    state = State.VERIFIED if quorum.outcome is Outcome.MET else State.FALSE
    evidence = facts(
        [
            ("Outcome", quorum.outcome.value),
            ("Wanted", str(quorum.threshold)),
            ("Counted", ", ".join(each.id for each in quorum.counted) or "nobody"),
            ("Agree, not independent", ", ".join(each.id for each in quorum.shadowed)),
            ("Dissent", ", ".join(each.builder.id for each in quorum.dissents)),
            ("narHash", digest(str(quorum.asked.nar_hash))),
            ("Image", digest(str(quorum.asked.image_digest))),
            ("Layers", str(len(quorum.asked.layers))),
            ("Trust roots, and who states them", _roots(quorum)),
        ]
    )
    name: Child = ["Quorum on commit ", digest(str(quorum.asked.commit))]
    return ShownCheck(
        "Quorum", state, [fold(quorum.words), el("div", name, class_="hint")], evidence
    )


def _roots(quorum: QuorumResult) -> Child:
    if not quorum.roots:
        return "No builder that got this image states any."
    return [
        el("div", digest(str(each.digest)), " ", ", ".join(builder.id for builder in each.builders))
        for each in quorum.roots
    ]


def _depth(image: ImageVerification) -> ShownCheck:
    depth = image.depth
    if depth is None:
        words = "The layers were not read; their digests are those that builders signed."
        return ShownCheck("Contents", State.NOT_ASKED, words)
    counts = f"{plural(depth.layers, 'layer')}, {plural(depth.paths, 'store path')}"
    read = f"{counts}, {human_size(depth.size)} read"
    if not depth.problems:
        return ShownCheck(
            "Contents", State.VERIFIED, f"{read}: every NAR hash is as the spec says."
        )
    listed: Child = [el("li", fold(problem)) for problem in depth.problems]
    problems = el("ul", listed)
    return ShownCheck(
        "Contents", State.FALSE, f"{read}: {plural(len(depth.problems), 'problem')}.", problems
    )


def _logs(policy: Policy) -> Element | None:
    if not policy.logs:
        return None
    rows = [
        [log.id, log.kind, fold(log.origin), log.operator or "not said", digest(str(log.key))]
        for log in policy.logs
    ]
    columns = [Column("Log"), Column("Kind"), Column("Origin"), Column("Operator"), Column("Key")]
    return data_table("Transparency logs of the policy", columns, rows, name="logs")
