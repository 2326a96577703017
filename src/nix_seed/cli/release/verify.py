"""``nix-seed verify``."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nix_seed.cli.command import seed_command
from nix_seed.cli.lines import columns, folded
from nix_seed.cli.options import (
    commit_named,
    image_or_commit,
    json_option,
    policy_option,
    registry_options,
    state_directory,
    state_option,
    stores_of,
)
from nix_seed.cli.say import say, say_verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nix_seed.registry.open import AnyReference
    from nix_seed.release.rules.answer import Verification
    from nix_seed.release.rules.outputs_tree import OutputLeaf
    from nix_seed.release.verifiers import Verifiers
    from nix_seed.release.verify import Query


@seed_command("verify")
@click.argument("reference", metavar="IMAGE|COMMIT")
@click.option(
    "--from",
    "repository",
    metavar="REF",
    help="Where COMMIT was published: host/name or oci:DIR [the image of seed.lock].",
)
@policy_option("Whom to believe, and how many.")
@click.option("--commit", metavar="HASH", help="The commit it must be of [any the builders name].")
@click.option("--system", metavar="SYSTEM", help="Only this system's image of an index.")
@click.option(
    "--quorum-only",
    is_flag=True,
    help="Do not ask whether it was promoted, though the policy knows promoters.",
)
@click.option(
    "--no-ledgers",
    is_flag=True,
    help="Do not ask the policy's [[ledgers]], which --offline cannot.",
)
@click.option(
    "--output",
    metavar="NAME",
    help="Of COMMIT: the store path that was promoted as packages.NAME or checks.NAME.",
)
@click.option("--deep", is_flag=True, help="Read every layer, and recompute every NAR hash.")
@click.option(
    "--offline",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="Use what `nix-seed export` put there, and no network.",
)
@click.option(
    "--evidence",
    multiple=True,
    metavar="REF",
    help="Look for attestations in this repository as well; may be repeated.",
)
@state_option("Where what logs showed before is kept [~/.local/state/nix-seed].")
@click.option("--no-state", is_flag=True, help="Neither compare with that nor keep any of it.")
@registry_options
@json_option
def command(as_json: bool, **options: Any) -> None:
    """Check by the policy that IMAGE is what independent builders got from its commit.

    Where the policy knows promoters, it must also have been promoted: as one of its commit's
    systems, under the one root that a ledger has for that commit. COMMIT stands for the images it
    was promoted as.

    Exit 0: it is. 1: checked, and it is not (too few agree, or one says otherwise). 3: it could
    not be checked.
    """
    from nix_seed.cli.progress import progress
    from nix_seed.cli.release.verify_report import verification_json, verification_lines
    from nix_seed.release.load import load_policy, verifiers_of

    loaded = load_policy(options["policy_file"], datetime.now(UTC))
    answer, reference, query = _question(options)
    with progress(quiet=as_json) as show:
        by = verifiers_of(
            loaded,
            stores_of(options),
            _state(options),
            show,
            ask=options["offline"] is None,
            ledgers=not options["no_ledgers"],
        )
        found = answer(by, reference, query)
        output = None
        if options["output"] is not None:
            output = _output(by, (reference, *query.evidence), found, options)
    if options["quorum_only"] and loaded.policy.promoters:
        say("notice: --quorum-only: whether it was promoted was not asked", err=True)
    if options["no_ledgers"] and loaded.policy.ledgers:
        names = ", ".join(each.id for each in loaded.policy.ledgers)
        say(f"notice: --no-ledgers: whether {names} holds it was not asked", err=True)
    if as_json:
        more = {} if output is None else {"output": output.to_json()}
        say(verification_json(found) | more)
    else:
        lines = verification_lines(found, loaded.policy.source)
        say_verdict("\n".join(folded(lines, columns())))
        if output is not None:
            say(f"{options['output']}: {output.path} {output.nar_hash}")
    click.get_current_context().exit(found.exit_code)


def _output(
    by: Verifiers, places: Sequence[AnyReference], found: Verification, options: dict[str, Any]
) -> OutputLeaf:
    """Return the output that was asked for, for --system or this machine's system."""
    from nix_seed.core.processes import current_system
    from nix_seed.outputs.promoted import promoted_output

    system = options["system"] or current_system()
    return promoted_output(by, places, found, options["output"], system)[0]


def _question(options: dict[str, Any]) -> tuple[Callable[..., Verification], AnyReference, Query]:
    """Return what answers, where it looks, and what is asked: about an image, or a commit.

    Offline it looks into what was exported.
    """
    from nix_seed.cli.options import locked_image
    from nix_seed.formats.intoto.statement import Commit, is_commit
    from nix_seed.formats.oci.reference import LayoutReference, parse_reference
    from nix_seed.release.export import exported
    from nix_seed.release.verify import Query, verify_commit, verify_image

    text, system, deep = (
        image_or_commit(options["reference"]),
        options["system"],
        options["deep"],
    )
    offline = options["offline"]
    evidence = tuple(parse_reference(each) for each in options["evidence"])
    if options["output"] is not None and not is_commit(text):
        raise click.UsageError("--output goes with a commit: outputs are promoted with it")
    if is_commit(text):
        if options["commit"] is not None or options["quorum_only"]:
            raise click.UsageError("COMMIT takes neither --commit nor --quorum-only")
        query = Query(Commit(text), system, deep, True, evidence)
        if offline:
            if options["repository"] is not None:
                raise click.UsageError("--offline DIR says where to look, and so --from does not")
            return verify_commit, LayoutReference(str(offline)), query
        given = options["repository"] or locked_image(f"where was {text} published?")
        return verify_commit, parse_reference(given), query
    if options["repository"] is not None:
        raise click.UsageError("--from goes with a commit; IMAGE says itself where it is")
    commit = None if options["commit"] is None else commit_named(options["commit"])
    promotion = False if options["quorum_only"] else None
    image = parse_reference(text)
    where = exported(image, offline) if offline else image
    return verify_image, where, Query(commit, system, deep, promotion, evidence)


def _state(options: dict[str, Any]) -> Path | None:
    """Return the directory of checkpoints, which `nix-seed log check` uses as well."""
    if options["no_state"]:
        if options["state"] is not None:
            raise click.UsageError("--state and --no-state exclude each other")
        return None
    given: Path | None = options["state"]
    return given or state_directory()
