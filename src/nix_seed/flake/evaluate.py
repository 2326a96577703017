"""flake -> recipe: evaluation alone, nothing is built.

The flake and its altered twin are evaluated side by side (but one after the other where the store
is new); what differs is the project's own. Where the twin does not evaluate, the content of copied
sources tells whose they are.
"""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import copy_context
from typing import Any

import msgspec

from nix_seed.core.errors import InputError
from nix_seed.core.processes import current_system
from nix_seed.core.values import dataclass
from nix_seed.core.words import shortened
from nix_seed.flake.experiment import compare, evaluate_otherwise, evaluate_twin, find_left
from nix_seed.flake.leftovers import leaving_few
from nix_seed.flake.needed import evaluate_outline, find_needed
from nix_seed.flake.nix import DerivationReader, FlakeMetadata, Nix, ended_with_us, of_checkout
from nix_seed.flake.nix_code import call_nix_half
from nix_seed.flake.own_source import OwnSource
from nix_seed.flake.rules.choice import DEFAULT_ATTR, SEED, FlakeChoice
from nix_seed.flake.rules.manifests import find_made_of_manifests
from nix_seed.flake.rules.outline import Outline, Project
from nix_seed.flake.rules.recipe import Needed, Ownership, Recipe, build_recipe
from nix_seed.formats.nix.store_path import StorePath


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A flake, as found, and the recipe of its image."""

    flake: FlakeMetadata
    recipe: Recipe
    ownership: Ownership


def evaluate_flake(
    nix: Nix,
    flake: str,
    choice: FlakeChoice = SEED,
    *,
    metadata: FlakeMetadata | None = None,
) -> Evaluation:
    """Evaluate *flake* to the recipe of the image that is its *choice*.

    The flake's own attribute wins where it exists (and must exist if given); without one the
    recipe is made from the flake's outputs. *metadata* is the flake's, where Nix was asked
    before. Raises ``InputError`` with what there is instead, ``NixFailed`` with Nix's own words.
    """
    metadata = metadata or nix.metadata(flake)
    arguments = choice.arguments(current_system())
    doing = f"evaluating {flake} for {arguments['system']}"
    with (
        of_checkout(flake),
        leaving_few(nix) as left,
        ThreadPoolExecutor(3) as beside,
        ended_with_us(nix) as ours,
    ):
        # Only this one tells how far it is.
        tells = copy_context().run
        outlined = beside.submit(tells, evaluate_outline, ours, metadata, arguments, doing)
        if not nix.has_derivations():
            # A new store: two that write the same derivations at once take four times as long as
            # one after the other.
            wait([outlined])
        twin = beside.submit(evaluate_twin, ours, metadata, arguments)
        otherwise = beside.submit(evaluate_otherwise, ours, metadata, arguments)
        answer, needs = outlined.result()
        outline = _outline(answer, flake, arguments)
        # While the twin is still evaluated.
        known = nix.requisites(_derivations(outline.project))
        read = DerivationReader(nix)
        found = compare(nix, read, metadata, known, twin.result(), otherwise.result())
        for altered in (twin.result(), otherwise.result()[1]):
            left.update(find_left(altered, known))
    # A tree that lies in the flake's own, under a path that changes with it, is no input.
    there, twins = outline.inputs.items(), found.inputs if found.outputs else outline.inputs
    inputs = {name: path for name, path in there if twins.get(name, path) == path}
    outline = msgspec.structs.replace(outline, inputs=inputs)
    own = OwnSource(metadata.source, nix.root)
    needed = Needed()
    if needs and choice.kind == "seed":
        needed = find_needed(nix, metadata, arguments, inputs.values())
    ownership = Ownership(outline, read, own, found, needed)
    return Evaluation(metadata, build_recipe(ownership), ownership)


def _outline(answer: Mapping[str, Any], flake: str, asked: Mapping[str, Any]) -> Outline:
    """Return the outline that the Nix half answered with; raise what it found wrong instead."""
    system, attr = asked["system"], asked["attr"]
    if "problem" in answer:
        raise _problem(answer, flake, asked)
    outline = Outline.from_json(answer["outline"])
    if outline.system != system:
        raise InputError(
            f"{attr} of {flake} is for {outline.system}, not for {system}",
            hint=f"ask for it with --system {outline.system}",
        )
    return outline


def made_of_manifests(nix: Nix, evaluation: Evaluation) -> tuple[StorePath, ...]:
    """Return what of the project's own is built from its manifests alone, and not baked."""
    own = OwnSource(evaluation.flake.source, nix.root)
    twin, recipe = evaluation.ownership.twin, evaluation.recipe

    def names_in(path: StorePath) -> Iterable[frozenset[str]]:
        is_own = path not in twin.derivations if twin.outputs else own(path)
        return own.names_in(path) if is_own else ()

    found = find_made_of_manifests(recipe, DerivationReader(nix), names_in)
    return tuple(path for path in found if path not in recipe.wanted)


def read_written(nix: Nix, evaluation: Evaluation) -> dict[str, bytes]:
    """Return, by name, the derivations that *evaluation* wrote, and small files that these name.

    Files of the project's own are not among them.
    """
    own, found = OwnSource(evaluation.flake.source, nix.root), {}
    for path in nix.requisites(_derivations(evaluation.ownership.outline.project)):
        place = nix.at(path)
        if place.is_symlink() or not place.is_file() or place.stat().st_size > _SMALL:
            continue
        if path.name.endswith(".drv") or not own(path):
            found[path.base_name] = place.read_bytes()
    return found


_SMALL = 1 << 20  # bytes


def _derivations(project: Project) -> frozenset[StorePath]:
    return frozenset(
        StorePath.parse(path)
        for entry in project.all
        for path, element in entry.context.items()
        if element.outputs
    )


def declared_systems(nix: Nix, flake: str) -> tuple[str, ...]:
    """Return the systems *flake* has a seed for, or else outputs, sorted."""
    metadata = nix.metadata(flake)
    doing = f"asking {flake} for its systems"
    found = call_nix_half(nix, "systems", metadata.url, {"attr": DEFAULT_ATTR["seed"]}, doing)
    return tuple(sorted(found))


def _problem(answer: Mapping[str, Any], flake: str, asked: Mapping[str, Any]) -> InputError:
    """Put into words what the Nix half found wrong with the request."""
    system, attr = asked["system"], asked["attr"]
    names = shortened(answer.get("available", ()), 50) or "none"
    match answer["problem"]:
        case "attribute":
            said = f"{flake} has no attribute {attr} for {system}"
            hint = (
                f"packages of {system} there: {names};"
                " without --attr an image is made from all outputs"
            )
        case "system":
            said, hint = f"{flake} has no outputs for {system}", _other_systems(answer, system)
        case "package":
            said = f"{flake} has no package `default` for {system} to make a run image of"
            hint = f"packages of {system} there: {names}; name one with mkRun {{ package = …; }}"
        case "packages":
            said = f"{flake} has no input with packages for {system} to take a shell and Nix from"
            hint = "add nixpkgs to its inputs, or use mkSeed with pkgs = …"
        case "exclude":
            unknown = shortened(answer["unknown"], 3)
            said = f"{flake} has no {unknown} for {system}, which --exclude names"
            hint = f"what it has: {names}"
        case "exclusion":
            said = f"nothing more can be left out of {attr} of {flake}: an older mkSeed made it"
            hint = "update that input of the flake, or name it there: mkSeed { exclude = …; }"
        case "kind":
            said = f"{attr} of {flake} is a {answer['kind']} image, not a {asked['kind']} image"
            hint = f"ask for it with --kind {answer['kind']}"
        case _:
            said = f"{attr} of {flake} was not made by mkSeed or mkRun"
            hint = "name another with --attr, or leave --attr out to use the flake's outputs"
    return InputError(said, hint=hint)


def _other_systems(answer: Mapping[str, Any], system: str) -> str:
    """Say what to do about a flake without outputs for *system*."""
    if answer["systems"]:
        there = ", ".join(answer["systems"])
        return f"systems it has outputs for: {there}; choose one with --system"
    if answer["misplaced"]:
        name = answer["misplaced"][0]
        right = f"{name.partition('.')[0]}.{system}.{name.partition('.')[2]}"
        return f"{name} is for no system: call it {right} in flake.nix"
    if answer["asked"]:
        included = f'mkSeed {{ include = [ "{answer["asked"][0]}" ]; … }}'
        return (
            f"it has {shortened(answer['asked'], 3)}, which a seed is for if include names"
            f" them: packages.{system}.seed = {included}"
        )
    return (
        "a seed is for packages, apps, checks, devShells and formatter: name there"
        f" what overlays or legacyPackages have: packages.{system}.NAME = pkgs.NAME;"
    )
