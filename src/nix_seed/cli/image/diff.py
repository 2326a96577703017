"""``nix-seed diff``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from nix_seed.cli.command import argument, exit_with, option, progress, seed_command
from nix_seed.cli.options import json_option, registry_options, stores_of
from nix_seed.cli.say import answer
from nix_seed.core.events import Stage, tell
from nix_seed.core.words import members
from nix_seed.formats.oci.reference import parse_reference

if TYPE_CHECKING:
    from nix_seed.image.diff import ImageDiff, PathFiles


@seed_command("diff")
@argument("ours", "A")
@argument("theirs", "B")
@option("--diffoscope/--no-diffoscope", "Look into files, if it is there.", default=True)
@registry_options
@json_option
def command(**options: Any) -> None:
    """Show in which layers, store paths and files the images A and B differ.

    A dissenting builder's image is named, by digest, in the answer of `nix-seed verify`. Exit 1 if
    they differ.
    """
    from nix_seed.image.diff import diff_images

    with progress(quiet=True):
        tell(Stage("compare", f"comparing {options['ours']} with {options['theirs']}"))
        found = diff_images(
            stores_of(options),
            parse_reference(options["ours"]),
            parse_reference(options["theirs"]),
            diffoscope=options["diffoscope"],
        )
    answer(_json(found), _lines(found))
    exit_with(0 if found.same else 1)


def _lines(found: ImageDiff) -> Iterator[str]:
    yield f"A {found.digests[0]}"
    yield f"B {found.digests[1]}"
    if found.same:
        yield "the same image"
        return
    for layer in found.layers:
        yield f"layer {layer.position + 1} ({layer.tier}) differs"
    for path in found.spec.paths:
        yield f"{path.path}"
        yield f"  A {path.ours or 'absent'}"
        yield f"  B {path.theirs or 'absent'}"
        for files in found.files:
            if files.path == path.path:
                yield from _file_lines(files)
    for member in found.spec.members:
        yield f"seed.json: {member} differs"


def _file_lines(found: PathFiles) -> Iterator[str]:
    if found.trouble is not None:
        yield f"  files not compared: {found.trouble}"
    for file in found.files:
        yield f"  {file.name}"
        for side, facts in (("A", file.ours), ("B", file.theirs)):
            yield f"    {side} {f'{facts.kind}, {facts.content}' if facts else 'absent'}"
    if found.unshown is not None:
        yield f"  not shown by diffoscope: {found.unshown}"
    if found.report:
        yield from (f"  | {line}" for line in found.report.splitlines())


def _json(found: ImageDiff) -> dict[str, Any]:
    sides = {"a": "ours", "b": "theirs"}
    return members(found, "same", images="digests", members="spec.members") | {
        "layers": [members(each, "position", "tier", **sides) for each in found.layers],
        "paths": [members(each, "path", **sides) for each in found.spec.paths],
        "files": {
            str(each.path): [
                {
                    "name": file.name,
                    "a": file.ours and file.ours.content,
                    "b": file.theirs and file.theirs.content,
                }
                for file in each.files
            ]
            for each in found.files
        },
    }
