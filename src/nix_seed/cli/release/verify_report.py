"""The answer of ``verify`` for people and for programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from nix_seed.core.members import members, plain
from nix_seed.core.words import human_size, plural

if TYPE_CHECKING:
    from nix_seed.formats.intoto.statement import Commit
    from nix_seed.release.rules.answer import ImageVerification, Verification
    from nix_seed.release.rules.record import PromotionResult
    from nix_seed.trust.rules.claims import DissentDetail, Finding, JudgedClaim
    from nix_seed.trust.rules.quorum import Dissent, QuorumResult

_MOST_PATHS = 10


def verification_lines(found: Verification, source: str | None = None) -> Iterator[str]:
    """Yield the verdict, and for which commit of *source* it is; then each image, by commits."""
    from nix_seed.release.rules.headline import headline, other_commits

    yield headline(found, source)
    yield f"verdict: {found.fate.value.upper()}: {found.reason}"
    yield from other_commits(found)
    if len(found.images) != 1:
        yield f"{found.reference}: {found.reason}"
    for image in found.images:
        yield ""
        yield from _image_lines(image)
    if found.promotion is not None:
        yield ""
        yield from promotion_lines(found.promotion)


def _image_lines(image: ImageVerification) -> Iterator[str]:
    yield image.reference
    yield f"  image        {image.digest}"
    yield f"  system       {image.system}"
    yield f"  narHash      {image.nar_hash}"
    yield f"  attestations {len(image.findings) or 'none'}"
    commits = [quorum.asked.commit for quorum in image.quorums]
    rows = [(_commit(each), _row(each, image)) for each in image.findings]
    widths = [max((len(row[column]) for _, row in rows), default=0) for column in range(3)]
    for quorum in image.quorums:
        yield f"  commit       {quorum.asked.commit}"
        yield f"    quorum     {quorum.outcome.value}: {quorum.reason}"
        yield from _table((row for each, row in rows if each == quorum.asked.commit), widths)
        yield from _quorum_lines(quorum, image.dissents)
    rest = [row for each, row in rows if each not in commits]
    rest += [("-", each.fate.value, "", each.reason) for each in image.troubles]
    if rest:
        yield "  of another commit, or of none"
        yield from _table(rest, widths)
    if image.depth is not None:
        yield from _depth_lines(image)


def _table(rows: Iterable[tuple[str, str, str, str]], widths: Sequence[int]) -> Iterator[str]:
    for who, fate, logs, reason in rows:
        line = f"    {who:{widths[0]}}  {fate:{widths[1]}}  {logs:{widths[2]}}  {reason}"
        yield line.rstrip()


def _commit(finding: Finding) -> Commit | None:
    predicate = finding.verdict.predicate
    return None if predicate is None else predicate.source.commit


def _row(finding: Finding, image: ImageVerification) -> tuple[str, str, str, str]:
    """Return who, fate, logs and why, for one attestation."""
    judged = _judged(finding, image)
    logs = ", ".join(sorted(finding.logs.logs))
    if judged is None:
        reason = finding.verdict.reason.removeprefix(f"{finding.name} ")
        who = "?" if finding.verdict.predicate is None else finding.verdict.predicate.builder
        fate = "same claim" if finding.verdict.verified else finding.verdict.fate.value
        return who, fate, logs, "" if finding.verdict.verified else reason
    who = judged.claim.predicate.builder if judged.builder is None else judged.builder.id
    return (
        who,
        judged.standing.value,
        logs,
        "; ".join([judged.reason, *finding.logs.reason]).strip("; "),
    )


def _judged(finding: Finding, image: ImageVerification) -> JudgedClaim | None:
    """Return how the claim stands that the finding brought, for the commit it is about."""
    found = [
        each
        for quorum in image.quorums
        for each in quorum.claims
        if each.claim.name == finding.name
    ]
    about = [each for each in found if each.discount != "another commit"]
    return next(iter(about or found), None)


def _quorum_lines(quorum: QuorumResult, details: tuple[DissentDetail, ...]) -> Iterator[str]:
    for stated in quorum.roots:
        names = ", ".join(builder.id for builder in stated.builders)
        yield f"    roots      {stated.digest}, stated by {names}"
    for builder in quorum.shadowed:
        yield f"    agrees     {builder.id}, but shares an attribute with one that is counted"
    for missing in quorum.missing:
        yield f"    missing    {missing.builder.id}: {missing.reason}"
    for dissent in quorum.dissents:
        yield from _dissent_lines(dissent, details)


def _dissent_lines(dissent: Dissent, details: tuple[DissentDetail, ...]) -> Iterator[str]:
    said = dissent.claim.predicate
    if dissent.about_roots:
        yield f"    DISSENTS   {dissent.builder.id}: its trust roots are {said.roots_digest}"
        yield "      look     nix-seed roots . in a checkout of the commit prints the right digest"
        yield "               (of an image to ship: --kind run), the same on every machine"
        return
    yield f"    DISSENTS   {dissent.builder.id}: its image is {said.image_digest}"
    layers = [str(each.position + 1) for each in dissent.difference.layers]
    if layers:
        which = f"{', '.join(layers)} of" if len(layers) < len(said.layers) else "all"
        yield f"      layers   {which} {len(said.layers)} differ"
    for detail in details:
        if (detail.builder, detail.image) == (dissent.builder.id, said.image_digest):
            yield from _detail_lines(detail)


def _detail_lines(detail: DissentDetail) -> Iterator[str]:
    if detail.difference is None:
        yield f"      paths    {detail.reason}"
        return
    for path in detail.difference.paths[:_MOST_PATHS]:
        yield f"      path     {path.path}"
        yield f"               here {path.ours or 'absent'}"
        yield f"               {detail.builder} {path.theirs or 'absent'}"
    rest = len(detail.difference.paths) - _MOST_PATHS
    if rest > 0:
        yield f"      and {plural(rest, 'more path')}"
    members = [name for name in detail.difference.members if name != "layers"]
    if members:
        yield f"      spec     {', '.join(members)} differ"


def _depth_lines(image: ImageVerification) -> Iterator[str]:
    depth = image.depth
    assert depth is not None
    what = f"{plural(depth.layers, 'layer')}, {plural(depth.paths, 'store path')}"
    state = plural(len(depth.problems), "problem") if depth.problems else "all as the spec says"
    yield f"  deep         {what}, {human_size(depth.size)} read: {state}"
    yield from (f"    {problem}" for problem in depth.problems)


def promotion_lines(found: PromotionResult) -> Iterator[str]:
    """Yield what was checked of a promotion, a line each."""
    root = "none stands" if found.record is None else f"root {found.record.predicate.root}"
    yield f"promotion of {found.commit}: {root}"
    width = max((len(check.name) for check in found.checks), default=0)
    for check in found.checks:
        yield f"    {check.name:{width}}  {check.fate.value:17}  {check.reason}"


def promotion_json(found: PromotionResult) -> dict[str, Any]:
    """Return the same as one object."""
    record, said = found.record, found.record and found.record.predicate
    return members(found, "commit", words="reason", verdict="fate") | {
        "record": plain(record and record.digest),
        "root": plain(said and said.root),
        "index": plain(said and said.index),
        "promoters": [] if record is None else [each.id for each in record.promoters],
        "checks": [members(each, "name", "fate", words="reason") for each in found.checks],
    }


def verification_json(found: Verification) -> dict[str, Any]:
    """Return the same as one object."""
    return members(
        found, "reference", "policy", "epoch", "exit_code", words="reason", verdict="fate"
    ) | {
        "images": [_image_json(image) for image in found.images],
        "promotion": found.promotion and promotion_json(found.promotion),
    }


def _image_json(image: ImageVerification) -> dict[str, Any]:
    depth = image.depth and members(image.depth, "layers", "paths", "size", "problems")
    names = ("reference", "digest", "system", "nar_hash")
    return members(image, *names, words="reason", verdict="fate") | {
        "attestations": [_finding_json(each, image) for each in image.findings],
        "troubles": [members(each, "fate", words="reason") for each in image.troubles],
        "quorums": [_quorum_json(each) for each in image.quorums],
        "dissents": [_detail_json(each) for each in image.dissents],
        "deep": depth,
    }


def _finding_json(finding: Finding, image: ImageVerification) -> dict[str, Any]:
    judged = _judged(finding, image)
    verdict = members(finding.verdict, "fate", reason="ground", words="reason")
    return (
        members(finding, "name", "place", logs="logs.logs")
        | verdict
        | {
            "time": plain(judged and judged.claim.time),
            "builder": judged.builder.id if judged is not None and judged.builder else None,
            "standing": plain(judged and judged.standing),
            "discount": plain(judged and judged.discount),
            "why": judged and judged.reason,
            "rootsDigest": plain(judged and judged.claim.predicate.roots_digest),
        }
    )


def _quorum_json(quorum: QuorumResult) -> dict[str, Any]:
    said = {"image": "claim.predicate.image_digest", "rootsDigest": "claim.predicate.roots_digest"}
    who = {"builder": "builder.id"}
    return members(quorum, "outcome", "threshold", commit="asked.commit") | {
        "agreeing": [each.id for each in quorum.agreeing],
        "counted": [each.id for each in quorum.counted],
        "roots": [
            members(each, "digest") | {"builders": [builder.id for builder in each.builders]}
            for each in quorum.roots
        ],
        "missing": [members(each, words="reason", **who) for each in quorum.missing],
        "dissents": [
            members(each, differs="difference.members", **who, **said)
            | {"layers": [layer.position for layer in each.difference.layers]}
            for each in quorum.dissents
        ],
    }


def _detail_json(detail: DissentDetail) -> dict[str, Any]:
    paths = () if detail.difference is None else detail.difference.paths
    return members(detail, "builder", "image", words="reason") | {
        "paths": [members(each, "path", here="ours", there="theirs") for each in paths]
    }
