"""flake -> plan: what an image will hold, layer by layer; everything but its bytes.

A previous image, given by name or by ``seed.lock``, has its layers kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from nix_seed.core.errors import CheckedFalse, InputError, NixFailed
from nix_seed.core.events import Stage, tell
from nix_seed.core.files import read_given
from nix_seed.core.values import dataclass
from nix_seed.core.words import plural
from nix_seed.flake.nix import FlakeMetadata, Nix
from nix_seed.flake.rules.names import match_packages
from nix_seed.flake.rules.outline import ImageConfig, Outline
from nix_seed.flake.rules.recipe import Recipe, TierRoots
from nix_seed.formats.nix.store_path import PathInfo, StorePath
from nix_seed.image.read.spec import open_seed_image
from nix_seed.image.request import Evaluated, Request, evaluate_request
from nix_seed.image.rules.changes import PlanDiff, evaluate_plan
from nix_seed.image.rules.frames import Compressor
from nix_seed.image.rules.partition.plan import Group, divide
from nix_seed.image.rules.spec import Spec
from nix_seed.licences import licences as licensing
from nix_seed.registry.open import AnyReference, Stores
from nix_seed.registry.rules.lock import LOCK_NAME, SeedLock


def open_base(stores: Stores, reference: AnyReference, system: str) -> Base:
    """Read the spec of the image that *reference* names; of an index, *system*'s."""
    return Base(str(reference), open_seed_image(stores, reference, system).spec)


def read_lock(nix: Nix, flake: FlakeMetadata) -> SeedLock | None:
    """Read the flake's ``seed.lock``, if it has one."""
    path = nix.at(flake.source) / LOCK_NAME
    if not path.exists():
        return None
    text = read_given(path)
    return SeedLock.parse(text, f"{LOCK_NAME} of {flake.url}")


def locked_base(stores: Stores, lock: SeedLock, system: str) -> Base | None:
    """Open the image that *lock* pins for *system*; ``CheckedFalse`` if it is another than stated.

    None where the lock does not speak of the system.
    """
    reference = lock.reference(system)
    if reference is None:
        return None
    base = open_base(stores, reference, system)
    wanted = lock.systems[system].nar_hash
    if base.spec.nar_hash != wanted:
        raise CheckedFalse(
            f"{LOCK_NAME} states narHash {wanted} for {reference}, which has {base.spec.nar_hash}",
            hint="someone changed the lock by hand, or the image is not what it says",
        )
    return base


# Each tier's name and its roots, in order.
Tiers = Sequence[tuple[str, Sequence[StorePath]]]


@dataclass(frozen=True, slots=True)
class Base:
    """A previous image, whose layers the new one keeps where it can."""

    name: str
    spec: Spec


@dataclass(frozen=True, slots=True)
class Plan:
    """An image, but for its bytes. ``diff`` compares it with ``base``, where one was given."""

    evaluated: Evaluated
    spec: Spec
    base: Base | None
    diff: PlanDiff | None
    licences: licensing.Licences

    @property
    def input_key(self) -> str:
        """The key by which the image is found after evaluation alone."""
        return self.evaluated.input_key


def plan_image(
    nix: Nix,
    request: Request,
    base: Base | None = None,
    evaluated: Evaluated | None = None,
) -> Plan:
    """Evaluate (unless *evaluated* is given), build what the image is to hold, and lay it out."""
    evaluated = evaluated or evaluate_request(nix, request)
    recipe = evaluated.evaluation.recipe
    _check_base(base, recipe.outline)
    tell(Stage("realise", "building what the image is to hold"))
    nix.realise(recipe.wanted, _plain_paths(recipe))
    tiers: Tiers = [(tier.name, _output_paths(nix, tier)) for tier in recipe.tiers]
    closure = nix.closure(path for _, roots in tiers for path in roots)
    if recipe.outline.kind == "run":
        tiers = _split_run(nix, recipe, tiers, closure)
    licences = _licences(nix, request, evaluated, closure)
    closure, tiers = licensing.leave_out(closure, tiers, licences.judgement)
    tell(Stage("partition", f"laying {plural(len(closure), 'store path')} into layers"))
    previous = base.spec.layers if base else None
    groups = divide(licensing.closed(closure), tiers, request.budget, previous)
    spec = _spec(recipe.outline, request.compressor, closure, groups)
    spec = replace(
        spec,
        withheld=licensing.withheld_entries(licences.judgement),
        unknown=licensing.unknown_entries(licences),
    )
    diff = None if base is None else compare_with_base(spec, base.spec)
    return Plan(evaluated, spec, base, diff, licences)


def licences_of_flake(nix: Nix, request: Request) -> licensing.Licences:
    """Build what the image is to hold, and judge the licences of all of it; refuse nothing."""
    evaluated = evaluate_request(nix, request)
    recipe = evaluated.evaluation.recipe
    tell(Stage("realise", "building what the image is to hold"))
    nix.realise(recipe.wanted, _plain_paths(recipe))
    closure = nix.closure(path for tier in recipe.tiers for path in _output_paths(nix, tier))
    tell(Stage("licences", "reading licences"))
    return licensing.assess_licences(nix, evaluated.evaluation, request.choice.attr, closure)


def _licences(
    nix: Nix, request: Request, evaluated: Evaluated, closure: Mapping[StorePath, PathInfo]
) -> licensing.Licences:
    """Judge the closure's licences, and say what is withheld or not known."""
    tell(Stage("licences", "reading licences"))
    licences = licensing.assess_licences(nix, evaluated.evaluation, request.choice.attr, closure)
    licensing.check_contents(nix, licences)
    withheld, unknown = licences.judgement.withheld, licences.judgement.unknown
    if withheld:
        names = ", ".join(f"{item.path.name} ({item.licence.name})" for item in withheld)
        tell(Stage("withheld", f"left out, not to be passed on: {names}"))
    if unknown:
        tell(Stage("unknown", f"{plural(len(unknown), 'store path')} of unknown licence"))
    return licences


def _check_base(base: Base | None, outline: Outline) -> None:
    if base is not None and base.spec.system != outline.system:
        raise InputError(
            f"the base {base.name} is for {base.spec.system}, the image for {outline.system}",
            hint="name a base of the same system",
        )


def _plain_paths(recipe: Recipe) -> list[StorePath]:
    return sorted({path for tier in recipe.tiers for path in tier.paths})


def _output_paths(nix: Nix, tier: TierRoots) -> list[StorePath]:
    found = set(tier.paths)
    for path, names in tier.outputs.items():
        outputs = nix.read_derivation(path).outputs
        for name in names:
            output = outputs.get(name)
            if output is None or output.path is None:
                raise NixFailed(
                    f"{path} has no output {name} whose path is known before it is built",
                    hint="a seed holds no content-addressed derivation yet: make it without"
                    " __contentAddressed, or leave out what needs it: --exclude OUTPUT",
                )
            found.add(output.path)
    return sorted(found)


def _split_run(
    nix: Nix,
    recipe: Recipe,
    tiers: Tiers,
    closure: Mapping[StorePath, PathInfo],
) -> Tiers:
    """Put below ``app`` what it needs at run time and the project's source does not change."""
    own = {
        output.path
        for path in recipe.project
        for output in nix.read_derivation(path).outputs.values()
    }
    libraries = [path for path in closure if path not in own]
    return [(name, [*roots, *libraries] if name == "lib" else roots) for name, roots in tiers]


def _spec(
    outline: Outline,
    compressor: Compressor,
    closure: Mapping[StorePath, PathInfo],
    groups: Sequence[Group],
) -> Spec:
    return Spec(
        kind=outline.kind,
        name=outline.name,
        system=outline.system,
        config=_config(outline),
        files=tuple(sorted(outline.container.files, key=lambda file: file.path)),
        inputs=outline.inputs,
        tiers=tuple(tier.name for tier in outline.tiers),
        paths=closure,
        layers=tuple(groups),
        compressor=compressor,
        any_user=outline.container.any_user,
        excluded=outline.excluded,
    )


def _config(outline: Outline) -> ImageConfig:
    """Lay the user's configuration over the container's own."""
    given = outline.config
    return ImageConfig(
        env=outline.container.env | given.env,
        entrypoint=given.entrypoint,
        cmd=given.cmd or (() if given.entrypoint else ("/bin/sh",)),
        working_dir=given.working_dir,
        user=given.user,
        labels=given.labels,
    )


def compare_with_base(spec: Spec, old: Spec) -> PlanDiff:
    """Say what whoever has the image of *old* must pull for that of *spec*, and who caused it."""
    # Name the inputs that changed; one that others follow goes by its shortest name alone.
    names: dict[str, str] = {}
    for name, path in sorted(spec.inputs.items(), key=lambda item: (len(item[0]), item[0])):
        if old.inputs.get(name) != path:
            names.setdefault(path, name)
    changed = list(names.values())
    causes = {name: [StorePath.containing(path)] for name, path in spec.inputs.items()}
    if len(changed) == 1:
        # Packages do not say which input they came from. With one input changed, what it replaced
        # is its doing; what is new may be the project's own wish.
        changes = match_packages(spec.paths, old.paths)
        causes[changed[0]] += [item.new for item in changes if item.old and item.new]
    return evaluate_plan(
        spec.layers, old.layers, spec.paths, old.paths, causes, changed_causes=changed
    )
