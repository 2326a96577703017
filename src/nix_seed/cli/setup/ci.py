"""``nix-seed ci``: what the steps of a CI job run; ``action.yml`` and its siblings are thin.

The options stand here, so that help is quick; what the steps do is imported when one is run.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from nix_seed.cli.command import DIRECTORY, argument, together
from nix_seed.cli.lazily import lazily
from nix_seed.cli.say import say

with lazily():
    from nix_seed.cli.setup import ci_machine, ci_outputs, ci_promote, ci_seed, ci_use
    from nix_seed.setup import ci_host


def _option(name: str, about: str) -> Callable[[Any], Any]:
    """Return the option *name*, which is the variable ``SEED_NAME`` as well."""
    bare = name.removeprefix("--").replace("-", "_")
    variable = "SEED_" + bare.removeprefix("seed_").upper()
    return click.option(name, bare, envvar=variable, help=about, default="", show_default=False)


_job_options = together(
    _option("--registry", "Host of the registry [ghcr.io; GitLab's own]."),
    _option("--registry-user", "Whose token SEED_REGISTRY_TOKEN is."),
    _option("--image", "Repository in the registry [the project's own]."),
    _option("--flake", "Directory of the flake [.]."),
    _option("--policy", "Whom to believe [trust.toml beside the flake, if there]."),
    _option("--ca-file", "Accept certificates signed by these authorities."),
    _option("--seed-attr", "The seed, as DIRECTORY#ATTRIBUTE [.#seed]."),
)
_recipe_options = together(
    _option("--layers", "Layers at most [64]."),
    _option("--nix-conf", "Lines for nix.conf."),
)
_outputs_option = _option(
    "--kept-outputs", "true: take and keep what the project builds, beside its seeds [false]."
)
_sign_options = together(
    _option("--signing", "keyless, key or none [keyless]."),
    _option("--sigstore", "ClientTrustConfig of a private Sigstore [the public one]."),
)


@click.group("ci", short_help="Run the steps of a CI job.")
def command() -> None:
    """Run the steps of a CI job, as the GitHub Action and bin/publish do.

    Inputs are options, or variables: --seed-attr is SEED_ATTR. Secrets are variables only:
    SEED_REGISTRY_TOKEN, SEED_KEY, NIX_SEED_KEY_PASSPHRASE.
    """


@command.command("setup", short_help="Say what this machine has.")
@click.option("--only", is_flag=True, help="Ask for no Nix: there is no output nix.")
def _setup(*, only: bool) -> None:
    """Say whether there is a Nix (output ``nix``), and which; nothing is changed.

    The output ``seconds`` is what setting up nix-seed itself took, empty where it was there.
    """
    ci_machine.tell_machine(only=only)


@command.command("seed", short_help="Build, push and attest the seed.")
@_job_options
@_recipe_options
@_sign_options
@_option("--system", "Nix system [this machine's].")
@_option("--tags", "Further tags of this system's image, moved last; not latest.")
@_option("--builder", "This builder's id [the policy's for the signer, or the repository].")
@_option("--prove", "false: do not plan every output inside the seed [true].")
@_outputs_option
@_option("--record", "Build in a new seed by this command, and list what it reads first [none].")
def _seed(**options: Any) -> None:
    """See that the registry has the seed of the flake for this machine's system.

    With SEED_REGISTRY_TOKEN, and for an event that may publish, it is built, pushed and attested,
    unless it is there already. Otherwise it is built, unless it is there already.
    """
    ci_seed.seed(options)


@command.command("use", short_help="Fill this machine's Nix store from the seed.")
@_job_options
@_recipe_options
@_outputs_option
@_option("--reference", "Just this image or index [the seed of this recipe].")
@_option("--for", "Take only what these outputs need to be built [everything].")
@_option("--accept-licence", "Licences or packages you accept; separated by commas or lines.")
@_option("--offline", "false: leave Nix's network settings as they are [true].")
@_option("--eager", "true: unpack all of it before anything else [false].")
@_option("--complete", "true: return only once every path lies in the store itself [false].")
@_option("--required", "true: fail where there is no seed [false].")
def _use(**options: Any) -> None:
    """Find the seed that fits the checkout, verify it, and have its paths in this machine's store.

    Then `nix build` needs no network. Where it can be, the seed is mounted: builds may start at
    once, and the store is filled behind them. Where there is no seed yet, it is said, and Nix
    fetches and builds as ever.
    """
    ci_use.use(options)


@command.command("served", short_help="Say what later steps took of kept outputs.")
def _served() -> None:
    """Say on the run's page what this job's steps took from the cache that `ci use` started.

    A job's last step runs it: an action of this kind has no step of its own at the end.
    """
    ci_outputs.tell_served()


@command.command("promote", short_help="Promote the commit over all systems.")
@_job_options
@_sign_options
@_option("--systems", "Systems that must be there [the policy's].")
@_option("--tags", "Tags of the index, moved last; latest only on the default branch.")
@_option("--policy-history", "Files of earlier policies, whose promoters' records there are.")
@_option("--commit", "The commit [the one checked out].")
@_option("--result", "What the jobs that make the seeds came to [success].")
def _promote(**options: Any) -> None:
    """Publish the index over every system's seed of the commit, once all of them are there.

    Where there is a policy with promoters, the commit is promoted by it, and the index published
    only then. Jobs of events that may not publish end here, with a notice.
    """
    ci_promote.promote(options)


@command.command("store", hidden=True)
@argument("user", type=click.IntRange(min=0))
@click.option("--root", type=DIRECTORY, default="/")
def _store(user: int, root: Path) -> None:
    """Make an empty /nix that belongs to USER, a number; what ``ci use`` runs as root."""
    ci_host.make_store_for(user, root)
    say("{}")
