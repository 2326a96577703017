"""``nix-seed plan``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nix_seed.cli.command import option, progress, seed_command
from nix_seed.cli.image.build import base_of, left_out
from nix_seed.cli.lazily import lazily
from nix_seed.cli.options import image_options, json_option, registry_options, request_of
from nix_seed.cli.say import answer, manner, note, say, say_table
from nix_seed.core.errors import InputError
from nix_seed.core.safe_text import safe_line
from nix_seed.core.words import human_size, members, plural, shortened
from nix_seed.formats.nix.store_path import StorePath

with lazily():
    from nix_seed.flake import evaluate as flakes, nix as nixes
    from nix_seed.flake.rules import why
    from nix_seed.image import plan as plans, request as requests
    from nix_seed.image.rules import changes
    from nix_seed.image.rules.partition import plan as partitions


_MOST = 3  # paths that are named of each layer


@seed_command("plan")
@image_options
@option("--no-lock", "Do not take the flake's seed.lock for the base.")
@registry_options
@option(
    "--why PATH|NAME",
    "Only say why this is in the image, or why it is the project's own; build nothing.",
)
@option("--all", "Name every store path of each layer.", into="all_paths")
@json_option
def command(why: str | None, **options: Any) -> None:
    """Show how FLAKE's image would be laid into layers, without writing it.

    With --base, also what a consumer of that image would have to pull, and which flake input or
    package caused it. Sizes are of unpacked store paths.
    """
    nix, request = request_of(options)
    with progress():
        evaluated = requests.evaluate_request(nix, request)
        _print_unseen(evaluated.evaluation)
        _print_fetched_anew(nix, evaluated.evaluation)
        _print_built_anew(nix, evaluated.evaluation)
        if why is not None:
            _explain(nix, evaluated.evaluation, why)
            return
        base = base_of(options, nix, evaluated)
        plan = plans.plan_image(nix, request, base, evaluated)
    if manner().json:
        say(_json(plan), indent=2)
    else:
        _print(plan, None if options["all_paths"] else _MOST)


def _print_unseen(evaluation: flakes.Evaluation) -> None:
    """Say what no experiment decided, and why."""
    walked, twin = evaluation.recipe.walked, evaluation.ownership.twin
    if twin.unanswered is not None:
        note(
            "notice: the flake does not evaluate with files added and removed, and other values in"
            f" those that its code reads ({safe_line(twin.unanswered)}): a commit that does this"
            " may change the image",
        )
    if evaluation.ownership.needed.problem is not None:
        say(
            "notice: the flake fetches or builds something while it is evaluated; what, cannot be"
            f" told ({safe_line(evaluation.ownership.needed.problem)}), so that the image may lack"
            " it: `nix-seed prove` shows",
            err=True,
        )
    if unclear := (*twin.questions.unclear, *twin.questions.tests):
        note(
            "notice: a commit that adds or removes a file, or other values in one, may change the"
            f" image, by what is asked in {safe_line(shortened(unclear, 8))}",
        )
    if twin.careful:
        note(
            "notice: the flake does not evaluate with other lock files, versions and texts: a"
            " commit that changes these may change the image",
        )
    if walked:
        problem = twin.problem or "these outputs throw"
        note(
            f"notice: the flake does not evaluate with all of its files altered"
            f" ({safe_line(problem)}); of {safe_line(shortened(walked, 8))} the project's own is"
            " what is built from copies of its files",
        )


def _print_fetched_anew(nix: nixes.Nix, evaluation: flakes.Evaluation) -> None:
    """Say what each commit downloads by another name, and how to have it baked."""
    own = evaluation.recipe.project
    fixed = (path.name for path in own if nix.read_derivation(path).is_fixed_output)
    if names := sorted(name.removesuffix(".drv") for name in fixed):
        note(
            f"notice: {safe_line(shortened(names, 8))}: fetched by a hash, under a name that holds"
            " the commit or its time, so that no seed can have it: each build needs the network. To"
            " have it baked, give it a name that stays (in buildGoModule: overrideModAttrs = _: _:"
            ' { name = "modules"; })',
        )
    kept = evaluation.ownership.twin.made
    baked = ((path.name, nix.read_derivation(path)) for path in evaluation.recipe.made)
    if renamed := sorted(
        name.removesuffix(".drv")
        for name, derivation in baked
        if derivation.is_fixed_output
        and kept.isdisjoint(output.path for output in derivation.outputs.values())
    ):
        note(
            f"notice: {safe_line(shortened(renamed, 8))}: fetched by a hash, under a name"
            " that holds a version from the project's files: a commit that changes the version"
            " changes the image. A name that stays avoids it",
        )


def _print_built_anew(nix: nixes.Nix, evaluation: flakes.Evaluation) -> None:
    """Say what every new machine compiles though few commits touch it, and how to bake it."""
    names = [path.name.removesuffix(".drv") for path in flakes.made_of_manifests(nix, evaluation)]
    if names:
        note(
            f"notice: {safe_line(shortened(names, 8))}: built from the project's manifests alone,"
            " or its patches, so that a commit may change it, and not in the seed: each new machine"
            " builds it. To have it baked, name it in the flake's seed: mkSeed { contents.packages"
            " = [ … ]; }; a commit that changes these files then changes the image",
        )


def _explain(nix: nixes.Nix, evaluation: flakes.Evaluation, target: str) -> None:
    read = nixes.DerivationReader(nix)
    reasons = why.explain(target, evaluation.recipe, evaluation.ownership, read)
    if not reasons:
        raise InputError(
            f"{target} is nothing that the image or the flake's outputs are built from",
            hint="name a store path, a package (zlib or zlib-1.3), an output (packages.default)"
            " or an input",
        )
    value = {"why": [reason.to_json() for reason in reasons]}
    answer(value, "\n".join(map(str, reasons)), indent=2)


def _size(plan: plans.Plan, group: partitions.Group) -> int:
    return sum(plan.spec.paths[path].nar_size for path in group.paths)


def _print(plan: plans.Plan, most: int | None) -> None:
    pulls = () if plan.diff is None else ("pull",)
    rows = []
    for number, group in enumerate(plan.spec.layers):
        pull = [] if plan.diff is None else ["" if plan.diff.layers[number].reused else "pull"]
        size = human_size(_size(plan, group))
        rows.append([str(number + 1), group.tier, size, *pull, _holds(plan, group.paths, most)])
    say_table(["layer", "tier", "unpacked", *pulls, "holds"], rows, right=(0, 2))
    for line in _summary(plan):
        say(line)


def _holds(plan: plans.Plan, paths: tuple[StorePath, ...], most: int | None) -> str:
    """Name the largest of *paths*, *most* of them."""
    return shortened([path.name for path in plan.spec.largest(paths)], most)


def _summary(plan: plans.Plan) -> Iterator[str]:
    total = human_size(sum(info.nar_size for info in plan.spec.paths.values()))
    layers = plural(len(plan.spec.layers), "layer")
    paths = plural(len(plan.spec.paths), "store path")
    yield f"\n{paths}, {total}, in {layers} and the container's"
    yield f"narHash    {plan.spec.nar_hash}"
    yield f"input key  {plan.input_key}"
    yield from left_out(plan.spec)
    if plan.diff is not None and plan.base is not None:
        yield from _diff(plan.base.name, plan.diff)


def _diff(base: str, diff: changes.PlanDiff) -> Iterator[str]:
    if not diff.pulled_layers and not diff.changes:
        yield f"\nnothing to pull for whoever has {base}: every layer is the same"
        return
    pulled = f"{human_size(diff.pull_bytes)} of {human_size(diff.total_bytes)}"
    yield f"\nwhoever has {base} pulls {plural(diff.pulled_layers, 'layer')}, {pulled}, because:"
    for culprit in diff.culprits:
        yield f"  {culprit_line(culprit)}"


def culprit_line(culprit: changes.Culprit) -> str:
    """Return in one line who changed, what that drags along, and what it costs to pull."""
    shown = shortened([change.words for change in culprit.roots], 5)
    who = f"input {culprit.cause} changed: {shown}" if culprit.cause_changed else shown
    drags = f", and {plural(len(culprit.dependents), 'dependent')}" if culprit.dependents else ""
    where = plural(len(culprit.layers), "layer")
    return f"{who}{drags}: {human_size(culprit.path_bytes)} in {where} of " + human_size(
        culprit.pull_bytes
    )


def _json(plan: plans.Plan) -> dict[str, Any]:
    value = members(plan, "input_key", narHash="spec.nar_hash", system="spec.system") | {
        "layers": [
            members(group, "tier", "paths") | {"narSize": _size(plan, group)}
            for group in plan.spec.layers
        ]
    }
    value |= {"excluded": list(plan.spec.excluded)} if plan.spec.excluded else {}
    if plan.diff is not None:
        value["pull"] = _diff_json(plan.diff)
        for layer, change in zip(value["layers"], plan.diff.layers, strict=True):
            layer["reused"] = change.reused
    return value


def _diff_json(diff: changes.PlanDiff) -> dict[str, Any]:
    change, sizes = (
        ("package", "old", "new"),
        {"narSize": "path_bytes", "pullNarSize": "pull_bytes"},
    )
    whole = members(diff, layers="pulled_layers", narSize="pull_bytes", totalNarSize="total_bytes")
    return whole | {
        "culprits": [
            members(culprit, "layers", **sizes)
            | {
                "input": culprit.cause if culprit.cause_changed else None,
                "roots": [members(each, *change) for each in culprit.roots],
                "dependents": [members(each, *change) for each in culprit.dependents],
            }
            for culprit in diff.culprits
        ]
    }
