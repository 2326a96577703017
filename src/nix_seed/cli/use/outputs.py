"""What ``nix-seed run`` takes from, and keeps in, the repository of the project's outputs."""

from __future__ import annotations

from typing import Any

from nix_seed.cli.command import option, progress, together
from nix_seed.cli.lazily import lazily
from nix_seed.cli.options import policy_used, state_directory, stores_of
from nix_seed.cli.outputs.options import branch_at_hand, pushed_json, pushed_text, seed_named
from nix_seed.cli.say import note, say
from nix_seed.cli.trust.options import attester_of, key_option, signer_of, sigstore_option
from nix_seed.core.errors import CouldNotCheck, InputError
from nix_seed.formats.oci.reference import Reference, parse_reference
from nix_seed.release.attester import Attester, SourceTree

with lazily():
    from nix_seed.flake import nix as nixes
    from nix_seed.image.read import spec as images
    from nix_seed.outputs import offer, open as opening, push
    from nix_seed.registry import errors as failures, layout, open as registries
    from nix_seed.release import load, preflight
    from nix_seed.use import results


outputs_options = together(
    option(
        "--outputs REF",
        "Take from there what the policy's builders built [the image's repository].",
    ),
    option("--no-outputs", "Build everything here."),
    option("--keep REF", "Take from REF, and keep there what is built, signed."),
    option("--builder ID", "This builder's id in the policy."),
    key_option,
    sigstore_option,
    option("--source URL", "Where the source is published."),
)
"""Add where outputs are taken from and kept, and who signs them."""


def place_of(options: dict[str, Any]) -> registries.AnyReference | None:
    """Return where outputs are taken from: as named, or beside a seed that is in a registry.

    The latter only where a policy says whom to believe.
    """
    named = options["keep"] or options["outputs"]
    if options["no_outputs"]:
        return None
    if named is not None:
        return parse_reference(named)
    path = policy_used(options, options["src"])
    if options["image"] is None or path is None or options["no_verify"]:
        return None
    image = parse_reference(options["image"])
    if not isinstance(image, Reference):
        return None
    return Reference(image.registry, image.repository)


def outputs_of(options: dict[str, Any]) -> offer.Outputs | None:
    """Return what outputs are taken from, None where they are taken from nowhere.

    ``InputError`` where a place is named, and no policy says whom to believe.
    """
    place = place_of(options)
    if place is None:
        return None
    path = policy_used(options, options["src"])
    if path is None:
        raise InputError(
            f"nothing says whose outputs may be taken from {place}",
            hint="write a policy (nix-seed policy init), or leave them: --no-outputs",
        )
    loaded, told = load.load_policy(path), offer.Told()
    if loaded.policy.outputs == "none" and not (options["keep"] or options["outputs"]):
        return None
    by = load.verifiers_of(loaded, stores_of(options), state_directory())
    if options["keep"]:
        by.stores.open(place, create=True)
    cache = opening.open_cache(by, place, opening.fresh_key(), None, told)
    cache.begin()  # while the seed is looked for
    return offer.Outputs(cache, told)


def keeper_of(options: dict[str, Any]) -> Attester | None:
    """Return who signs what is kept, None where nothing is; refuse it before anything is built.

    A registry or a log that does not answer is told, and costs no build.
    """
    if options["keep"] is None:
        return None
    if options["out"]:
        raise InputError(
            "--keep has no meaning with --out", hint="what is kept is in the machine's own store"
        )
    if options["network"]:
        raise InputError(
            "--keep has no meaning with --network",
            hint="what is kept is signed as built in the seed with no network; leave one of them",
        )
    nix = nixes.Nix(store=options["store"])
    problem = None if options["engine"] == "host" else results.store_problem(nix)
    if problem is not None:
        raise CouldNotCheck(
            f"what is built cannot be kept, for it comes into no store: {problem}",
            hint="be one of its trusted users, or name a store of your own: --store DIR",
        )
    signer = signer_of(options["key"], options["sigstore"])
    attester = attester_of(signer, options["builder"], policy_used(options, options["src"]))
    try:
        push.check_commit(options["src"])
    except InputError:
        return attester  # built as ever, and told then
    try:
        preflight.prepare_attest(SourceTree(options["src"], options["source"]), attester)
    except CouldNotCheck as error:
        _warn(error)
    try:
        registries.check_writable(stores_of(options), parse_reference(options["keep"]))
    except failures.Unreachable as error:
        _warn(error)
    return attester


def _warn(error: CouldNotCheck) -> None:
    say(f"nix-seed: what is built may not be kept: {error.message}", err=True)


def keep(
    options: dict[str, Any],
    nix: nixes.Nix,
    image: layout.Image | None,
    brought: results.Brought | None,
    outputs: offer.Outputs | None,
    keeper: Attester | None,
) -> push.PushedOutputs | None:
    """Push what of *brought* was built, as *keeper*; a tree with changes is said to stay here.

    *image* is the seed it was built in; None: as the options name it.
    """
    if keeper is None:
        return None
    try:
        push.check_commit(options["src"])
    except InputError as error:
        say(f"not kept: {error.message}", err=True)
        return None
    with progress(quiet=True):
        target = push.OutputsTarget(stores_of(options), parse_reference(options["keep"]), nix)
        told = None if outputs is None else outputs.told
        chosen = offer.choice_of(brought, told, branch_at_hand())
        if image is None:
            seed = seed_named(options, nix)
        else:
            seed = opening.built_in(images.read_spec(image), image.digest)
        return push.push_outputs(
            target, seed, SourceTree(options["src"], options["source"]), keeper, chosen
        )


def print_outputs(outputs: offer.Outputs | None, pushed: push.PushedOutputs | None) -> None:
    """Tell on standard error what was taken, why not, and what is kept."""
    if outputs is not None and (text := outputs.told.text()):
        note(text)
    if pushed is not None:
        note(pushed_text(pushed))


def outputs_json(
    outputs: offer.Outputs | None, pushed: push.PushedOutputs | None
) -> dict[str, Any]:
    """Return the members that tell what was taken and kept, where either was asked for."""
    if outputs is None:
        return {}
    told = outputs.told
    taken = {
        "paths": sorted(str(each.path) for each in told.taken),
        "bytes": sum(each.size for each in told.taken),
        "reasons": list(told.reasons),
    }
    return {"taken": taken, "kept": None if pushed is None else pushed_json(pushed)}
