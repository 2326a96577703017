"""``nix-seed ci seed``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nix_seed.cli.ci_log import Stages, reporting
from nix_seed.cli.ci_options import (
    Secrets,
    ci_option,
    ci_options,
    flake_options,
    sign_options,
    take_secrets,
)
from nix_seed.cli.options import cache_directory

if TYPE_CHECKING:
    from nix_seed.clients.ci_host import CiHost
    from nix_seed.flows.ci_seed import Publication, SeedResult
    from nix_seed.formats.oci.reference import Reference
    from nix_seed.rules.ci_events import Decision

__all__ = ["command", "policy_of", "request_of_job"]


@click.command("seed", short_help="Build, push and attest the seed, unless it is there.")
@ci_options
@flake_options
@sign_options
@ci_option("--system", "Nix system [this machine's].")
@ci_option("--tags", "Further tags of this system's image, moved last.")
@ci_option("--builder", "This builder's id [the policy's for the signer, or the repository].")
@ci_option("--prove", "false: do not plan every output inside the seed [true].")
def command(**options: Any) -> None:
    """See that the registry has the seed of the flake for this machine's system.

    With SEED_REGISTRY_TOKEN, and for an event that may publish, it is built, pushed and attested,
    unless it is there already. Otherwise it is built, unless it is there already.
    """
    from nix_seed.cli.ci_report import seed_summary
    from nix_seed.clients.ci_host import CiHost
    from nix_seed.clients.stderr_tail import stderr_tail

    host, secrets = CiHost(), take_secrets()
    flake = Path(options["flake"] or ".")
    with stderr_tail() as tail, reporting(host, "Seed", flake, tail), Stages(host) as stages:
        job = _prepare(host, secrets, options)
        result = _make(job, secrets, options, stages)
    _outputs(host, result)
    _tell(host, result)
    host.add_summary(seed_summary(result, job.commit, job.command))


@dataclass(frozen=True, slots=True)
class _Job:
    """What was decided before any work."""

    decision: Decision
    repository: Reference
    publication: Publication | None
    directory: Path
    attr: str | None
    commit: str | None
    command: str


def _prepare(host: CiHost, secrets: Secrets, options: dict[str, Any]) -> _Job:
    from nix_seed.rules.ci_events import evaluate_event
    from nix_seed.rules.ci_inputs import parse_seed_attr, repository_of

    decision = evaluate_event(os.environ, host.event())
    repository = repository_of(options["image"], options["registry"], decision, os.environ)
    named = parse_seed_attr(options["seed_attr"] or ".#seed")
    directory = (Path(options["flake"] or ".") / named.directory).absolute()
    commit, why_not = _commit(decision, directory)
    if decision.publish and secrets.get("SEED_REGISTRY_TOKEN") and why_not is None:
        publication = _publication(host, secrets, options, decision, directory, named.attr)
    else:
        publication = None
        _tell_unpublished(host, decision, secrets, why_not)
    attr = f"#{named.attr}" if named.attr else ""
    layers = f" --layers {options['layers']}" if options["layers"] not in ("", "64") else ""
    system = f" --system {options['system']}" if options["system"] else ""
    shown = f"nix-seed build {_shown(directory)}{attr}{system}{layers} -o seed"
    return _Job(decision, repository, publication, directory, named.attr, commit, shown)


def _commit(decision: Decision, directory: Path) -> tuple[str | None, str | None]:
    """Return the commit checked out, and why it is not one to publish under this event."""
    from nix_seed.clients.git import read_checkout
    from nix_seed.ground.errors import InputError

    try:
        checkout = read_checkout(directory)
    except InputError as error:
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
    directory: Path,
    attr: str | None,
) -> Publication:
    from nix_seed.cli.signer_options import builder_id, loggers
    from nix_seed.flows.attest import SourceTree
    from nix_seed.flows.ci_seed import Publication
    from nix_seed.rules.ci_inputs import parse_tags, safe_tags

    tags, kept_back = safe_tags(parse_tags(options["tags"]), decision)
    if kept_back:
        words = f"only the default branch moves {', '.join(kept_back)}"
        host.annotate("notice", "Tags left where they are", words)
    tree = SourceTree(directory, None, attr)
    signer = secrets.signer(options, host)
    if signer is None:
        return Publication(tags, tree)
    policy = policy_of(options, directory)
    given = options["builder"] or (decision.repository if policy is None else None)
    logs = loggers(policy) if policy is not None else ()
    builder = builder_id(given, policy, signer)
    return Publication(tags, tree, builder, signer, logs, _promoted_systems(policy))


def _promoted_systems(policy: Path | None) -> tuple[str, ...]:
    """Return the systems of a release, where the policy has releases promoted."""
    from datetime import UTC, datetime

    from nix_seed.flows.trust import load_policy

    found = None if policy is None else load_policy(policy, datetime.now(UTC)).policy
    return () if found is None or not found.promoters else tuple(found.systems)


def policy_of(options: dict[str, Any], *directories: Path) -> Path | None:
    """Return the policy's file: the one named, or ``trust.toml`` in *directories* or here."""
    from nix_seed.flows.trust import DEFAULT_POLICY

    if options["policy"]:
        return Path(options["policy"])
    places = (*(each / DEFAULT_POLICY for each in directories), DEFAULT_POLICY)
    return next((place for place in places if place.is_file()), None)


def _make(job: _Job, secrets: Secrets, options: dict[str, Any], stages: Stages) -> SeedResult:
    from nix_seed.clients.nix import Nix
    from nix_seed.flows.ci_seed import make_seed
    from nix_seed.rules.ci_inputs import parse_switch

    if options["nix_conf"]:
        lines = [os.environ.get("NIX_CONFIG", ""), options["nix_conf"]]
        os.environ["NIX_CONFIG"] = "\n".join(filter(None, lines))
    return make_seed(
        secrets.stores(options, job.repository),
        Nix(),
        request_of_job(options, job.directory, job.attr),
        job.repository,
        cache_directory(),
        job.publication,
        want_proof=parse_switch(options["prove"] or "true", "prove"),
        on_event=stages,
    )


def request_of_job(options: dict[str, Any], directory: Path, attr: str | None) -> Any:
    """Return the request for the seed of the flake in *directory*."""
    from nix_seed.flows.plan import Request
    from nix_seed.ground.errors import InputError
    from nix_seed.rules.compress import Compressor
    from nix_seed.rules.layers import check_budget

    layers = options["layers"] or "64"
    if not layers.isascii() or not layers.isdigit():
        raise InputError(f"layers is {layers!r}, which is no number")
    check_budget(int(layers))
    system = options.get("system") or None
    return Request(str(directory), "seed", Compressor.at_hand(), int(layers), attr, system)


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
