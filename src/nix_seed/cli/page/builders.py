"""The builders of a policy: what each says of an image, and in what dissenters' images differ."""

from __future__ import annotations

from collections.abc import Iterator

from nix_seed.cli.page.parts import Column, State, data_table, digest, fold, mark, slug
from nix_seed.cli.page.sizes import path_name
from nix_seed.formats.html.element import Child, Element, el
from nix_seed.rules.claims import JudgedClaim, Standing
from nix_seed.rules.policy import Builder, Policy
from nix_seed.rules.quorum import QuorumResult
from nix_seed.rules.verification import DissentDetail, ImageVerification

__all__ = ["builder_table", "dissent_tables"]

_MOST = 200  # paths of one dissent
_STATES = {
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
        _standing(_STATES[claim.standing], claim.standing.value),
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
