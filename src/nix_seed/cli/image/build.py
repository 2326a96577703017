"""``nix-seed build``: the base, the image or the way into a registry, the proof, the answer."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import click

from nix_seed.cli import options as shared
from nix_seed.cli.command import exit_with, option, progress, seed_command
from nix_seed.cli.lazily import lazily
from nix_seed.cli.say import answer, manner, say, say_lines, say_table
from nix_seed.core.errors import InputError
from nix_seed.core.files import cache_directory
from nix_seed.core.words import human_size, members, plural, shortened
from nix_seed.formats.oci.reference import Reference, parse_reference

with lazily():
    from nix_seed.flake import nix
    from nix_seed.formats.oci import manifest as manifests
    from nix_seed.image import (
        build as builds,
        layer_cache,
        plan as plans,
        push as pushes,
        request as requests,
    )
    from nix_seed.image.rules import spec as specs
    from nix_seed.registry import client, store
    from nix_seed.use import prove as proofs


def base_of(
    options: dict[str, Any], nix: nix.Nix, evaluated: requests.Evaluated
) -> plans.Base | None:
    """Open the image that ``--base`` names, else the one in the flake's ``seed.lock``."""
    system = evaluated.evaluation.recipe.outline.system
    if options["base"] is not None:
        return plans.open_base(shared.stores_of(options), parse_reference(options["base"]), system)
    if options.get("no_lock") or options["kind"] != "seed":
        return None
    lock = plans.read_lock(nix, evaluated.evaluation.flake)
    return None if lock is None else plans.locked_base(shared.stores_of(options), lock, system)


def assembly(options: dict[str, Any], nix: nix.Nix) -> builds.Assembly:
    """Return how layers are written, from and to the cache."""
    cache = layer_cache.LayerCache(cache_directory())
    return builds.Assembly(nix, cache, options["threads"], not options["no_reuse"])


def prove(
    nix: nix.Nix, built: builds.Built, destination: builds.Destination, wanted: bool | None
) -> proofs.Proof | None:
    """Prove a seed complete if asked to, or, unasked, in CI."""
    if not _is_wanted(wanted) or built.plan.spec.kind != "seed":
        return None

    return proofs.prove_built(nix, built, destination, shared.unpacking_cache())


def _is_wanted(wanted: bool | None) -> bool:
    in_ci = os.environ.get("CI", "") not in ("", "0", "false")
    return in_ci if wanted is None else wanted


def target_named(reference: str) -> Reference:
    """Read the tag to push to; ``InputError`` for a layout, and for an image by its digest."""
    target = parse_reference(reference)
    if not isinstance(target, Reference):
        raise InputError(f"{target} is on this machine", hint="use -o DIR for an image on disk")
    if target.digest is not None:
        raise InputError(f"{target}: an image cannot be pushed to a digest", hint="name a tag")
    return target


def repository_of(options: dict[str, Any], reference: str) -> tuple[client.Repository, Reference]:
    """Open the repository that *reference* names, as ``target_named`` reads it."""
    target = target_named(reference)
    return shared.stores_of(options).repository(target), target


def push(options: dict[str, Any]) -> pushes.Pushed | None:
    """Build into the registry, unless the image of this recipe is there already.

    Returns what was pushed. ``untagged``: it gets no name yet.
    """
    if options["output"] is not None or options["format_"] != "oci":
        raise InputError("--push and -o or --format exclude each other", hint="leave one out")
    nix, request = shared.request_of(options)
    repository, target = repository_of(options, options["push"])
    with progress():
        evaluated = requests.evaluate_request(nix, request)
        there = (
            None
            if options["no_reuse"]
            else requests.find_by_key(repository, evaluated, writing=True)
        )
        fetched = (
            None
            if there is None
            else requests.add_tags(repository, there.digest, _tags(options, target) or ())
        )
        if fetched is None:
            pushed, proof = _build_and_push(options, nix, evaluated, repository, target)
    if fetched is not None:
        _tell_there(fetched, evaluated, target)
        return None
    _tell(pushed.built, pushed.reference, proof, pushed)
    return pushed


def _tags(options: dict[str, Any], target: Reference) -> tuple[str, ...] | None:
    """Return what names the image; None where it gets no name yet."""
    wanted = tuple(tag for tag in (target.tag, options["tag"]) if tag)
    return None if options["untagged"] else wanted


def _build_and_push(
    options: dict[str, Any],
    nix: nix.Nix,
    evaluated: requests.Evaluated,
    repository: client.Repository,
    target: Reference,
) -> tuple[pushes.Pushed, proofs.Proof | None]:
    if not options["no_reuse"]:
        # The registry was asked for the image already, and `publish` has asked this by itself.
        repository.check_writable()
    _, request = shared.request_of(options)
    plan = plans.plan_image(nix, request, base_of(options, nix, evaluated), evaluated)
    pushes.check_publishable(plan.spec, target, plan.licences.problem)
    how = assembly(options, nix)
    proof = _prove_first(options, how, plan)
    records = layer_cache.LayerRecords(cache_directory() / "pushed")
    pushed = pushes.push_image(how, plan, repository, target, records, _tags(options, target))
    return pushed, proof


def _prove_first(
    options: dict[str, Any], how: builds.Assembly, plan: plans.Plan
) -> proofs.Proof | None:
    """Prove the seed before it is published; for that it has to be on disk for once."""
    if not _is_wanted(options["prove"]) or plan.spec.kind != "seed":
        return None

    built = how.assemble(plan)
    destination = builds.Destination("oci", cache_directory() / "images", plan.input_key)
    builds.store_image(built, how.cache, destination)
    proof = proofs.prove_built(how.nix, built, destination, shared.unpacking_cache())
    proofs.check_proof(proof)
    return proof


def _tell(
    built: builds.Built,
    reference: str,
    proof: proofs.Proof | None,
    pushed: pushes.Pushed | None = None,
    *,
    cached: bool = False,
) -> None:
    """Print the image: a table of tiers, what names it, and what to do with it; or one JSON object.

    *pushed* is what became of it in a registry. *cached*: it lies in the cache, where ``nix-seed
    run`` looks for it by itself.
    """
    spec = built.plan.spec
    if manner().json:
        value = members(built, "digest", inputKey="plan.input_key")
        value |= members(spec, "nar_hash", "kind", "name", "system") | {
            "built": True,
            "reference": reference,
            "size": sum(layer.layer.descriptor.size for layer in built.layers),
            "layers": [_layer_json(layer) for layer in built.layers],
            "unknownLicences": [str(each.path) for each in spec.unknown],
        }
        value |= {"excluded": list(spec.excluded)} if spec.excluded else {}
        value |= {} if proof is None else {"proof": proof.to_json()}
        say(value | ({} if pushed is None else members(pushed, "tags", "sent")), indent=2)
        return
    tiers = groupby(built.layers, key=lambda layer: layer.tier)
    rows = [[tier, *_cells(list(layers))] for tier, layers in tiers]
    titles = ["tier", "layers", "paths", "unpacked", "compressed", "reused"]
    say_table(titles, [*rows, ["together", *_cells(built.layers)]], right=range(1, 6))
    lines = [
        "",
        f"image      {reference}",
        f"digest     {built.digest}",
        f"narHash    {spec.nar_hash}",
        f"input key  {built.plan.input_key}",
    ]
    if pushed is not None:
        lines += [f"tag        {tag}" for tag in pushed.tags]
        lines.append(f"sent       {human_size(pushed.sent)}")
    say_lines([*lines, *left_out(spec), *_proof_lines(proof), *_licence_lines(spec)])
    if pushed is None and reference.startswith("oci:"):
        named = "" if cached else f"--image {reference} "
        build, start = f"nix-seed run {named}-- nix build", f"podman run --rm {reference}"
        say(f"\nbuild in it:\n  {build}" if spec.kind == "seed" else f"\nstart it:\n  {start}")


def left_out(spec: specs.Spec) -> Iterator[str]:
    """Say which outputs the image is not for, as far as it says so itself."""
    if spec.excluded:
        yield f"left out   {', '.join(spec.excluded)}"


def _layer_json(layer: builds.BuiltLayer) -> dict[str, Any]:
    blob = {"digest": "layer.descriptor.digest", "size": "layer.descriptor.size"}
    return members(layer, "tier", "paths", "reused", diffId="layer.diff_id", **blob)


def _licence_lines(spec: specs.Spec) -> Iterator[str]:
    """Say what no later step would: that the image will not be pushed to registries for all."""
    if not spec.unknown:
        return
    names = shortened([each.path.name for each in spec.unknown], 3)
    yield f"licences   of {plural(len(spec.unknown), 'store path')} not known: {names}"
    yield "           it is not pushed to a public registry; nix-seed licences says more"


def _cells(layers: Iterable[builds.BuiltLayer]) -> list[str]:
    found = list(layers)
    reused = [layer for layer in found if layer.reused]
    return [
        str(len(found)),
        str(sum(len(layer.paths) for layer in found)),
        human_size(sum(layer.layer.tar_size for layer in found)),
        human_size(sum(layer.layer.descriptor.size for layer in found)),
        f"{len(reused)} of {len(found)}",
    ]


def _proof_lines(proof: proofs.Proof | None) -> Iterable[str]:
    if proof is None:
        return
    if proof.complete:
        yield f"proved     all {plural(len(proof.outputs), 'output')} can be built in it offline"
        return
    lacks = "these would have to be fetched" if proof.problem is None else "it cannot be evaluated"
    yield f"proved     INCOMPLETE: {lacks}:"
    yield from (f"  {missing}" for missing in proof.missing)
    yield proof.remedy


def _tell_there(fetched: store.Fetched, evaluated: requests.Evaluated, target: Reference) -> None:
    """Say that the registry has the image of this recipe already: nothing was built."""
    digest = fetched.descriptor.digest
    reference = str(target.at(digest))
    lines = [
        "nothing to build: the image of this recipe is there",
        "",
        f"image      {reference}",
        f"digest     {digest}",
        f"input key  {evaluated.input_key}",
    ]
    manifest = fetched.manifest(reference)
    value = {
        "built": False,
        "digest": str(digest),
        "narHash": manifest.annotations.get(manifests.ANNOTATION_NAR_HASH),
        "inputKey": evaluated.input_key,
        "reference": reference,
        "system": evaluated.evaluation.recipe.outline.system,
        "sent": 0,
        "layers": [
            {
                "digest": str(layer.digest),
                "size": layer.size,
                "tier": layer.annotations.get(manifests.ANNOTATION_TIER),
                "reused": True,
            }
            for layer in manifest.layers
        ],
    }
    answer(value, lines, indent=2)


@seed_command("build")
@shared.image_options
@option("-o, --output PATH", "Image layout's directory, or archive's file [the cache].")
@option(
    "--format",
    "A directory, or one file for other tools.",
    into="format_",
    type=click.Choice(["oci", "oci-archive", "docker-archive"]),
    default="oci",
)
@option("--tag TAG", "The image's name at its destination [its own].")
@option("--threads N", "Layers written at once [processors].", type=click.IntRange(min=1))
@option("--no-reuse", "Write every layer anew, whatever the cache holds.")
@option(
    "--prove/--no-prove",
    "Plan every output inside the seed, with no network [on in CI].",
    default=None,
)
@option("--push REF", "Write the image straight into a registry.")
@option("--untagged", hidden=True)
@option("--no-lock", "Do not take the flake's seed.lock for the base.")
@shared.registry_options
@shared.json_option
def command(**options: Any) -> pushes.Pushed | None:
    """Turn a flake into an image: a seed to build in, or a run image to ship.

    FLAKE is a directory or any flake reference, such as github:owner/repo; the flake needs no
    changes. If it has the attribute NAME (`seed`, or `run` for --kind run), that wins.
    """
    if options["push"] is not None:
        return push(options)
    nix, request = shared.request_of(options)
    with progress():
        evaluated = requests.evaluate_request(nix, request)
        name = evaluated.evaluation.recipe.outline.name
        destination = _destination(options, name, evaluated.input_key)
        builds.check_destination(destination)
        base = base_of(options, nix, evaluated)
        plan = plans.plan_image(nix, request, base, evaluated)
        how = assembly(options, nix)
        built = how.assemble(plan)
        reference = builds.store_image(built, how.cache, destination)
        proof = prove(nix, built, destination, options["prove"])
    _tell(built, reference, proof, cached=options["output"] is None)
    if proof is not None and not proof.complete:
        exit_with(1)
    return None


def _destination(options: dict[str, Any], name: str, key: str) -> builds.Destination:
    path = options["output"]
    if path is not None:
        return builds.Destination(options["format_"], path, options["tag"] or name)
    if options["format_"] != "oci":
        suffix = options["format_"].removesuffix("-archive")
        return builds.Destination(
            options["format_"], Path(f"{name}.{suffix}.tar"), options["tag"] or name
        )
    return builds.Destination("oci", cache_directory() / "images", options["tag"] or key)
