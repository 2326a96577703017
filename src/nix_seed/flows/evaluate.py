"""flake -> recipe: evaluation alone, nothing is built."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from nix_seed.clients.nix import FlakeMetadata, Nix
from nix_seed.clients.own_source import OwnSource
from nix_seed.flows.nix_half import call_nix_half
from nix_seed.ground.errors import InputError
from nix_seed.rules.outline import Outline
from nix_seed.rules.recipe import Recipe, build_recipe

__all__ = [
    "DEFAULT_ATTR",
    "Evaluation",
    "Kind",
    "current_system",
    "declared_systems",
    "evaluate_flake",
]

Kind = Literal["seed", "run"]
DEFAULT_ATTR: Mapping[str, str] = {"seed": "seed", "run": "run"}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A flake, as found, and the recipe of its image."""

    flake: FlakeMetadata
    recipe: Recipe


def current_system() -> str:
    """Return the machine's system as Nix spells it: ``x86_64-linux``, ``aarch64-darwin``."""
    machine = {"arm64": "aarch64", "amd64": "x86_64"}.get(platform.machine(), platform.machine())
    return f"{machine}-{platform.system().lower()}"


def evaluate_flake(
    nix: Nix, flake: str, *, kind: Kind = "seed", attr: str | None = None, system: str | None = None
) -> Evaluation:
    """Evaluate *flake* to the recipe of its *kind* of image for *system* (default: this machine's).

    The flake's own attribute *attr* wins where it exists (and must exist if given); without one
    the recipe is made from the flake's outputs. Raises ``InputError`` with what there is instead,
    ``NixFailed`` with Nix's own words.
    """
    system = system or current_system()
    metadata = nix.metadata(flake)
    arguments = {
        "system": system,
        "kind": kind,
        "attr": attr or DEFAULT_ATTR[kind],
        "required": attr is not None,
    }
    doing = f"evaluating {flake} for {system}"
    answer = call_nix_half(nix, "outline", metadata.url, arguments, doing)
    if "problem" in answer:
        raise _problem(answer, flake, kind, attr or DEFAULT_ATTR[kind], system)
    outline = Outline.from_json(answer["outline"])
    if outline.system != system:
        raise InputError(
            f"{attr or DEFAULT_ATTR[kind]} of {flake} is for {outline.system}, not for {system}",
            hint=f"ask for it with --system {outline.system}",
        )
    own = OwnSource(metadata.source, nix.root)
    return Evaluation(metadata, build_recipe(outline, cache(nix.read_derivation), own))


def declared_systems(nix: Nix, flake: str, attr: str = DEFAULT_ATTR["seed"]) -> tuple[str, ...]:
    """Return the systems *flake* has a seed for, or else outputs, sorted."""
    metadata = nix.metadata(flake)
    doing = f"asking {flake} for its systems"
    found = call_nix_half(nix, "systems", metadata.url, {"attr": attr}, doing)
    return tuple(sorted(found))


def _problem(
    answer: Mapping[str, Any], flake: str, kind: str, attr: str, system: str
) -> InputError:
    """Put into words what the Nix half found wrong with the request."""
    match answer["problem"]:
        case "attribute":
            names = ", ".join(answer["available"]) or "none"
            return InputError(
                f"{flake} has no attribute {attr} for {system}",
                hint=f"packages of {system} there: {names};"
                " without --attr an image is made from all outputs",
            )
        case "system":
            systems = ", ".join(answer["systems"]) or "none"
            return InputError(
                f"{flake} has no outputs for {system}",
                hint=f"systems it has outputs for: {systems}; choose one with --system",
            )
        case "package":
            names = ", ".join(answer["available"]) or "none"
            return InputError(
                f"{flake} has no package `default` for {system} to make a run image of",
                hint=f"packages of {system} there: {names}; name one with mkRun {{ package = …; }}",
            )
        case "packages":
            return InputError(
                f"{flake} has no input with packages for {system} to take a shell and Nix from",
                hint="add nixpkgs to its inputs, or use mkSeed with pkgs = …",
            )
        case "kind":
            return InputError(
                f"{attr} of {flake} is a {answer['kind']} image, not a {kind} image",
                hint=f"ask for it with --kind {answer['kind']}",
            )
    return InputError(
        f"{attr} of {flake} was not made by mkSeed or mkRun",
        hint="name another with --attr, or leave --attr out to use the flake's outputs",
    )
