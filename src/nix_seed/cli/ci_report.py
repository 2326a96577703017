"""What a CI job shows on its page: what was done, used again, changed, proved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from nix_seed.cli.plan import culprit_line
from nix_seed.cli.report import human_size, plural
from nix_seed.rules.ci_summary import Code, Part, Table, Words, build_summary, code

if TYPE_CHECKING:
    from nix_seed.flows.ci_last import LastSeed
    from nix_seed.flows.ci_seed import SeedResult

__all__ = ["reproduce", "seed_summary"]


def seed_summary(result: SeedResult, commit: str | None, command: str) -> str:
    """Return the page of ``ci seed``."""
    parts: list[Part] = [Words(_headline(result)), _names(result)]
    if result.proof is not None:
        count = plural(len(result.proof.outputs), "output")
        parts.append(Words(f"Proved: all {count} can be built in it with no network."))
    if result.last is not None:
        parts += _against(result.last, result)
    if result.attested is not None:
        parts.append(_attestation(result))
    parts.append(reproduce(commit, command))
    return build_summary(f"Seed for {code(result.system)}", parts)


def _headline(result: SeedResult) -> str:
    size = f"{human_size(result.size)} in {plural(result.layers, 'layer')}"
    if not result.built:
        return f"The registry had it already, nothing was built: {size}."
    if not result.published:
        return f"Built, not published: {size}."
    return f"Built and published: {size}, of which {human_size(result.sent)} had to be sent."


def _names(result: SeedResult) -> Table:
    rows = [
        ("image", result.reference),
        ("digest", str(result.digest)),
        ("narHash", result.nar_hash),
        ("input key", result.input_key),
        *(("tag", tag) for tag in result.tags),
    ]
    return Table("Names", ("", ""), tuple((name, code(text)) for name, text in rows))


def _against(last: LastSeed, result: SeedResult) -> Iterator[Part]:
    """Yield what who has the last seed need not pull again, and who caused the rest."""
    rows = (
        ("used again", plural(last.layers, "layer"), human_size(last.size)),
        (
            "to pull",
            plural(result.layers - last.layers, "layer"),
            human_size(result.size - last.size),
        ),
    )
    yield Table(f"Against {code(last.name)}", ("", "layers", "compressed"), rows)
    if last.diff.culprits:
        lines = tuple(culprit_line(culprit) for culprit in last.diff.culprits)
        yield Code("What changed, and what that pulls (unpacked)", lines)


def _attestation(result: SeedResult) -> Table:
    done = result.attested
    assert done is not None
    paths = done.predicate.paths
    rows = [
        ("builder", done.predicate.builder),
        ("signed by", done.signer),
        ("commit", str(done.predicate.source.commit)),
        ("logs", ", ".join(done.logs) or "none"),
        ("paths", f"{paths.built} built here, {paths.substituted} substituted"),
    ]
    return Table("Attestation", ("", ""), tuple((name, code(text)) for name, text in rows))


def reproduce(commit: str | None, *commands: str) -> Code:
    """Return the commands that do the same on anyone's machine."""
    first: Sequence[str] = () if commit is None else (f"git checkout {commit}",)
    return Code("The same on your machine", (*first, *commands))
