"""``nix-seed ci seed``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nix_seed.cli.options import cache_directory
from nix_seed.cli.setup.ci_log import Stages, reporting
from nix_seed.cli.setup.ci_options import (
    JobFlake,
    Secrets,
    ci_option,
    ci_options,
    flake_of,
    flake_options,
    sign_options,
    take_secrets,
)

if TYPE_CHECKING:
    from nix_seed.formats.oci.reference import Reference
    from nix_seed.setup.ci_host import CiHost
    from nix_seed.setup.ci_promote import ReleaseAuthority
    from nix_seed.setup.ci_seed import Publication, SeedResult
    from nix_seed.setup.rules.ci_events import Decision
    from nix_seed.trust.sign import Signer


@click.command("seed", short_help="Build, push and attest the seed, unless it is there.")
@ci_options
@flake_options
@sign_options
@ci_option("--system", "Nix system [this machine's].")
@ci_option("--tags", "Further tags of this system's image, moved last; not latest.")
@ci_option("--builder", "This builder's id [the policy's for the signer, or the repository].")
@ci_option("--prove", "false: do not plan every output inside the seed [true].")
def command(**options: Any) -> None:
    """See that the registry has the seed of the flake for this machine's system.

    With SEED_REGISTRY_TOKEN, and for an event that may publish, it is built, pushed and attested,
    unless it is there already. Otherwise it is built, unless it is there already.
    """
    from nix_seed.cli.setup.ci_report import seed_summary
    from nix_seed.core.processes import stderr_tail
    from nix_seed.setup.ci_host import CiHost

    host, secrets = CiHost(), take_secrets()
    flake = Path(options["flake"] or ".")
    with stderr_tail() as tail, reporting(host, "Seed", flake, tail), Stages(host) as stages:
        job = _prepare(host, secrets, options)
        result = _make(job, secrets, options, stages)
    _outputs(host, result)
    _tell(host, result)
    host.add_summary(seed_summary(result, job.commit, job.command))


@dataclass(frozen=True, slots=True)
class _PreparedJob:
    """What was decided before any work."""

    decision: Decision
    repository: Reference
    publication: Publication | None
    flake: JobFlake
    commit: str | None
    command: str


def _prepare(host: CiHost, secrets: Secrets, options: dict[str, Any]) -> _PreparedJob:
    from nix_seed.setup.rules.ci_events import evaluate_event
    from nix_seed.setup.rules.ci_inputs import repository_of

    decision = evaluate_event(os.environ, host.event())
    repository = repository_of(options["image"], options["registry"], decision, os.environ)
    flake = flake_of(options)
    commit, why_not = _commit(decision, flake.directory)
    if decision.publish and secrets.get("SEED_REGISTRY_TOKEN") and why_not is None:
        publication = _publication(host, secrets, options, decision, flake)
    else:
        publication = None
        _tell_unpublished(host, decision, secrets, why_not)
    attr = f"#{flake.attr}" if flake.attr else ""
    layers = f" --layers {options['layers']}" if options["layers"] not in ("", "64") else ""
    system = f" --system {options['system']}" if options["system"] else ""
    command = f"nix-seed build {_shown(flake.directory)}{attr}{system}{layers} -o seed"
    return _PreparedJob(decision, repository, publication, flake, commit, command)


def _commit(decision: Decision, directory: Path) -> tuple[str | None, str | None]:
    """Return the commit checked out, and why it is not one to publish under this event."""
    from nix_seed.core.errors import CouldNotCheck, InputError
    from nix_seed.flake.checkout import read_checkout

    try:
        checkout = read_checkout(directory)
    except (InputError, CouldNotCheck) as error:
        return None, error.message
    if checkout.dirty:
        return checkout.commit.hex, f"{directory} has changes that no commit holds"
    if decision.commit is not None and checkout.commit.hex != decision.commit:
        about = f"the checkout is {checkout.commit.hex}, and the event is about {decision.commit}"
        return checkout.commit.hex, about
    return checkout.commit.hex, None


def _tell_unpublished(
    host: CiHost, decision: Decision, secrets: Secrets, why_not: str | None
) -> None:
    if not decision.publish:
        host.annotate("notice", "Nothing is published", decision.why)
    elif not secrets.get("SEED_REGISTRY_TOKEN"):
        host.annotate("notice", "Nothing is published", "there is no registry_token: build only")
    elif why_not is not None:
        host.annotate("warning", "Nothing is published", why_not)


def _publication(
    host: CiHost,
    secrets: Secrets,
    options: dict[str, Any],
    decision: Decision,
    flake: JobFlake,
) -> Publication | None:
    """Return what is to be published; None, with a notice, where the policy knows no such job."""
    from nix_seed.cli.trust.options import attester_of
    from nix_seed.release.attest import SourceTree
    from nix_seed.setup.ci_seed import Publication
    from nix_seed.setup.rules.ci_inputs import parse_tags, split_index_tags

    tags, kept_back = split_index_tags(parse_tags(options["tags"]))
    if kept_back:
        words = (
            f"{', '.join(kept_back)}: of the index over all systems, never of one system's image; "
            f"{_PROMOTES[host.kind]} gives it its tags"
        )
        host.annotate("notice", "Tags left where they are", words)
    tree = SourceTree(flake.directory, None, flake.attr)
    signer = secrets.signer(options, host)
    if signer is None:
        return Publication(tags, tree)
    policy = flake.policy
    stranger = None if options["builder"] else _why_stranger(signer, policy, decision)
    if stranger is not None:
        host.annotate("notice", "Nothing is published", stranger)
        return None
    given = options["builder"] or (decision.repository if policy is None else None)
    return Publication(tags, tree, attester_of(signer, given, policy), _releases(policy))


def _why_stranger(signer: Signer, policy: Path | None, decision: Decision) -> str | None:
    from datetime import UTC, datetime

    from nix_seed.cli.trust.options import why_stranger
    from nix_seed.release.load import load_policy

    if policy is None:
        return None
    return why_stranger(signer, load_policy(policy, datetime.now(UTC)).policy, decision)


_PROMOTES = {
    "github": "the action 0compute/nix-seed/promote",
    "gitlab": "`nix-seed ci promote`",
    "other": "`nix-seed ci promote`",
}


def _releases(policy: Path | None) -> ReleaseAuthority | None:
    """Return by whose word commits are released, where the policy has releases promoted.

    Nothing is asked or kept for it: this only saves work.
    """
    from datetime import UTC, datetime

    from nix_seed.release.load import load_policy, verifiers_of
    from nix_seed.setup.ci_promote import ReleaseAuthority

    if policy is None:
        return None
    loaded = load_policy(policy, datetime.now(UTC))
    if not loaded.policy.promoters:
        return None
    return ReleaseAuthority(verifiers_of(loaded, ask=False), None, ())


def _make(
    job: _PreparedJob, secrets: Secrets, options: dict[str, Any], stages: Stages
) -> SeedResult:
    from nix_seed.flake.nix import Nix
    from nix_seed.setup.ci_seed import SeedJob, make_seed
    from nix_seed.setup.rules.ci_inputs import parse_switch

    if options["nix_conf"]:
        lines = [os.environ.get("NIX_CONFIG", ""), options["nix_conf"]]
        os.environ["NIX_CONFIG"] = "\n".join(filter(None, lines))
    seed = SeedJob(
        secrets.stores(options, job.repository),
        Nix(),
        request_of_job(options, job.flake),
        job.repository,
        cache_directory(),
        job.publication,
        want_proof=parse_switch(options["prove"] or "true", "prove"),
    )
    return make_seed(seed, stages)


def request_of_job(options: dict[str, Any], flake: JobFlake) -> Any:
    """Return the request for the seed of *flake*."""
    from nix_seed.core.errors import InputError
    from nix_seed.image.plan import Request
    from nix_seed.image.rules.frames import Compressor
    from nix_seed.image.rules.partition.plan import check_budget

    layers = options["layers"] or "64"
    if not layers.isascii() or not layers.isdigit():
        raise InputError(f"layers is {layers!r}, which is no number")
    check_budget(int(layers))
    system = options.get("system") or None
    at_hand = Compressor.at_hand()
    return Request(str(flake.directory), "seed", at_hand, int(layers), flake.attr, system)


def _outputs(host: CiHost, result: SeedResult) -> None:
    host.set_outputs(
        {
            "digest": str(result.digest),
            "nar_hash": result.nar_hash,
            "input_key": result.input_key,
            "reference": result.reference,
            "built": str(result.built).lower(),
            "published": str(result.published).lower(),
        }
    )


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


def _shown(directory: Path) -> str:
    """Name *directory* as one stands in the checkout."""
    import shlex

    try:
        return shlex.quote(f"./{directory.relative_to(Path.cwd())}".removesuffix("/."))
    except ValueError:
        return shlex.quote(str(directory))
