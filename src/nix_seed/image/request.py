"""What is asked for, and the image that is there already: found by its key, and named.

Evaluation alone tells the key. Apart from planning, which loads several times as much: most
commands end here.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import field
from typing import TYPE_CHECKING

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CouldNotCheck
from nix_seed.core.events import Stage, tell
from nix_seed.core.values import dataclass
from nix_seed.flake.nix import Nix, ended_with_us
from nix_seed.flake.rules.choice import SEED, FlakeChoice
from nix_seed.image.rules.frames import Compressor
from nix_seed.image.rules.partition import DEFAULT_BUDGET

if TYPE_CHECKING:
    from nix_seed.flake.evaluate import Evaluation
    from nix_seed.formats.oci.manifest import Descriptor
    from nix_seed.formats.oci.reference import Reference
    from nix_seed.registry.client import Repository
    from nix_seed.registry.store import Fetched


@dataclass(frozen=True, slots=True)
class Request:
    """What to make: which image of which flake, in how many layers."""

    flake: str
    choice: FlakeChoice = SEED
    compressor: Compressor = field(default_factory=Compressor.at_hand)
    budget: int = DEFAULT_BUDGET


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What evaluation alone tells: the recipe, and the key by which its image is found."""

    evaluation: Evaluation
    input_key: str


def evaluate_request(nix: Nix, request: Request) -> Evaluated:
    """Evaluate; nothing is built."""
    system = f" for {request.choice.system}" if request.choice.system else ""
    tell(Stage("evaluate", f"evaluating {request.flake}{system}"))
    with ThreadPoolExecutor(1) as beside, ended_with_us(nix) as ours:
        # What evaluates is loaded while Nix looks at the flake.
        metadata = beside.submit(copy_context().run, ours.metadata, request.flake)
        from nix_seed.flake.evaluate import evaluate_flake
        from nix_seed.flake.rules.recipe import input_key

        evaluation = evaluate_flake(
            nix,
            request.flake,
            request.choice,
            metadata=metadata.result(),
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


def add_tags(repository: Repository, image: Digest, tags: Sequence[str]) -> Fetched | None:
    """Have *tags* name *image*, which is in the repository; return it, None if it is gone."""
    fetched = repository.get_manifest(image)
    if fetched is not None:
        for tag in tags:
            repository.put_manifest(fetched.body, fetched.descriptor.media_type, tag)
    return fetched


def name_image(repository: Repository, image: Reference, tags: Sequence[str]) -> tuple[str, ...]:
    """Have *tags* name *image*, and return them, each once; ``CouldNotCheck`` if it is gone."""
    wanted = tuple(dict.fromkeys(tags))
    if image.digest is None or add_tags(repository, image.digest, wanted) is None:
        raise CouldNotCheck(f"{image} was there a moment ago, and is gone")
    return wanted
