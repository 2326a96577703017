"""Parts of ``nix-seed build``: the base, the proof, and the way straight into a registry."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from nix_seed.cli.options import cache_directory, request_of, stores_of, unpacking_cache

if TYPE_CHECKING:
    from nix_seed.core.events import OnEvent
    from nix_seed.flake.nix import Nix
    from nix_seed.formats.oci.reference import Reference
    from nix_seed.image.build import Assembly, Built, Destination
    from nix_seed.image.plan import Base, Plan
    from nix_seed.image.push import Pushed
    from nix_seed.image.request import Evaluated
    from nix_seed.registry.client import Repository
    from nix_seed.use.prove import Proof


def base_of(options: dict[str, Any], nix: Nix, evaluated: Evaluated) -> Base | None:
    """Open the image that ``--base`` names, else the one in the flake's ``seed.lock``."""
    from nix_seed.formats.oci.reference import parse_reference
    from nix_seed.image.plan import locked_base, open_base, read_lock

    system = evaluated.evaluation.recipe.outline.system
    if options["base"] is not None:
        return open_base(stores_of(options), parse_reference(options["base"]), system)
    if options.get("no_lock") or options["kind"] != "seed":
        return None
    lock = read_lock(nix, evaluated.evaluation.flake)
    return None if lock is None else locked_base(stores_of(options), lock, system)


def assembly(options: dict[str, Any], nix: Nix, show: OnEvent) -> Assembly:
    """Return how layers are written, from and to the cache."""
    from nix_seed.image.build import Assembly
    from nix_seed.image.layer_cache import LayerCache

    cache = LayerCache(cache_directory())
    return Assembly(nix, cache, options["threads"], not options["no_reuse"], show)


def prove(
    nix: Nix, built: Built, destination: Destination, wanted: bool | None, show: OnEvent
) -> Proof | None:
    """Prove a seed complete if asked to, or, unasked, in CI."""
    if not _is_wanted(wanted) or built.plan.spec.kind != "seed":
        return None
    from nix_seed.use.prove import prove_built

    return prove_built(nix, built, destination, unpacking_cache(), show)


def _is_wanted(wanted: bool | None) -> bool:
    in_ci = os.environ.get("CI", "") not in ("", "0", "false")
    return in_ci if wanted is None else wanted


def repository_of(options: dict[str, Any], reference: str) -> tuple[Repository, Reference]:
    """Open the repository that *reference* names; ``InputError`` if it is a layout."""
    from nix_seed.core.errors import InputError
    from nix_seed.formats.oci.reference import Reference, parse_reference

    target = parse_reference(reference)
    if not isinstance(target, Reference):
        raise InputError(f"{target} is on this machine", hint="use -o DIR for an image on disk")
    if target.digest is not None:
        raise InputError(f"{target}: an image cannot be pushed to a digest", hint="name a tag")
    stores = stores_of(options)
    return stores.registry(target.registry).repository(target.repository), target


def push(as_json: bool, options: dict[str, Any]) -> Pushed | None:
    """Build into the registry, unless the image of this recipe is there already.

    Returns what was pushed. ``untagged``: it gets no name yet.
    """
    from nix_seed.cli.image.build_report import print_pushed, print_there, pushed_json
    from nix_seed.cli.progress import progress
    from nix_seed.image.push import add_tags, find_by_key
    from nix_seed.image.request import evaluate_request

    if options["output"] is not None or options["format_"] != "oci":
        from nix_seed.core.errors import InputError

        raise InputError("--push and -o or --format exclude each other", hint="leave one out")
    nix, request = request_of(options)
    repository, target = repository_of(options, options["push"])
    with progress(quiet=as_json) as show:
        evaluated = evaluate_request(nix, request, show)
        there = None if options["no_reuse"] else find_by_key(repository, evaluated, writing=True)
        fetched = (
            None
            if there is None
            else add_tags(repository, there.digest, _tags(options, target) or ())
        )
        if fetched is None:
            pushed, proof = _build_and_push(options, nix, evaluated, repository, target, show)
    if fetched is not None:
        print_there(fetched, evaluated, target, as_json=as_json)
        return None
    (pushed_json if as_json else print_pushed)(pushed, proof)
    return pushed


def _tags(options: dict[str, Any], target: Reference) -> tuple[str, ...] | None:
    """Return what names the image; None where it gets no name yet."""
    wanted = tuple(tag for tag in (target.tag, options["tag"]) if tag)
    return None if options["untagged"] else wanted


def _build_and_push(
    options: dict[str, Any],
    nix: Nix,
    evaluated: Evaluated,
    repository: Repository,
    target: Reference,
    show: OnEvent,
) -> tuple[Pushed, Proof | None]:
    from nix_seed.image.layer_cache import LayerRecords
    from nix_seed.image.plan import plan_image
    from nix_seed.image.publishable import check_publishable
    from nix_seed.image.push import push_image

    if not options["no_reuse"]:
        # The registry was asked for the image already, and `publish` has asked this by itself.
        repository.check_writable()
    _, request = request_of(options)
    plan = plan_image(nix, request, base_of(options, nix, evaluated), show, evaluated)
    check_publishable(plan.spec, target, plan.licences.problem)
    how = assembly(options, nix, show)
    proof = _prove_first(options, how, plan)
    records = LayerRecords(cache_directory() / "pushed")
    pushed = push_image(how, plan, repository, target, records, _tags(options, target))
    return pushed, proof


def _prove_first(options: dict[str, Any], how: Assembly, plan: Plan) -> Proof | None:
    """Prove the seed before it is published; for that it has to be on disk for once."""
    if not _is_wanted(options["prove"]) or plan.spec.kind != "seed":
        return None
    from nix_seed.image.build import Destination, store_image
    from nix_seed.use.prove import check_proof, prove_built

    built = how.assemble(plan)
    destination = Destination("oci", cache_directory() / "images", plan.input_key)
    store_image(built, how.cache, destination, how.on_event)
    proof = prove_built(how.nix, built, destination, unpacking_cache(), how.on_event)
    check_proof(proof)
    return proof
