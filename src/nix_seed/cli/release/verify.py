"""``nix-seed verify``, and its answer for people and for programs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import click

from nix_seed.cli import options as shared
from nix_seed.cli.command import (
    EXISTING_DIRECTORY,
    argument,
    exit_with,
    option,
    progress,
    seed_command,
)
from nix_seed.cli.lazily import lazily
from nix_seed.cli.say import answer, say
from nix_seed.core.processes import current_system
from nix_seed.core.words import human_size, members, plain, plural
from nix_seed.formats.oci.reference import LayoutReference, parse_reference

with lazily():
    from nix_seed.formats.intoto import statement as intoto
    from nix_seed.outputs import promoted
    from nix_seed.registry import open as registries
    from nix_seed.release import export, load, verifiers, verify
    from nix_seed.release.rules import answer as answers, record, tree
    from nix_seed.trust.rules import claims, quorum


_MOST_PATHS = 10


def verification_lines(found: answers.Verification, source: str | None = None) -> Iterator[str]:
    """Yield the verdict, and for which commit of *source* it is; then each image, by commits."""
    yield answers.headline(found, source)
    yield f"verdict: {found.fate.value.upper()}: {found.reason}"
    yield from answers.other_commits(found)
    if len(found.images) != 1:
        yield f"{found.reference}: {found.reason}"
    for image in found.images:
        yield ""
        yield from _image_lines(image)
    if found.promotion is not None:
        yield ""
        yield from promotion_lines(found.promotion)


def _image_lines(image: answers.ImageVerification) -> Iterator[str]:
    yield image.reference
    yield f"  image        {image.digest}"
    yield f"  system       {image.system}"
    yield f"  narHash      {image.nar_hash}"
    none = "none (copying leaves them behind: nix-seed export)"
    yield f"  attestations {len(image.findings) or none}"
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


def _commit(finding: claims.Finding) -> intoto.Commit | None:
    predicate = finding.verdict.predicate
    return None if predicate is None else predicate.source.commit


def _row(finding: claims.Finding, image: answers.ImageVerification) -> tuple[str, str, str, str]:
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


def _judged(finding: claims.Finding, image: answers.ImageVerification) -> claims.JudgedClaim | None:
    """Return how the claim stands that the finding brought, for the commit it is about."""
    found = [
        each
        for quorum in image.quorums
        for each in quorum.claims
        if each.claim.name == finding.name
    ]
    about = [each for each in found if each.discount != "another commit"]
    return next(iter(about or found), None)


def _quorum_lines(
    quorum: quorum.QuorumResult, details: tuple[claims.DissentDetail, ...]
) -> Iterator[str]:
    for stated in quorum.roots:
        names = ", ".join(builder.id for builder in stated.builders)
        yield f"    roots      {stated.digest}, stated by {names}"
    for builder in quorum.shadowed:
        yield f"    agrees     {builder.id}, but shares an attribute with one that is counted"
    for missing in quorum.missing:
        yield f"    missing    {missing.builder.id}: {missing.reason}"
    for dissent in quorum.dissents:
        yield from _dissent_lines(dissent, details)


def _dissent_lines(
    dissent: quorum.Dissent, details: tuple[claims.DissentDetail, ...]
) -> Iterator[str]:
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


def _detail_lines(detail: claims.DissentDetail) -> Iterator[str]:
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


def _depth_lines(image: answers.ImageVerification) -> Iterator[str]:
    depth = image.depth
    assert depth is not None
    what = f"{plural(depth.layers, 'layer')}, {plural(depth.paths, 'store path')}"
    state = plural(len(depth.problems), "problem") if depth.problems else "all as the spec says"
    yield f"  deep         {what}, {human_size(depth.size)} read: {state}"
    yield from (f"    {problem}" for problem in depth.problems)


def promotion_lines(found: record.PromotionResult) -> Iterator[str]:
    """Yield what was checked of a promotion, a line each."""
    root = "none stands" if found.record is None else f"root {found.record.predicate.root}"
    yield f"promotion of {found.commit}: {root}"
    width = max((len(check.name) for check in found.checks), default=0)
    for check in found.checks:
        yield f"    {check.name:{width}}  {check.fate.value:17}  {check.reason}"


def promotion_json(found: record.PromotionResult) -> dict[str, Any]:
    """Return the same as one object."""
    record, said = found.record, found.record and found.record.predicate
    return members(found, "commit", words="reason", verdict="fate") | {
        "record": plain(record and record.digest),
        "root": plain(said and said.root),
        "index": plain(said and said.index),
        "promoters": [] if record is None else [each.id for each in record.promoters],
        "checks": [members(each, "name", "fate", words="reason") for each in found.checks],
    }


def verification_json(found: answers.Verification) -> dict[str, Any]:
    """Return the same as one object."""
    return members(
        found, "reference", "policy", "epoch", "exit_code", words="reason", verdict="fate"
    ) | {
        "images": [_image_json(image) for image in found.images],
        "promotion": found.promotion and promotion_json(found.promotion),
    }


def _image_json(image: answers.ImageVerification) -> dict[str, Any]:
    depth = image.depth and members(image.depth, "layers", "paths", "size", "problems")
    names = ("reference", "digest", "system", "nar_hash")
    return members(image, *names, words="reason", verdict="fate") | {
        "attestations": [_finding_json(each, image) for each in image.findings],
        "troubles": [members(each, "fate", words="reason") for each in image.troubles],
        "quorums": [_quorum_json(each) for each in image.quorums],
        "dissents": [_detail_json(each) for each in image.dissents],
        "deep": depth,
    }


def _finding_json(finding: claims.Finding, image: answers.ImageVerification) -> dict[str, Any]:
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


def _quorum_json(quorum: quorum.QuorumResult) -> dict[str, Any]:
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


def _detail_json(detail: claims.DissentDetail) -> dict[str, Any]:
    paths = () if detail.difference is None else detail.difference.paths
    return members(detail, "builder", "image", words="reason") | {
        "paths": [members(each, "path", here="ours", there="theirs") for each in paths]
    }


@seed_command("verify")
@argument("reference", "IMAGE|COMMIT")
@option(
    "--from REF",
    "Where COMMIT was published: host/name or oci:DIR [the image of seed.lock].",
    into="repository",
)
@shared.policy_option("Whom to believe, and how many.")
@option("--commit HASH", "The commit it must be of [any the builders name].")
@option("--system SYSTEM", "Only this system's image of an index.")
@option("--quorum-only", "Do not ask whether it was promoted, though the policy knows promoters.")
@option("--no-ledgers", "Do not ask the policy's [[ledgers]], which --offline cannot.")
@option(
    "--output NAME", "Of COMMIT: the store path that was promoted as packages.NAME or checks.NAME."
)
@option("--deep", "Read every layer, and recompute every NAR hash.")
@option(
    "--offline DIR",
    "Use what `nix-seed export` put there, and no network.",
    type=EXISTING_DIRECTORY,
)
@shared.evidence_option
@shared.state_option("Where what logs showed before is kept [~/.local/state/nix-seed].")
@option("--no-state", "Neither compare with that nor keep any of it.")
@shared.registry_options
@shared.json_option
def command(**options: Any) -> None:
    """Check by the policy that IMAGE is what independent builders got from its commit.

    Where the policy knows promoters, it must also have been promoted: as one of its commit's
    systems, under the one root that a ledger has for that commit. COMMIT stands for the images it
    was promoted as.

    Exit 0: it is. 1: checked, and it is not (too few agree, or one says otherwise). 3: it could
    not be checked.
    """
    loaded = shared.policy_of(options)
    verify, reference, query = _question(options)
    with progress():
        by = load.verifiers_of(
            loaded,
            shared.stores_of(options),
            shared.state_of(options),
            ask=options["offline"] is None,
            ledgers=not options["no_ledgers"],
        )
        found = verify(by, reference, query)
        output = None
        if options["output"] is not None:
            output = _output(by, (reference, *query.evidence), found, options)
    if options["quorum_only"] and loaded.policy.promoters:
        say("notice: --quorum-only: whether it was promoted was not checked", err=True)
    if options["no_ledgers"] and loaded.policy.ledgers:
        names = ", ".join(each.id for each in loaded.policy.ledgers)
        say(f"notice: --no-ledgers: whether {names} holds it was not checked", err=True)
    value, lines = verification_json(found), [*verification_lines(found, loaded.policy.source)]
    if output is not None:
        value["output"] = output.to_json()
        lines.append(f"{options['output']}: {output.path} {output.nar_hash}")
    answer(value, lines, verdict=True)
    exit_with(found.exit_code)


def _output(
    by: verifiers.Verifiers,
    places: Sequence[registries.AnyReference],
    found: answers.Verification,
    options: dict[str, Any],
) -> tree.OutputLeaf:
    """Return the output that was asked for, for --system or this machine's system."""
    system = options["system"] or current_system()
    return promoted.promoted_output(by, places, found, options["output"], system)[0]


def _question(
    options: dict[str, Any],
) -> tuple[Callable[..., answers.Verification], registries.AnyReference, verify.Query]:
    """Return what answers, where it looks, and what is asked: about an image, or a commit.

    Offline it looks into what was exported.
    """
    text, system, deep = (
        shared.image_or_commit(options["reference"]),
        options["system"],
        options["deep"],
    )
    offline = options["offline"]
    evidence = tuple(parse_reference(each) for each in options["evidence"])
    if options["output"] is not None and not intoto.is_commit(text):
        raise click.UsageError("--output goes with a commit: outputs are promoted with it")
    if intoto.is_commit(text):
        if options["commit"] is not None or options["quorum_only"]:
            raise click.UsageError("COMMIT takes neither --commit nor --quorum-only")
        query = verify.Query(intoto.Commit(text), system, deep, True, evidence)
        if offline:
            if options["repository"] is not None:
                raise click.UsageError("--offline DIR says where to look, and so --from does not")
            return verify.verify_commit, LayoutReference(str(offline)), query
        given = options["repository"] or shared.locked_image(
            f"the repository that has {text} is not named"
        )
        return verify.verify_commit, parse_reference(given), query
    if options["repository"] is not None:
        raise click.UsageError("--from goes with a commit; IMAGE says itself where it is")
    commit = None if options["commit"] is None else shared.commit_named(options["commit"])
    promotion = False if options["quorum_only"] else None
    image = parse_reference(text)
    where = export.exported(image, offline) if offline else image
    return verify.verify_image, where, verify.Query(commit, system, deep, promotion, evidence)
