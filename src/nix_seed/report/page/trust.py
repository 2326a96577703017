"""Is it what independent builders got, and was it released? Every check of ``verify``.

Each check has its evidence: attestations, log entries, builders, dissent, the promotion's record.
"""

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from nix_seed.core.verdict import Fate
from nix_seed.core.words import human_size, plural
from nix_seed.release.rules.answer import ImageVerification, evaluate_images
from nix_seed.release.rules.record import PromotionResult, Record, RecordSignature
from nix_seed.report.page.parts import (
    Child,
    Columns,
    PageSection,
    Row,
    ShownCheck,
    State,
    bullets,
    check_list,
    data_table,
    digest,
    facts,
    fold,
    lines,
    macro,
    note,
    path_name,
    plain,
)
from nix_seed.report.report import Absent, TrustAnswer
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


def promotion_checks(trust: TrustAnswer | Absent) -> Sequence[ShownCheck]:
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


def _record(record: Record) -> Markup:
    said = record.predicate
    signatures = lines(fold(_signature(each)) for each in record.signatures)
    return facts(
        [
            ("Commit", digest(said.commit)),
            ("Root", digest(said.root)),
            ("Systems", str(said.size)),
            ("Index", digest(said.index)),
            ("Record", digest(record.digest)),
            ("Comes after", lines(map(digest, said.previous)) or "nothing"),
            ("Evidence", digest(said.evidence)),
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


def builder_table(policy: Policy, image: ImageVerification, name: str) -> Markup:
    """Return every builder of the policy, heard or not, and every word that did not count."""
    columns: Columns = ["Builder", "Says", "Operator", "In logs", "Proved by (UTC)", plain("Why")]
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
    return data_table(name, "Builders, and what each says", columns, rows)


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
        macro("standing", _STANDINGS[claim.standing], claim.standing.value),
        operator,
        ", ".join(sorted(claim.claim.logs)) or "none",
        f"{time:%Y-%m-%d %H:%M}" if time else "no proved time",
        fold(words),
    ]


def _silent(builder: Builder, image: ImageVerification) -> list[Child]:
    missing = (each for quorum in image.quorums for each in quorum.missing)
    words = next((each.words for each in missing if each.builder == builder), "nothing was found")
    state = macro("standing", State.NOT_ASKED, "nothing")
    return [builder.id, state, builder.operator or "not said", "", "", fold(words)]


def dissent_tables(image: ImageVerification, number: int) -> Iterator[Markup]:
    """Yield for each dissenter in which store paths its image differs."""
    for position, detail in enumerate(image.dissents):
        yield _dissent(detail, f"dissent-{number}-{position}")


def _dissent(detail: DissentDetail, name: str) -> Markup:
    found = detail.difference
    caption = f"In what the image of {detail.builder} differs"
    columns: Columns = ["Store path", plain("NAR hash here"), plain("There")]
    if found is None:
        return data_table(name, caption, columns, [[fold(detail.words), "", ""]])
    rows: list[list[Child]] = [
        [path_name(each.path), _hash(each.ours), _hash(each.theirs)] for each in found.paths[:_MOST]
    ]
    rest = len(found.paths) - _MOST
    if rest > 0:
        rows.append([f"and {rest} more: nix-seed diff lists them", "", ""])
    rows += [[f"seed.json: {member}", "differs", "differs"] for member in found.members]
    return data_table(name, caption, columns, rows)


def _hash(value: object) -> Child:
    return "absent" if value is None else digest(value)


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


def verdict(trust: TrustAnswer | Absent) -> tuple[State, str]:
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


def trust_section(trust: TrustAnswer | Absent) -> PageSection:
    """Return the section."""
    state, words = verdict(trust)
    if isinstance(trust, Absent):
        body: list[Child] = [note(state, words, trust.hint)]
        if trust.state == "not asked":
            checks = [ShownCheck(name, State.NOT_ASKED, what) for name, what in _UNASKED]
            body.append(check_list([*checks, *promotion_checks(trust)]))
        return PageSection("trust", "Trust", None, body)
    lead = f"{state.value[0].upper()}{state.value[1:]}: {trust.verification.words}."
    return PageSection("trust", "Trust", lead, list(_body(trust)))


def _body(trust: TrustAnswer) -> Iterator[Child]:
    found = trust.verification
    yield facts(
        [
            ("Checked", f"{trust.now:%Y-%m-%d %H:%M} UTC"),
            ("Policy", digest(found.policy)),
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
        yield macro("heading", image.system) if several else None
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
    columns: Columns = ["Attestation", "Check", "Signed by, or why not", "Found at"]
    table = data_table(f"signed-{image.digest.hex[:12]}", "Attestations", columns, rows)
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
            lines(
                digest(f"{point.checkpoint.origin}, size {point.head.size}")
                for _, point in each.logs.checkpoints
            ),
            fold("; ".join(each.logs.words)),
        ]
        for each in good
    ]
    columns: Columns = ["Attestation", "Logs", "By (UTC)", "Checkpoint", "What proves nothing"]
    table = data_table(f"logged-{image.digest.hex[:12]}", "Log entries", columns, rows)
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
            ("narHash", digest(quorum.asked.nar_hash)),
            ("Image", digest(quorum.asked.image_digest)),
            ("Layers", str(len(quorum.asked.layers))),
            ("Trust roots, and who states them", _roots(quorum)),
        ]
    )
    name: Child = ["Quorum on commit ", digest(quorum.asked.commit)]
    return ShownCheck("Quorum", state, [fold(quorum.words), macro("line", name, "hint")], evidence)


def _roots(quorum: QuorumResult) -> Child:
    if not quorum.roots:
        return "No builder that got this image states any."
    return lines(
        [digest(each.digest), " ", ", ".join(builder.id for builder in each.builders)]
        for each in quorum.roots
    )


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
    problems = bullets(map(fold, depth.problems))
    return ShownCheck(
        "Contents", State.FALSE, f"{read}: {plural(len(depth.problems), 'problem')}.", problems
    )


def _logs(policy: Policy) -> Markup | None:
    if not policy.logs:
        return None
    rows = [
        [log.id, log.kind, fold(log.origin), log.operator or "not said", digest(log.key)]
        for log in policy.logs
    ]
    columns: Columns = ["Log", "Kind", "Origin", "Operator", "Key"]
    return data_table("logs", "Transparency logs of the policy", columns, rows)
