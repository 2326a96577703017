"""Which seed outputs were built in, and what is told of those kept and taken."""

from __future__ import annotations

import os
from typing import Any

from nix_seed.cli.lazily import lazily
from nix_seed.cli.options import named_seed, no_seed, open_built
from nix_seed.cli.say import answer
from nix_seed.core.words import human_size, members, plural

with lazily():
    from nix_seed.flake import nix as nixes
    from nix_seed.image.read import spec as images
    from nix_seed.outputs import cache, open as opening, push


def seed_named(options: dict[str, Any], nix: nixes.Nix) -> push.BuiltIn:
    """Return the seed that ``--image`` names, or the one built here."""
    if options["image"] is None:
        # What a lock names would be a guess, and this is signed.
        built = open_built(options, nix)
        if built is None:
            raise no_seed(options["src"])
        return opening.built_in(images.read_spec(built), built.digest)
    found = images.open_seed_image(*named_seed(options))
    return opening.built_in(found.spec, found.descriptor.digest)


def branch_at_hand() -> str | None:
    """Return the branch or tag that a CI job is for, as its service says."""
    return os.environ.get("GITHUB_REF") or os.environ.get("CI_COMMIT_REF_NAME") or None


def tell_pushed(done: push.PushedOutputs) -> None:
    """Print what was pushed."""
    answer(pushed_json(done), pushed_text(done))


def pushed_json(done: push.PushedOutputs) -> dict[str, Any]:
    """Return what was pushed as one JSON object."""
    paths = {name: [str(each.path) for each in getattr(done, name)] for name in ("pushed", "known")}
    return members(done, "commit", "signer", "sent", "statements") | paths


def pushed_text(done: push.PushedOutputs) -> str:
    """Return what was pushed, for people."""
    if not done.pushed and not done.known:
        if done.left:
            came = f"{plural(done.left, 'path')} of this commit came into the store from elsewhere"
            return f"nothing to push: {came}, and are for whoever built them to vouch for"
        return "nothing that was built from this commit is in the store: build it first"
    known = f"; {plural(len(done.known), 'path')} there already" if done.known else ""
    words = f"{plural(len(done.pushed), 'path')} pushed, {human_size(done.sent)} sent{known}"
    words = words if done.pushed else f"nothing to push{known}"
    return f"{words}\nsigned by {done.signer}, for {done.commit}" if done.statements else words


def event_text(event: object) -> str | None:
    """Return what a cache tells, in a line; None for what needs no telling: a plain miss."""
    if isinstance(event, cache.OutputTaken):
        return f"taken: {event.path}, {human_size(event.size)}, {event.words}"
    if isinstance(event, cache.OutputMissed) and event.reason:
        return f"not taken: {event.reason}"
    return None
