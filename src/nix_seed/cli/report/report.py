"""``nix-seed report``."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nix_seed.cli.command import seed_command
from nix_seed.cli.options import (
    commit_named,
    policy_option,
    policy_used,
    registry_options,
    store_option,
    stores_of,
)
from nix_seed.cli.say import say

if TYPE_CHECKING:
    from nix_seed.core.events import OnEvent
    from nix_seed.flake.nix import Nix
    from nix_seed.image.inspect import InspectedImage
    from nix_seed.image.read.spec import RemoteSeed
    from nix_seed.licences.licences import Licences
    from nix_seed.registry.open import AnyReference, Stores
    from nix_seed.report.report import Absent, Change, ImageReport, JudgedPaths, TrustAnswer


@seed_command("report")
@click.argument("reference", metavar="IMAGE")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Where the page is written.",
)
@click.option("--base", metavar="REF", help="A previous image: what changed since [seed.lock's].")
@policy_option("Verify by this policy, and show every check [trust.toml, if there].", default=None)
@click.option("--commit", metavar="HASH", help="The commit it must be of [any the builders name].")
@click.option("--deep", is_flag=True, help="With --policy: read every layer as well.")
@click.option("--evidence", multiple=True, metavar="REF", help="Look for attestations here, too.")
@click.option("--flake", metavar="FLAKE", help="What it was built from: judge its licences.")
@click.option("--attr", metavar="NAME", help="Of the flake: attribute made by mkSeed or mkRun.")
@click.option("--system", metavar="SYSTEM", help="Of an index, this system's [this machine's].")
@click.option("--no-roots", is_flag=True, help="Do not follow the image to its trust roots.")
@store_option
@registry_options
def command(**options: Any) -> None:
    """Write one self-contained page about IMAGE.

    What is in it, by size; what changed since --base; licences, by --flake or by the bill of
    materials attached to it; whom it can be trusted to be from (--policy); what it finally rests
    on, as this machine's store knows it. A part that was not asked for, or could not be checked,
    says so. The page is no check: exit 0 means that it was written; `nix-seed verify` answers with
    its exit code.
    """
    from nix_seed.cli.progress import progress
    from nix_seed.core.files import write_output
    from nix_seed.report.page.document import report_page
    from nix_seed.report.page.trust import verdict

    options["policy_file"] = policy_used(options, Path())
    _check(options)
    with progress(quiet=False) as show:
        report = _gather(options, show)
    text = report_page(report)
    write_output(options["output"], text.encode())
    say(f"{options['output']}  {len(text.encode()) // 1000} kB  {verdict(report.trust)[0].value}")


def _check(options: dict[str, Any]) -> None:
    """Refuse what would be asked and not answered."""
    for name, given in (("--deep", "deep"), ("--commit", "commit"), ("--evidence", "evidence")):
        if options[given] and options["policy_file"] is None:
            raise click.UsageError(f"{name} asks about trust: name a --policy")
    if options["attr"] is not None and options["flake"] is None:
        raise click.UsageError("--attr is of a flake: name the --flake")


def _gather(options: dict[str, Any], show: OnEvent) -> ImageReport:
    from nix_seed.core.events import Stage
    from nix_seed.flake.evaluate import current_system
    from nix_seed.flake.nix import Nix
    from nix_seed.formats.oci.reference import parse_reference
    from nix_seed.licences.licences import Licences
    from nix_seed.report.report import (
        Absent,
        ImageReport,
        find_image_roots,
        judged_paths,
        open_report,
        part,
    )

    stores = stores_of(options)
    reference = parse_reference(options["reference"])
    show(Stage("read", f"reading {reference}"))
    image, seed = open_report(stores, reference, options["system"] or current_system())
    nix = Nix(store=options["store"] and options["store"].absolute())
    licences = _licences(stores, nix, seed, reference.at(image.digest), options, show)
    known = licences if isinstance(licences, Licences) else None
    return ImageReport(
        reference=str(reference),
        image=image,
        spec=seed.spec,
        change=_change(stores, nix, seed, image, options),
        licences=licences
        if not isinstance(licences, Licences)
        else judged_paths(seed.spec, options["flake"], licences.judgement.paths, licences.problem),
        trust=_trust(stores, reference.at(image.digest), options, show),
        roots=Absent("not asked", "The trust roots were not asked for.", "leave out --no-roots")
        if options["no_roots"]
        else part(lambda: find_image_roots(nix, seed, known, show)),
    )


def _change(
    stores: Stores, nix: Nix, seed: RemoteSeed, image: InspectedImage, options: dict[str, Any]
) -> Change | Absent:
    from nix_seed.formats.oci.reference import parse_reference
    from nix_seed.image.plan import read_lock
    from nix_seed.report.report import Absent, compare_images, part

    base: AnyReference | None = None
    if options["base"] is not None:
        base = parse_reference(options["base"])
    elif options["flake"] is not None and seed.spec.kind == "seed":
        lock = read_lock(nix, nix.metadata(_flake(options)[0]))
        base = None if lock is None else lock.reference(seed.spec.system)
    if base is None:
        words = "No previous image was named, so nothing was compared."
        return Absent("not asked", words, "name one: nix-seed report … --base REF")
    compared = base
    return part(lambda: compare_images(stores, seed, image, compared))


def _flake(options: dict[str, Any]) -> tuple[str, str | None]:
    from nix_seed.cli.options import flake_and_attr

    return flake_and_attr(options["flake"], options["attr"])


def _licences(
    stores: Stores,
    nix: Nix,
    seed: RemoteSeed,
    image: AnyReference,
    options: dict[str, Any],
    show: OnEvent,
) -> Licences | JudgedPaths | Absent:
    """Return what the flake says of licences; without one, what is attached to the image."""
    from nix_seed.image.plan import Request, licences_of_flake
    from nix_seed.image.rules.partition.plan import DEFAULT_BUDGET
    from nix_seed.report.report import Absent, attached_paths, part

    if options["flake"] is None:
        attached = part(lambda: attached_paths(stores, image, seed.spec.system))
        words = "The image states what was withheld; the licences of the rest are its flake's word."
        hint = "name the flake: nix-seed report … --flake ."
        return attached or Absent("not asked", words, hint)
    flake, attr = _flake(options)
    spec = seed.spec
    request = Request(flake, spec.kind, spec.compressor, DEFAULT_BUDGET, attr, spec.system)
    return part(lambda: licences_of_flake(nix, request, show))


def _trust(
    stores: Stores, reference: AnyReference, options: dict[str, Any], show: OnEvent
) -> TrustAnswer | Absent:
    from nix_seed.cli.options import state_directory
    from nix_seed.formats.oci.reference import parse_reference
    from nix_seed.release.load import load_policy, verifiers_of
    from nix_seed.release.verify import Query, verify_image
    from nix_seed.report.report import Absent, TrustAnswer, part

    if options["policy_file"] is None:
        words = "No policy says whom to believe, so nobody's word was asked for."
        return Absent("not asked", words, "name one: nix-seed report … --policy trust.toml")
    loaded = load_policy(options["policy_file"], datetime.now(UTC))
    query = Query(
        options["commit"] and commit_named(options["commit"]),
        deep=options["deep"],
        evidence=tuple(parse_reference(each) for each in options["evidence"]),
    )
    by = verifiers_of(loaded, stores, state_directory(), show)
    return part(
        lambda: TrustAnswer(
            loaded.policy,
            verify_image(by, reference, query),
            loaded.now,
        )
    )
