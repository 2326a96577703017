"""``nix-seed ci use``."""

from __future__ import annotations

import os
import sys
from typing import Any

from nix_seed.cli.setup.ci_fill import SeedSearch, Used
from nix_seed.cli.setup.ci_job import CiJob
from nix_seed.cli.setup.ci_outputs import SERVED_AT, ServedOutputs, serve_outputs, wanted
from nix_seed.cli.setup.ci_report import reproduce, verification_part
from nix_seed.core.errors import CouldNotCheck
from nix_seed.core.words import human_size, plural
from nix_seed.flake.nix import OFFLINE, Nix
from nix_seed.setup import ci_host
from nix_seed.setup.rules.ci_inputs import parse_switch
from nix_seed.setup.rules.ci_words import build_summary, code, paragraph, table, verbatim


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
    host.add_summary(_summary(used, host.setup_seconds, served.place if served else None))
    pass_on(job, used, served)


def _use(job: CiJob) -> Used:
    required = parse_switch(job.options["required"], "required")
    for name in ("offline", "eager", "complete"):
        parse_switch(job.options[name] or "false", name)
    try:
        used = SeedSearch(job).use()
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


def _summary(used: Used, setup: float | None = None, served: str | None = None) -> str:
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
        parts.append(verification_part(used.verification))
    if used.problems:
        parts.append(verbatim("Why not better", used.problems))
    if used.image is not None:
        hydrate = f"nix-seed hydrate {used.image}"
        parts.append(reproduce(None, hydrate, "nix-seed run --engine host -- nix build"))
    return build_summary("Seed in use", parts)


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
