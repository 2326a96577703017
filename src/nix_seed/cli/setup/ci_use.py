"""``nix-seed ci use``."""

from __future__ import annotations

import os
import sys
from typing import Any

from nix_seed.cli.lazily import lazily
from nix_seed.cli.options import accepted_licences, state_directory
from nix_seed.cli.setup.ci_job import CiJob
from nix_seed.cli.setup.ci_outputs import SERVED_AT, ServedOutputs, serve_outputs, wanted
from nix_seed.cli.setup.ci_report import use_summary
from nix_seed.core import processes
from nix_seed.core.errors import CouldNotCheck, NixSeedError
from nix_seed.core.verdict import Fate
from nix_seed.flake.checkout import parents_of
from nix_seed.flake.nix import OFFLINE, Nix
from nix_seed.formats.oci.reference import Reference, parse_reference
from nix_seed.registry.open import AnyReference
from nix_seed.registry.rules.lock import LOCK_NAME
from nix_seed.registry.store import Fetched
from nix_seed.setup import ci_host
from nix_seed.setup.ci_use import Actions, NotPromoted, SeedSearch, Used
from nix_seed.setup.rules.ci_inputs import parse_list, parse_names, parse_switch
from nix_seed.use.mount import linux

with lazily():
    from nix_seed.release import load, verify
    from nix_seed.release.rules import answer as answers
    from nix_seed.use import hydrate


def use(options: dict[str, Any]) -> None:
    """Fill the store, say with what, and have the steps that follow use it."""
    job = CiJob(options)
    with job.reported("Use", writes=False):
        wanted(job)
        used = _use(job)
    served = serve_outputs(job)
    host, problems = job.host, "; ".join(used.problems)
    if used.digest is None:
        host.annotate("notice", "No seed is used", f"{problems}. Nix fetches and builds as ever.")
    elif not used.exact:
        reason = f"{used.how} is used; {problems or 'its recipe is another'}. "
        host.annotate("notice", "The seed is another's", f"{reason}Nix fetches what it lacks.")
    elif used.verification is None:
        reason = "there is no trust.toml to verify it by: `nix-seed init` writes one"
        host.annotate("notice", "The seed is not verified", reason)
    host.say(f"image  {used.image or 'none'}")
    if served is not None:
        host.say(f"outputs  {served.url}, from {served.place}; what it does: {served.log}")
    host.add_summary(use_summary(used, host.setup_seconds, served.place if served else None))
    pass_on(job, used, served)


def _use(job: CiJob) -> Used:
    required = parse_switch(job.options["required"], "required")
    for name in ("offline", "eager", "complete"):
        parse_switch(job.options[name] or "false", name)
    named = job.options["reference"]
    system = processes.current_system()
    search = SeedSearch(
        job.stores,
        Nix(),
        job.repository,
        system,
        job.request(),
        Actions(
            fill=lambda image, found: fill(job, image, system, found),
            verify=lambda image: _verify(job, image, system),
            explain=job.explain,
        ),
        named=parse_reference(named) if named else None,
        commits=parents_of(job.flake.directory),
        lock=job.flake.directory / LOCK_NAME,
    )
    try:
        used = search.use()
    except CouldNotCheck as error:
        if required:
            raise
        used = Used(problems=(f"{error.message} ({job.explain(error)})",))
    if required and used.digest is None:
        raise CouldNotCheck(
            f"there is no seed to use: {'; '.join(used.problems)}",
            hint="let the job that makes it run first, or set required: false",
        )
    return used


def _verify(job: CiJob, image: AnyReference, system: str) -> answers.Verification | None:
    if job.policy is None:
        return None

    by = load.verifiers_of(job.policy, job.stores, state_directory())
    found = verify.verify_image(by, image, verify.Query(system=system))
    if found.fate is Fate.VERIFIED:
        return found
    failure, why = found.fate.error, found.reason
    if found.awaits_promotion:
        failure, why = NotPromoted, f"it is not promoted yet ({found.reason})"
    hint = f"nix-seed verify {image} --policy {job.flake.policy}"
    raise failure(f"{image} is not used: {why}", hint=hint)


def fill(
    job: CiJob,
    image: AnyReference,
    system: str,
    found: Fetched | None = None,
) -> hydrate.Hydrated:
    """Mount or unpack *image*: in this process where the store is ours, else by sudo.

    *found* is its manifest, where that is here already.
    """
    options, project = job.options, job.flake
    outputs, accepted = parse_list(options["for"]), parse_names(options["accept_licence"])
    lazy = not (outputs or parse_switch(options["eager"] or "false", "eager"))
    complete = parse_switch(options["complete"] or "false", "complete")
    how = ["--complete"] if complete else []
    if ci_host.store_state() == "absent":
        processes.run_as_root(["ci", "store", str(os.geteuid())])
    if ci_host.store_state() == "ours":
        if lazy and os.geteuid() != 0:
            mounted = _mounted_by_root(job, image, ["--system", system, *how])
            if mounted is not None:
                return mounted
        done = None
        if lazy and os.geteuid() == 0:
            place = hydrate.Place(system=system, found=found)
            done = hydrate.mount_if_possible(job.stores, image, place, complete=complete)
        return done or hydrate.hydrate(
            job.stores,
            image,
            outputs=outputs,
            system=system,
            accepted=accepted_licences(accepted, project.policy),
            project=str(project.directory),
            attr=project.attr,
        )
    # What is named by digest was verified before, by the policy that was asked for.
    how = how if lazy else ["--eager"]
    arguments = ["hydrate", str(image), "--json", "--no-verify", *how, "--system", system]
    arguments += ["--flake", str(project.directory), *(f"--for={name}" for name in outputs)]
    arguments += [f"--accept-licence={name}" for name in accepted]
    arguments += [f"--attr={project.attr}"] if project.attr else []
    # For the licences that it accepts.
    arguments += [f"--policy={project.policy.absolute()}"] if project.policy else []
    return _by_root(job, image, arguments)


def _mounted_by_root(
    job: CiJob, image: AnyReference, arguments: list[str]
) -> hydrate.Hydrated | None:
    """Have root mount *image* in a store that stays ours; None where it has to be unpacked."""
    if linux.why_not_here() is not None:
        return None
    try:
        return _by_root(job, image, ["mount", str(image), "--json", "--no-verify", *arguments])
    except NixSeedError as error:
        # Unpacking needs no root, and finds out by itself whatever may be wrong with the image.
        job.host.say(f"nix-seed: unpacking, not mounting: {error.message}")
        return None


def _by_root(job: CiJob, image: AnyReference, arguments: list[str]) -> hydrate.Hydrated:
    ca_file = job.options["ca_file"]
    arguments += [f"--ca-file={ca_file}"] if ca_file else []
    # The checkout's lock may name another registry, which the token is not for.
    own = isinstance(image, Reference) and image.registry == job.repository.registry
    token = job.token if own else ""
    arguments += ["--username", job.user, "--password-stdin"] if token else []
    said = processes.run_as_root(arguments, f"{token}\n")
    return hydrate.Hydrated.from_json(said, f"what nix-seed {arguments[0]} printed")


def pass_on(job: CiJob, used: Used, served: ServedOutputs | None = None) -> None:
    """Set the outputs, and have the steps that follow use the store and its Nix."""
    at_hand = Nix().is_at_hand()
    job.host.set_outputs(
        {
            "found": str(used.digest is not None).lower(),
            "exact": str(used.exact).lower(),
            "verified": str(used.verification is not None).lower(),
            "reference": str(used.image or ""),
            "digest": str(used.digest or ""),
            "nar_hash": used.fills[-1].nar_hash if used.fills else "",
            "whole": str(all(each.whole for each in used.fills[-1:])).lower(),
            "nix": str(at_hand or used.nix is not None).lower(),
        }
    )
    variables = {"NIX_CONFIG": _nix_config(job.options, used, served)}
    if served is not None:
        variables[SERVED_AT] = served.url
    if sys.platform == "darwin" and not at_hand:
        variables["NIX_SSL_CERT_FILE"] = "/etc/ssl/cert.pem"
    job.host.set_variables(variables, None if at_hand else used.nix)


def _nix_config(options: dict[str, Any], used: Used, served: ServedOutputs | None) -> str:
    """Return the settings for the steps that follow, beginning with those there are."""
    lines = [os.environ.get("NIX_CONFIG", ""), "extra-experimental-features = nix-command flakes"]
    if ci_host.store_state() == "ours":
        lines.append("build-users-group =")
    alone = used.exact and not options["for"]
    if alone := alone and parse_switch(options["offline"] or "true", "offline"):
        lines.append(OFFLINE)
    if served is not None:
        lines.append(served.settings(alone))
    lines.append(options["nix_conf"])
    return "\n".join(line.strip("\n") for line in lines if line.strip())
