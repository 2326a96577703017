"""``nix-seed ci seed``: what was decided before any work, the seed, and what is told of it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nix_seed.cli.lazily import lazily
from nix_seed.cli.setup.ci_find import LastSeed, Publication, SeedJob, SeedResult
from nix_seed.cli.setup.ci_job import CiJob
from nix_seed.cli.setup.ci_outputs import keep_outputs, kept_parts, wanted
from nix_seed.cli.setup.ci_report import reproduce
from nix_seed.cli.trust.options import attester_of
from nix_seed.core.errors import CouldNotCheck, InputError, NixSeedError
from nix_seed.core.files import cache_directory
from nix_seed.core.words import human_size, plural
from nix_seed.flake.checkout import read_checkout
from nix_seed.formats.oci.reference import Reference
from nix_seed.release.attester import SourceTree
from nix_seed.setup.ci_host import CiHost
from nix_seed.setup.rules.ci_inputs import parse_tags, split_index_tags
from nix_seed.setup.rules.ci_words import build_summary, code, paragraph, table, verbatim

if TYPE_CHECKING:
    from nix_seed.flake.evaluate import Evaluation

with lazily():
    from nix_seed.cli.image import plan
    from nix_seed.cli.setup import ci_make
    from nix_seed.release import load
    from nix_seed.use import record, run


_PROMOTES = {
    "github": "the action 0compute/nix-seed/promote",
    "gitlab": "`nix-seed ci promote`",
    "other": "`nix-seed ci promote`",
}


def seed(options: dict[str, Any]) -> None:
    """Make the seed, or find it, and tell of it."""
    job = CiJob(options)
    with job.reported("Seed"):
        wanted(job)  # what is no switch is refused before any work
        publication, commit = prepare(job)
        if options["nix_conf"]:
            lines = [os.environ.get("NIX_CONFIG", ""), options["nix_conf"]]
            os.environ["NIX_CONFIG"] = "\n".join(filter(None, lines))
        seeds = SeedJob(job, publication)
        found = seeds.find()
        result = found if isinstance(found, SeedResult) else ci_make.make_seed(seeds, found)
        _copy_attestations(job, result)
        if not isinstance(found, SeedResult):
            _record(job, result, found.evaluation)
        kept = keep_outputs(job, publication, result)
    job.host.set_outputs(
        {
            "digest": str(result.digest),
            "nar_hash": result.nar_hash,
            "input_key": result.input_key,
            "reference": result.reference,
            "built": str(result.built).lower(),
            "published": str(result.published).lower(),
        }
    )
    _tell(job.host, result)
    job.host.add_summary(_summary(result, commit, _command(job), kept_parts(kept)))


def _record(job: CiJob, result: SeedResult, evaluation: Evaluation) -> None:
    """Have a build list what it reads of a new seed, if the job asks for that.

    The seed is that of the flake's *evaluation*.

    Seeds are as good without: whatever goes wrong is a notice.
    """
    argv = shlex.split(job.options["record"])
    if not argv or not result.published:
        return

    try:
        tag = record.record_reads(
            job.stores,
            Reference.parse(result.reference),
            run.Command(argv, job.flake.directory, attr=job.flake.attr),
            cache=cache_directory(),
            evaluation=evaluation,
        )
        job.host.say(f"list       {tag}")
    except NixSeedError as error:
        job.host.annotate("notice", "What a build reads is not listed", error.message)


def _copy_attestations(job: CiJob, result: SeedResult) -> None:
    """Copy what was signed to GitHub's own store, if the job asks for that; it decides nothing."""
    store = job.github
    if store is None or result.attested is None:
        return
    try:
        for bundle in result.attested.bundles:
            store.add(bundle)
        job.host.say(f"copied     to GitHub's attestations of {store.repository}")
    except NixSeedError as error:
        text = ": ".join(filter(None, (error.message, error.hint)))
        job.host.annotate("notice", "Not in GitHub's own store of attestations", text)


def prepare(job: CiJob) -> tuple[Publication | None, str | None]:
    """Decide, before any work, what to publish and of which commit; say why not."""
    commit, why_not = _commit(job)
    if not job.decision.publish:
        job.host.annotate("notice", "Nothing is published", job.decision.why)
    elif not job.token:
        reason = "there is no registry_token: build only"
        job.host.annotate("notice", "Nothing is published", reason)
    elif why_not is not None:
        job.host.annotate("warning", "Nothing is published", why_not)
    else:
        return _publication(job), commit
    return None, commit


def _commit(job: CiJob) -> tuple[str | None, str | None]:
    """Return the commit checked out, and why it is not one to publish under this event."""
    directory, wanted = job.flake.directory, job.decision.commit
    try:
        checkout = read_checkout(directory)
    except (InputError, CouldNotCheck) as error:
        return None, error.message
    here = checkout.commit.hex
    if checkout.dirty:
        return here, f"{directory} has changes that no commit holds"
    if wanted not in (None, here):
        return here, f"the checkout is {here}, and the event is about {wanted}"
    return here, None


def _publication(job: CiJob) -> Publication | None:
    """Return what is to be published; None, with a notice, where the policy knows no such job."""
    tags, kept_back = split_index_tags(parse_tags(job.options["tags"]))
    if kept_back:
        reason = (
            f"{', '.join(kept_back)}: of the index over all systems, never of one system's image; "
            f"{_PROMOTES[job.host.kind]} gives it its tags"
        )
        job.host.annotate("notice", "Tags left where they are", reason)
    tree = SourceTree(job.flake.directory, None, job.flake.attr)
    signer = job.signer()
    if signer is None:
        return Publication(tags, tree)
    given, policy = job.options["builder"], job.flake.policy
    stranger = None if given else job.why_stranger(signer)
    if stranger is not None:
        job.host.annotate("notice", "Nothing is published", stranger)
        return None
    named = given or (job.decision.repository if policy is None else None)
    releases = None
    if job.policy is not None and job.policy.policy.promoters:
        # Nothing is asked or kept for it: this only saves work.
        releases = load.verifiers_of(job.policy, job.stores, ask=False)
    return Publication(tags, tree, attester_of(signer, named, policy), releases)


def _command(job: CiJob) -> str:
    """Return the command that makes the same on anyone's machine."""
    options, flake = job.options, job.flake
    attr = f"#{flake.attr}" if flake.attr else ""
    layers = f" --layers {options['layers']}" if options["layers"] not in ("", "64") else ""
    system = f" --system {options['system']}" if options["system"] else ""
    return f"nix-seed build {_shown(flake.directory)}{attr}{system}{layers} -o seed"


def _shown(directory: Path) -> str:
    """Name *directory* as one stands in the checkout."""
    try:
        return shlex.quote(f"./{directory.relative_to(Path.cwd())}".removesuffix("/."))
    except ValueError:
        return shlex.quote(str(directory))


def _tell(host: CiHost, result: SeedResult) -> None:
    if result.unproved:
        host.annotate("notice", "The seed was not proved complete", result.unproved)
    for notice in result.notices:
        host.annotate("notice", "Seed", notice)
    done = "built" if result.built else "there already: nothing to build"
    host.say(f"seed       {done}")
    host.say(f"image      {result.reference}\ndigest     {result.digest}")
    host.say(f"narHash    {result.nar_hash}\ninput key  {result.input_key}")
    for tag in result.tags:
        host.say(f"tag        {tag}")


def _summary(result: SeedResult, commit: str | None, command: str, kept: Iterable[str] = ()) -> str:
    """Return the page of ``ci seed``; *kept* are parts on the project's outputs."""
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
    parts += kept
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
        lines = tuple(plan.culprit_line(culprit) for culprit in last.diff.culprits)
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
