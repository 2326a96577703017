"""What is asked for, and the key by which its image is found: evaluation alone tells."""

from __future__ import annotations

from dataclasses import dataclass

from nix_seed.core.events import OnEvent, Stage, ignore
from nix_seed.flake.evaluate import Evaluation, Kind, evaluate_flake
from nix_seed.flake.nix import Nix
from nix_seed.flake.rules.recipe import input_key
from nix_seed.image.rules.frames import Compressor


@dataclass(frozen=True, slots=True)
class Request:
    """What to make: of which flake, of which kind, for which system, in how many layers."""

    flake: str
    kind: Kind
    compressor: Compressor
    budget: int
    attr: str | None = None
    system: str | None = None


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What evaluation alone tells: the recipe, and the key by which its image is found."""

    evaluation: Evaluation
    input_key: str


def evaluate_request(nix: Nix, request: Request, on_event: OnEvent = ignore) -> Evaluated:
    """Evaluate; nothing is built."""
    on_event(Stage("evaluate", f"evaluating {request.flake}"))
    evaluation = evaluate_flake(
        nix, request.flake, kind=request.kind, attr=request.attr, system=request.system
    )
    key = input_key(evaluation.recipe, request.compressor.to_json(), request.budget)
    return Evaluated(evaluation, key)
