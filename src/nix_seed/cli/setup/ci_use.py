"""``nix-seed ci use``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nix_seed.cli.options import state_directory
from nix_seed.cli.setup.ci_log import Stages, denied_hint, reporting
from nix_seed.cli.setup.ci_options import (
    JobFlake,
    Secrets,
    ci_option,
    ci_options,
    flake_of,
    flake_options,
    take_secrets,
)
from nix_seed.cli.setup.ci_seed import request_of_job

if TYPE_CHECKING:
    from nix_seed.core.errors import NixSeedError
    from nix_seed.registry.open import Stores
    from nix_seed.setup.ci_host import CiHost
    from nix_seed.setup.ci_use import Fill, Filled, Search, Used, Verify


@click.command("use", short_help="Fill this machine's Nix store from the seed.")
@ci_options
@flake_options
@ci_option("--reference", "Just this image or index [the seed of this recipe].")
@ci_option("--for", "Take only what these outputs need to be built [everything].")
@ci_option("--accept-licence", "Licences or packages you accept; separated by commas or lines.")
@ci_option("--offline", "false: leave Nix's network settings as they are [true].")
@ci_option("--required", "true: fail where there is no seed [false].")
def command(**options: Any) -> None:
    """Find the seed that fits the checkout, verify it, and unpack it into this machine's store.

    Then `nix build` needs no network. Where there is no seed yet, it is said, and Nix fetches and
    builds as ever.
    """
    from nix_seed.setup.ci_host import CiHost

    host, secrets = CiHost(), take_secrets()
    flake = Path(options["flake"] or ".")
    with reporting(host, "Use", flake, writes=False), Stages(host) as stages:
        used = _use(host, secrets, options, stages)
    _say_how(host, used)
    _set(host, options, used)


def _use(host: CiHost, secrets: Secrets, options: dict[str, Any], stages: Stages) -> Used:
    from nix_seed.core.errors import CouldNotCheck
    from nix_seed.flake.nix import Nix
    from nix_seed.setup.ci_use import Actions, Used, use_seed
    from nix_seed.setup.rules.ci_inputs import parse_switch

    required = parse_switch(options["required"], "required")
    parse_switch(options["offline"], "offline")
    project = flake_of(options)
    search = _search(host, options, project)
    stores = secrets.stores(options, search.repository)
    fill = _fill(secrets, options, project, stores, search.system, stages)
    verify = _verify(project, stores, search.system)

    def explain(error: NixSeedError) -> str | None:
        return denied_hint(host, error, writes=False) or error.hint

    try:
        used = use_seed(stores, search, Nix(), Actions(fill, verify, explain), stages)
    except CouldNotCheck as error:
        if required:
            raise
        used = Used(problems=(f"{error.message} ({explain(error)})",))
    if required and used.digest is None:
        raise CouldNotCheck(
            f"there is no seed to use: {'; '.join(used.problems)}",
            hint="let the job that makes it run first, or set required: false",
        )
    return used


def _search(host: CiHost, options: dict[str, Any], project: JobFlake) -> Search:
    from nix_seed.flake.checkout import parents_of
    from nix_seed.flake.evaluate import current_system
    from nix_seed.formats.oci.reference import parse_reference
    from nix_seed.registry.rules.lock import LOCK_NAME
    from nix_seed.setup.ci_use import Search
    from nix_seed.setup.rules.ci_events import evaluate_event
    from nix_seed.setup.rules.ci_inputs import repository_of

    decision = evaluate_event(os.environ, host.event())
    repository = repository_of(options["image"], options["registry"], decision, os.environ)
    reference = options["reference"]
    return Search(
        repository=repository,
        system=current_system(),
        request=request_of_job(options, project),
        named=parse_reference(reference) if reference else None,
        commits=parents_of(project.directory),
        lock=project.directory / LOCK_NAME,
    )


def _verify(project: JobFlake, stores: Stores, system: str) -> Verify:
    from datetime import UTC, datetime

    from nix_seed.core.verdict import Fate
    from nix_seed.release.load import load_policy, verifiers_of
    from nix_seed.release.verify import Query, verify_image
    from nix_seed.setup.ci_use import NotPromoted

    path = project.policy

    def verify(image: Any) -> Any:
        if path is None:
            return None
        loaded = load_policy(path, datetime.now(UTC))
        by = verifiers_of(loaded, stores, state_directory())
        found = verify_image(by, image, Query(system=system))
        if found.fate is Fate.VERIFIED:
            return found
        failure, why = found.fate.error, found.words
        if found.awaits_promotion:
            failure, why = NotPromoted, f"it is not promoted yet ({found.words})"
        hint = f"nix-seed verify {image} --policy {path}"
        raise failure(f"{image} is not used: {why}", hint=hint)

    return verify


def _fill(
    secrets: Secrets,
    options: dict[str, Any],
    project: JobFlake,
    stores: Stores,
    system: str,
    stages: Stages,
) -> Fill:
    """Return what unpacks an image: in this process where the store is ours, else by sudo."""
    from nix_seed.cli.options import accepted_licences
    from nix_seed.core.processes import run_as_root
    from nix_seed.setup.ci_host import store_state
    from nix_seed.setup.ci_use import Filled
    from nix_seed.setup.rules.ci_inputs import parse_list, parse_names
    from nix_seed.use.hydrate import hydrate

    outputs, accepted = parse_list(options["for"]), parse_names(options["accept_licence"])

    def fill(image: Any) -> Filled:
        if store_state() == "absent":
            run_as_root(["ci", "store", str(os.geteuid())])
        if store_state() == "ours":
            done = hydrate(
                stores,
                image,
                outputs=outputs,
                system=system,
                accepted=accepted_licences(accepted, project.policy),
                project=str(project.directory),
                attr=project.attr,
                on_event=stages,
            )
            added, skipped = len(done.added), len(done.skipped)
            return Filled(added, skipped, done.fetched, done.nar_hash, done.seconds, done.nix)
        more = [f"--for={name}" for name in outputs]
        more += [f"--accept-licence={name}" for name in accepted]
        more += [f"--attr={project.attr}"] if project.attr else []
        # For the licences that it accepts.
        more += [f"--policy={project.policy.absolute()}"] if project.policy else []
        more += [f"--ca-file={options['ca_file']}"] if options["ca_file"] else []
        token = secrets.get("SEED_REGISTRY_TOKEN")
        if token:
            user = options["registry_user"] or "x-access-token"
            more += ["--username", user, "--password-stdin"]
        # What is named by digest was verified above, by the policy that was asked for.
        arguments = ["hydrate", str(image), "--json", "--no-verify", "--eager", "--system", system]
        return _filled(
            run_as_root([*arguments, "--src", str(project.directory), *more], f"{token}\n")
        )

    return fill


def _filled(value: Any) -> Filled:
    from nix_seed.setup.ci_use import Filled
    from nix_seed.use.hydrate import Seconds

    nix = value["nix"]
    return Filled(
        added=len(value["added"]),
        skipped=len(value["skipped"]),
        fetched=value["bytesFetched"],
        nar_hash=value["narHash"],
        seconds=Seconds(**value["seconds"]),
        nix=None if nix is None else Path(nix),
    )


def _say_how(host: CiHost, used: Used) -> None:
    from nix_seed.cli.setup.ci_report import use_summary

    problems = "; ".join(used.problems)
    if used.digest is None:
        host.annotate("notice", "No seed is used", f"{problems}. Nix fetches and builds as ever.")
    elif not used.exact:
        words = f"{used.how} is used; {problems or 'its recipe is another'}. "
        host.annotate("notice", "The seed is another's", f"{words}Nix fetches what it lacks.")
    elif used.verification is None:
        host.annotate(
            "notice",
            "The seed is not verified",
            "there is no trust.toml to verify it by: `nix-seed init` writes one",
        )
    host.say(f"image  {used.image or 'none'}")
    host.add_summary(use_summary(used, host.setup_seconds))


def _set(host: CiHost, options: dict[str, Any], used: Used) -> None:
    """Set the outputs, and have the steps that follow use the store and its Nix."""
    from nix_seed.flake.nix import Nix

    at_hand = Nix().is_at_hand()
    host.set_outputs(
        {
            "found": str(used.digest is not None).lower(),
            "exact": str(used.exact).lower(),
            "verified": str(used.verification is not None).lower(),
            "reference": str(used.image or ""),
            "digest": str(used.digest or ""),
            "nar_hash": used.fills[-1].nar_hash if used.fills else "",
            "nix": str(at_hand or used.nix is not None).lower(),
        }
    )
    variables = {"NIX_CONFIG": _nix_config(options, used)}
    if sys.platform == "darwin" and not at_hand:
        variables["NIX_SSL_CERT_FILE"] = "/etc/ssl/cert.pem"
    host.set_variables(variables, None if at_hand else used.nix)


def _nix_config(options: dict[str, Any], used: Used) -> str:
    """Return the settings for the steps that follow, beginning with those there are."""
    from nix_seed.setup.ci_host import store_state
    from nix_seed.setup.rules.ci_inputs import parse_switch
    from nix_seed.use.engines.host import OFFLINE

    lines = [os.environ.get("NIX_CONFIG", ""), "extra-experimental-features = nix-command flakes"]
    if store_state() == "ours":
        lines.append("build-users-group =")
    if used.exact and not options["for"] and parse_switch(options["offline"] or "true", "offline"):
        lines.append(OFFLINE)
    lines.append(options["nix_conf"])
    return "\n".join(line.strip("\n") for line in lines if line.strip())
