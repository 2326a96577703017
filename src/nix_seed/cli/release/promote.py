"""``nix-seed promote``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nix_seed.cli import options as shared
from nix_seed.cli.command import argument, option, progress, seed_command
from nix_seed.cli.lazily import lazily
from nix_seed.cli.say import answer, say
from nix_seed.cli.trust.options import key_option, signer_of, sigstore_option
from nix_seed.core.digests import Digest
from nix_seed.core.errors import InputError
from nix_seed.core.words import members
from nix_seed.formats.oci.reference import parse_reference

with lazily():
    from nix_seed.formats.intoto import statement as intoto
    from nix_seed.outputs import promoted
    from nix_seed.registry import open as registries
    from nix_seed.release import load, promote, verifiers, verify
    from nix_seed.release.rules import tree
    from nix_seed.trust import sign


@seed_command("promote")
@argument("commit", "COMMIT")
@option(
    "--to REF",
    "Where the release is published: host/name or oci:DIR; with :TAG, that tag moves too.",
    into="target",
    required=True,
)
@shared.policy_option("Whom to believe, which systems make a release, and who may promote.")
@shared.policy_history_option
@key_option
@sigstore_option
@option("--tag TAG", "A further tag, moved last.", into="tags", multiple=True)
@shared.evidence_option
@shared.state_option("Where what logs and ledgers showed before is kept [~/.local/state/nix-seed].")
@shared.jobs_option
@option(
    "--outputs",
    "Also promote every output that the quorum stands for, under a root of its own.",
    into="with_outputs",
)
@shared.registry_options
@shared.json_option
def command(**options: Any) -> None:
    """Release COMMIT: every system's image that has the policy's quorum, under one Merkle root.

    Each quorum is verified from what logs hold. The record of the release is signed and logged;
    only when enough promoters have signed it are the index and its tags, COMMIT and each --tag,
    published. Doing it again changes nothing, and says so.
    """
    commit = shared.commit_named(options["commit"])
    loaded = shared.policy_of(options)
    stores = shared.stores_of(options)
    target, tags = split_target(options["target"])
    place = verify.ReleasePlace(
        target,
        [parse_reference(each) for each in options["evidence"]],
        (*tags, *options["tags"]),
    )
    with progress():
        by = load.verifiers_of(loaded, stores, shared.state_of(options))
        done = promote.promote(
            by,
            commit,
            place,
            promote.Signing(
                signer_of(options["key"], options["sigstore"]),
                sign.open_logs(loaded.policy, loaded.directory, spare=True),
            ),
            load.earlier_of(loaded, options["earlier"]),
            _outputs(by, commit, place) if options["with_outputs"] else None,
        )
    answer(_json(done), _lines(done, str(target)))


def _outputs(
    by: verifiers.Verifiers, commit: intoto.Commit, place: verify.ReleasePlace
) -> promote.ChooseOutputs:
    """Return what chooses the outputs to promote, and names those that it leaves out."""

    def choose(seeds: Mapping[str, Digest]) -> tree.ReleasedOutputs:
        outputs, left = promoted.choose_outputs(by, place.sources, commit, seeds)
        for each in left:
            say(f"notice: not promoted: {each}", err=True)
        return outputs

    return choose


def split_target(text: str) -> tuple[registries.AnyReference, tuple[str, ...]]:
    """Return the repository that *text* names, and the tag that it names in it, if any."""
    reference = parse_reference(text)
    if reference.digest is not None:
        raise InputError(f"{text} names a digest, and a release is given tags", hint="leave it out")
    return replace(reference, tag=None), () if reference.tag is None else (reference.tag,)


def _json(done: promote.Promoted) -> dict[str, Any]:
    said = members(done.record.predicate, "commit", "root", "index")
    return (
        members(done, "state", "missing", "tags", "notices", record="record.digest")
        | said
        | {
            "promoted": bool(done.tags),
            "systems": {leaf.system: str(leaf.image_digest) for leaf in done.release.leaves},
            "promoters": [each.id for each in done.record.promoters],
        }
    )


def _lines(done: promote.Promoted, target: str) -> list[str]:
    said = done.record.predicate
    names = ", ".join(each.id for each in done.record.promoters)
    lines = [f"notice: {each}" for each in done.notices]
    lines += [
        f"{said.commit}: {done.state}",
        f"  root     {said.root}",
        f"  record   {done.record.digest}, signed by {names}",
        f"  index    {said.index}",
        *(f"  {leaf.system:16} {leaf.image_digest}" for leaf in done.release.leaves),
    ]
    if said.outputs_root is not None:
        lines.append(f"  outputs  {said.outputs_size}, under the root {said.outputs_root}")
    if done.missing:
        lines.append(
            f"{done.missing} more of the policy's promoters must sign: the same command, with "
            "another's key. Nothing is published before."
        )
        return lines
    if not done.tags:
        return lines
    lines.append(f"  tags     {', '.join(done.tags)}")
    lines.append(f"next: nix-seed verify {said.commit} --from {target}")
    return lines
