"""What a CI job shows on its page: what was done, used again, changed, proved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nix_seed.core.words import human_size, plural
from nix_seed.setup.rules.ci_words import build_summary, code, paragraph, table, verbatim

if TYPE_CHECKING:
    from nix_seed.formats.oci.reference import Reference
    from nix_seed.release.rules.answer import Verification
    from nix_seed.setup.ci_outputs import OutputsResult
    from nix_seed.setup.ci_promote import Released
    from nix_seed.setup.ci_seed import LastSeed, SeedResult
    from nix_seed.setup.ci_use import Used


def seed_summary(
    result: SeedResult, commit: str | None, command: str, kept: OutputsResult | None = None
) -> str:
    """Return the page of ``ci seed``; *kept* is what came of the project's outputs."""
    rows = [
        ("image", result.reference),
        ("digest", str(result.digest)),
        ("narHash", result.nar_hash),
        ("input key", result.input_key),
        *(("tag", tag) for tag in result.tags),
    ]
    parts: list[str] = [
        paragraph(_headline(result)),
        table("Names", ("", ""), tuple((name, code(text)) for name, text in rows)),
    ]
    if result.proof is not None:
        count = plural(len(result.proof.outputs), "output")
        parts.append(paragraph(f"Proved: all {count} can be built in it with no network."))
    if result.last is not None:
        parts += _against(result.last, result)
    if result.attested is not None:
        parts.append(_attestation(result))
    if kept is not None:
        parts += _outputs(kept)
    parts.append(reproduce(commit, command))
    return build_summary(f"Seed for {code(result.system)}", parts)


def _headline(result: SeedResult) -> str:
    size = f"{human_size(result.size)} in {plural(result.layers, 'layer')}"
    if not result.built:
        return f"The registry had it already, nothing was built: {size}."
    if not result.published:
        return f"Built, not published: {size}."
    return f"Built and published: {size}, of which {human_size(result.sent)} had to be sent."


def _against(last: LastSeed, result: SeedResult) -> Iterator[str]:
    """Yield what who has the last seed need not pull again, and who caused the rest."""
    rows = (
        ("used again", plural(last.layers, "layer"), human_size(last.size)),
        (
            "to pull",
            plural(result.layers - last.layers, "layer"),
            human_size(result.size - last.size),
        ),
    )
    yield table(f"Against {code(last.name)}", ("", "layers", "compressed"), rows)
    if last.diff.culprits:
        from nix_seed.cli.image.plan import culprit_line

        lines = tuple(culprit_line(culprit) for culprit in last.diff.culprits)
        yield verbatim("What changed, and what that pulls (unpacked)", lines)


def _attestation(result: SeedResult) -> str:
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
    return table("Attestation", ("", ""), tuple((name, code(text)) for name, text in rows))


def _outputs(kept: OutputsResult) -> Iterator[str]:
    """Yield what was built of the project, what was taken instead, and what that saved."""
    built, pushed, told = kept.built, kept.pushed, kept.told
    rows = (
        ("built", plural(len(built), "output"), f"{kept.seconds:.1f} s"),
        ("taken", plural(len(told.taken), "output"), f"{told.saved:.1f} s saved"),
        ("kept", plural(len(pushed.pushed), "output"), f"{human_size(pushed.sent)} sent"),
        ("together", "", f"{kept.took:.1f} s"),
    )
    yield table("Outputs", ("", "", ""), rows)
    if built:
        yield verbatim("Built", built)
    if told.reasons:
        yield verbatim("Not taken", tuple(told.reasons))


def reproduce(commit: str | None, *commands: str) -> str:
    """Return the commands that do the same on anyone's machine."""
    first: Sequence[str] = () if commit is None else (f"git checkout {commit}",)
    return verbatim("The same on your machine", (*first, *commands))


def use_summary(used: Used, setup: float | None = None, served: str | None = None) -> str:
    """Return the page of ``ci use``; *setup* are the seconds it took to install nix-seed."""
    parts: list[str] = [paragraph(_how(used))]
    if served is not None:
        taken = f"Nix takes what the project built before from {code(served)}, by its policy."
        parts.append(paragraph(taken))
    if used.fills:
        parts.append(_time_to_first_build(used, setup))
        rows = (
            ("fetched", human_size(sum(each.fetched for each in used.fills))),
            ("new", plural(sum(len(each.added) for each in used.fills), "store path")),
            ("there before", plural(len(used.fills[0].skipped), "store path")),
        )
        parts.append(table("What came", ("", ""), rows))
    if used.verification is not None:
        parts.append(_verification(used.verification))
    if used.problems:
        parts.append(verbatim("Why not better", used.problems))
    if used.image is not None:
        hydrate = f"nix-seed hydrate {used.image}"
        parts.append(reproduce(None, hydrate, "nix-seed run --engine host -- nix build"))
    return build_summary("Seed in use", parts)


def served_text(told: Mapping[str, Any] | None) -> str:
    """Return in a line what was *told* of the cache; None is for one that there was not."""
    if told is None:
        return "no kept outputs were served in this job, or what served them has ended"
    taken, saved = plural(told["taken"], "output"), told["millis"] / 1000
    return f"{taken} taken, {human_size(told['bytes'])}; {saved:.1f} s of building saved"


def served_summary(told: Mapping[str, Any] | None) -> str:
    """Return the page of ``ci served``."""
    parts: list[str] = [paragraph(served_text(told))]
    if told is not None and told["reasons"]:
        parts.append(verbatim("Not taken", tuple(map(str, told["reasons"]))))
    return build_summary("Outputs taken", parts)


def _how(used: Used) -> str:
    if used.image is None:
        return "There is no seed to use: Nix fetches and builds as ever."
    fits = "It fits: no network is needed" if used.exact else "Nix fetches what it lacks"
    return f"{used.how}: {code(str(used.image))}. {fits}."


def _time_to_first_build(used: Used, setup: float | None) -> str:
    """Return the seconds until Nix can begin. What fetches also unpacks, at the same time.

    Nix itself comes with the seed: nothing is installed besides.
    """
    filled = [each.seconds for each in used.fills]
    busy = sum(each.fetch + each.decode + each.unpack for each in filled) or 1.0
    wall = sum(each.total - each.register for each in filled)
    pull = wall * sum(each.fetch for each in filled) / busy
    rows = [] if setup is None else [("set up nix-seed", setup)]
    rows += [
        ("find", used.seconds.get("find", 0.0)),
        ("verify", used.seconds.get("verify", 0.0)),
        ("pull", pull),
        ("unpack", wall - pull),
        ("start", sum(each.register for each in filled) + used.seconds.get("start", 0.0)),
    ]
    rows.append(("together", sum(seconds for _, seconds in rows)))
    cells = tuple((name, f"{seconds:.2f} s") for name, seconds in rows)
    return table("Time to the first build", ("", "time"), cells)


def promote_summary(
    done: Released, repository: Reference, commit: str, commands: Sequence[str]
) -> str:
    """Return the page of ``ci promote``; *commands* do the same at *commit*."""
    parts: list[str] = [paragraph(f"{code(done.state)}.")]
    rows = tuple((code(system), code(str(image))) for system, image in done.members.items())
    parts.append(table("Systems", ("system", "image"), rows))
    if done.index is not None:
        names = [("index", str(repository.at(done.index))), *(("tag", tag) for tag in done.tags)]
        cells = tuple((name, code(text)) for name, text in names)
        parts.append(table("Index", ("", ""), cells))
    for found in done.verified:
        parts.append(_verification(found))
    parts.append(reproduce(commit, *commands))
    return build_summary("Promotion", parts)


def _verification(found: Verification) -> str:
    from nix_seed.cli.release.verify import verification_lines

    return verbatim("Verification", tuple(verification_lines(found)))
