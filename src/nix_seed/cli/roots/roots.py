"""``nix-seed roots``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nix_seed.cli import options as shared
from nix_seed.cli.command import argument, option, progress, seed_command
from nix_seed.cli.lazily import lazily
from nix_seed.cli.say import answer
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError
from nix_seed.core.events import Stage, tell
from nix_seed.core.files import read_given_text
from nix_seed.core.processes import current_system
from nix_seed.core.words import human_size, members, plain, plural
from nix_seed.formats.nix.store_path import StorePath

with lazily():
    from nix_seed.flake import evaluate, nix
    from nix_seed.image.read import spec as images
    from nix_seed.roots import roots as reports
    from nix_seed.roots.rules import policy as policies, roots as origins


@seed_command("roots")
@argument("what", "[FLAKE|REF]", default=".")
@option("--outputs", "Of a flake: its own outputs, not its image.")
@shared.made_options
@option("--why PATH", "The shortest way from the image to PATH.", type=str)
@option(
    "--policy RULES|FILE",
    "Exit with 1 if broken: executed-seed-max=1KiB,binary-max=0,built-here,no-impure,no-host.",
)
@shared.store_option
@shared.registry_options
@shared.json_option
def command(**options: Any) -> None:
    """Follow the derivations of FLAKE's image, or of the image REF, to their ends.

    Binaries that are executed and were not built; fetched and added files that hold machine code;
    other sources; impure derivations; what was substituted, and with whose signature.
    """
    policy = None if options["policy"] is None else _policy(options["policy"])
    nix = shared.nix_of(options)
    with progress():
        roots, unknown = _roots(nix, options)
        if options["why"] is not None:
            way = _way(roots, options["why"])
            lines = (f"{'  ' * depth}{path}" for depth, path in enumerate(way))
            answer({"why": [str(path) for path in way]}, lines)
            return
        report = reports.report_roots(nix, roots, unknown)
    verdict = None if policy is None else policies.evaluate_roots(policy, report.findings)
    answer(_json(report, verdict), _lines(report), indent=2)
    _judge(policy, verdict)


def _policy(text: str) -> policies.RootsPolicy:
    """Read rules, or the file of them."""
    path = Path(text)
    if not path.is_file() and path.suffix != ".toml":
        return policies.RootsPolicy.parse(text)
    try:
        return policies.RootsPolicy.parse_file(read_given_text(path), text)
    except CouldNotCheck as error:
        raise InputError(f"cannot read the policy: {error.message}", hint=error.hint) from error


def _roots(nix: nix.Nix, options: dict[str, Any]) -> tuple[origins.Roots, tuple[StorePath, ...]]:
    what = options["what"]
    tell(Stage("evaluate", f"reading {what}"))
    reference = shared.image_named(what)
    if reference is not None:
        system = options["system"] or current_system()
        image = images.open_seed_image(shared.stores_of(options), reference, system)
        return reports.roots_of_paths(nix, image.name, image.spec.paths)
    flake, attr = shared.flake_and_attr(what, options["attr"])
    chosen = shared.choice_of(options, attr)
    if options["outputs"]:
        return reports.roots_of_outputs(nix, flake, chosen), ()
    evaluation = evaluate.evaluate_flake(nix, flake, chosen)
    return reports.roots_of_recipe(nix, evaluation.recipe), ()


def _judge(policy: policies.RootsPolicy | None, verdict: policies.RootsJudgement | None) -> None:
    if policy is None or verdict is None:
        return
    if verdict.broken:
        raise CheckedFalse(
            f"the trust roots break the policy in {plural(len(verdict.broken), 'place')}",
            detail="\n".join(verdict.broken),
            hint="nix-seed roots … --why PATH shows what needs it",
        )
    if verdict.unjudged:
        raise CouldNotCheck(
            "the policy could not be judged: not everything is here",
            detail="\n".join(verdict.unjudged),
            hint="build the image here first, so that its sources and outputs are in the store",
        )


def _way(roots: origins.Roots, text: str) -> tuple[StorePath, ...]:
    """Find the path that *text* names: in full, or by a part of exactly one path's name."""
    if text.startswith("/"):
        return roots.why(StorePath.containing(text))
    known = {*roots.makers, *(end.path for end in roots.ends)}
    found = sorted(path for path in known if text in path.name)
    if len(found) != 1:
        names = "\n".join(map(str, found[:20]))
        raise InputError(
            f"{text!r} names {len(found) or 'nothing'} of what this rests on",
            hint=f"give the whole path, one of\n{names}" if found else "--json lists the ends",
        )
    return roots.why(found[0])


def _lines(report: reports.RootsReport) -> Iterator[str]:
    found = report.findings
    yield f"executed, and not built: {plural(len(found.executed), 'file')}"
    yield from (f"  {_binary(item)}" for item in found.executed)
    held = f"{len(found.binaries)}" if found.binaries else "none"
    yield f"fetched or added, and holding machine code: {held}"
    yield from (f"  {_binary(item)}" for item in found.binaries)
    size = sum(source.size or 0 for source in report.sources)
    yield f"other sources: {len(report.sources)}, {human_size(size)} (--json lists them)"
    if found.unseen:
        yield f"not in the store, so not looked into: {plural(len(found.unseen), 'path')}"
    if found.unread:
        what = plural(len(found.unread), "builder")
        yield f"not in the store, so it is not known whether these are scripts: {what}"
    for program in found.host:
        yield f"executed from the building machine: {program.program}"
    for impurity in found.impure:
        yield f"impure: {impurity.derivation}: {impurity.reason}"
    yield from _provenance(report)
    yield f"derivations: {report.roots.derivations}"
    digest = report.digest or "not of an image, but of its flake: nix-seed roots FLAKE"
    yield f"roots digest: {digest}"


def _provenance(report: reports.RootsReport) -> Iterator[str]:
    found = report.findings
    yield (
        f"outputs: {report.built} built here, {len(found.substituted)} not,"
        f" {len(found.absent)} not in the store"
    )
    counts = Counter(item.signers.words for item in found.substituted)
    yield from (f"  {count} not built here: {words}" for words, count in sorted(counts.items()))
    if any(item.signers.unchecked for item in found.substituted):
        yield "  (not checked: Nix's setting trusted-public-keys has no key of that name)"
    if found.unknown:
        yield f"of unknown origin: {len(found.unknown)}"


def _binary(item: policies.Binary) -> str:
    size = "not in the store" if item.size is None else human_size(item.size)
    inside = f", in it {item.inside}" if item.inside else ""
    digest = f", sha256 {item.digest}" if item.digest else ""
    urls = f", from {item.urls[0]}" if item.urls else ""
    return f"{item}: {size}{inside}{digest}{urls}"


def _json(report: reports.RootsReport, verdict: policies.RootsJudgement | None) -> dict[str, Any]:
    found = report.findings
    source = {name: f"end.{name}" for name in ("path", "kind", "use", "urls")}
    signers = {"keys": "signers.verified"}
    signers |= {name: f"signers.{name}" for name in ("unverified", "unchecked")}
    value = members(found, "unseen", "unknown", "unread", "absent") | {
        "rootsDigest": plain(report.digest),
        "derivations": report.roots.derivations,
        "executed": [_binary_json(item) for item in found.executed],
        "binaries": [_binary_json(item) for item in found.binaries],
        "sources": [
            members(each, "size", usedBy="end.used_by", **source) | {"hash": each.end.hash or None}
            for each in report.sources
        ],
        "host": [members(each, "program", "used_by") for each in found.host],
        "impure": [members(each, "derivation", "reason") for each in found.impure],
        "built": report.built,
        "substituted": [members(each, "path", **signers) for each in found.substituted],
    }
    if verdict is not None:
        value["policy"] = members(verdict, "broken", "unjudged")
    return value


def _binary_json(item: policies.Binary) -> dict[str, Any]:
    found = members(item, "path", "file", "size", "form", "urls", "used_by", sha256="digest")
    return found | {"inside": item.inside or None}
