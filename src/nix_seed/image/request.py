"""What is asked for, and the key by which its image is found: evaluation alone tells.

Apart from planning, which loads several times as much: most commands end here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nix_seed.core.events import OnEvent, Stage, ignore
from nix_seed.flake.evaluate import Evaluation, Kind, evaluate_flake
from nix_seed.flake.nix import Nix
from nix_seed.flake.rules.recipe import input_key
from nix_seed.image.rules.frames import Compressor

if TYPE_CHECKING:
    from nix_seed.formats.oci.manifest import Descriptor
    from nix_seed.registry.client import Repository


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


def tags_of(evaluated: Evaluated) -> tuple[str, ...]:
    """Return the tags that every pushed image gets: by input key, and by commit if it is clean."""
    outline = evaluated.evaluation.recipe.outline
    revision = evaluated.evaluation.flake.revision
    keyed = f"{evaluated.input_key}-{outline.system}"
    return (keyed,) if revision is None else (keyed, f"{revision}-{outline.system}")


def find_by_key(
    repository: Repository, evaluated: Evaluated, *, writing: bool = False
) -> Descriptor | None:
    """Ask, by one HEAD request, whether the image of this recipe is in the registry already.

    Who is *writing* next takes a refusal for "not there yet".
    """
    return repository.head_manifest(tags_of(evaluated)[0], writing=writing)
