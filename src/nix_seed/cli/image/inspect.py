"""``nix-seed inspect``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from nix_seed.cli.command import argument, progress, seed_command
from nix_seed.cli.options import json_option, registry_options, stores_of
from nix_seed.cli.say import answer
from nix_seed.core.events import Stage, tell
from nix_seed.core.safe_text import safe_line
from nix_seed.core.words import human_size, members, plural
from nix_seed.formats.oci.reference import parse_reference

if TYPE_CHECKING:
    from nix_seed.image.inspect import InspectedImage


@seed_command("inspect")
@argument("reference", "IMAGE")
@registry_options
@json_option
def command(**options: Any) -> None:
    """Show IMAGE's tiers, layers, sizes, narHash and input key; of an index, each system's."""
    from nix_seed.image.inspect import InspectedImage, inspect

    with progress(quiet=True):
        tell(Stage("read", f"reading {options['reference']}"))
        found = inspect(stores_of(options), parse_reference(options["reference"]))
    if isinstance(found, InspectedImage):
        answer(_json(found), _lines(found))
        return
    value = members(found, "reference", "digest")
    lines = [found.reference, f"  index of {len(found.images)}: {found.digest}"]
    for image in found.images:
        lines += ["", *_lines(image)]
    answer(value | {"images": [_json(image) for image in found.images]}, lines)


def _json(image: InspectedImage) -> dict[str, Any]:
    names = ("reference", "digest", "kind", "name", "system", "nar_hash", "input_key", "size")
    layer = {"digest": "descriptor.digest", "size": "descriptor.size"}
    return members(image, *names) | {
        "platform": None if image.platform is None else image.platform.to_json(),
        "tiers": image.tiers(),
        "layers": [
            members(each, "tier", diffId="diff_id", mediaType="descriptor.media_type", **layer)
            for each in image.layers
        ],
    }


def _lines(image: InspectedImage) -> Iterator[str]:
    yield image.reference
    facts = {
        "digest": str(image.digest),
        "name": image.name,
        "kind": image.kind,
        "system": image.system,
        "narHash": image.nar_hash,
        "input key": image.input_key,
        "size": f"{human_size(image.size)} in {plural(len(image.layers), 'layer')}",
    }
    told = {name: value for name, value in facts.items() if value is not None}
    yield from (f"  {name:10} {safe_line(value)}" for name, value in told.items())
    for tier, size in image.tiers().items():
        count = sum((layer.tier or "(no tier)") == tier for layer in image.layers)
        yield f"    {safe_line(tier):12} {human_size(size):>10}  {plural(count, 'layer')}"
