"""``nix-seed push``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nix_seed.cli.command import argument, option, progress, seed_command
from nix_seed.cli.options import jobs_option, json_option, registry_options, stores_of
from nix_seed.cli.say import answer
from nix_seed.core.errors import InputError
from nix_seed.core.words import human_size, members
from nix_seed.formats.oci.reference import Reference, parse_reference

if TYPE_CHECKING:
    from nix_seed.registry.transfer import How, Transferred


@seed_command("push")
@argument("source", "IMAGE")
@argument("target", "REF")
@option("--tag TAG", "A further tag, moved last.", into="tags", multiple=True)
@option(
    "--mount-from REPO",
    "A repository of the same registry whose layers are linked, not sent.",
    multiple=True,
)
@option(
    "--evidence",
    "Also all that lies beside it in the layout: attestations, records of releases, bills of"
    " materials, as export collects them.",
)
@jobs_option
@registry_options
@json_option
def command(**options: Any) -> None:
    """Copy IMAGE (oci:DIR[:TAG], or a reference) to the registry's REF.

    Only what the registry lacks is sent; the tag is moved when everything is there.
    """
    from nix_seed.image.push import push, push_evidence

    target = parse_reference(options["target"])
    if not isinstance(target, Reference):
        raise InputError(
            f"{target} is on this machine", hint=f"nix-seed pull {options['source']} {target}"
        )
    stores, source = stores_of(options), parse_reference(options["source"])
    linked, first = options["mount_from"], None
    with progress():
        if options["evidence"]:
            # Whoever finds it by a tag finds what speaks for it as well: tags move last.
            bare = replace(target, tag=None)
            first = push(stores, source, bare, mount_from=linked)
            push_evidence(stores, source, target)
        done = push(stores, source, target, tags=options["tags"], mount_from=linked)
    done = done if first is None else replace(done, blobs=first.blobs)
    reference = str(target.at(done.root.digest))
    answer(transferred_json(done, reference), transferred_text(done, reference))


def transferred_json(done: Transferred, reference: str) -> dict[str, Any]:
    """Return what was done as one JSON object."""
    return members(done, "tags", digest="root.digest") | {
        "reference": reference,
        "images": [str(image.digest) for image in done.images],
        "bytes": {how: done.size(how) for how in ("moved", "linked", "present")},
        "blobs": [members(blob, "digest", "size") | {"how": how} for blob, how in done.blobs],
    }


def transferred_text(done: Transferred, reference: str) -> str:
    """Return what was done for people: the pinned reference first."""
    words: dict[How, str] = {"moved": "moved", "linked": "linked", "present": "already there"}
    sizes = ", ".join(
        f"{human_size(done.size(how))} {word}" for how, word in words.items() if done.size(how)
    )
    tags = f"\ntags: {', '.join(done.tags)}" if done.tags else ""
    return f"{reference}{tags}\n{sizes or 'nothing to move'}"
