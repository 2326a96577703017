"""Which seed outputs were built in, and where they are kept, as the command line says it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nix_seed.flake.nix import Nix
    from nix_seed.outputs.push import BuiltIn, PushedOutputs


def seed_named(options: dict[str, Any], nix: Nix) -> BuiltIn:
    """Return the seed that ``--image`` names, or the one built here."""
    from nix_seed.cli.options import named_seed, open_seed
    from nix_seed.image.read.spec import open_seed_image, read_spec
    from nix_seed.outputs.open import built_in

    if options["image"] is None:
        image = open_seed(options, nix)
        return built_in(read_spec(image), image.digest)
    found = open_seed_image(*named_seed(options))
    return built_in(found.spec, found.descriptor.digest)


def branch_at_hand() -> str | None:
    """Return the branch or tag that a CI job is for, as its service says."""
    import os

    for name in ("GITHUB_REF", "CI_COMMIT_REF_NAME"):
        if os.environ.get(name):
            return os.environ[name]
    return None


def pushed_json(done: PushedOutputs) -> dict[str, Any]:
    """Return what was pushed as one JSON object."""
    return {
        "commit": done.commit,
        "signer": done.signer,
        "pushed": [str(each.path) for each in done.pushed],
        "known": [str(each.path) for each in done.known],
        "sent": done.sent,
        "statements": [str(each) for each in done.statements],
    }


def pushed_text(done: PushedOutputs) -> str:
    """Return what was pushed, for people."""
    from nix_seed.core.words import human_size, plural

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
    from nix_seed.core.words import human_size
    from nix_seed.outputs.cache import OutputMissed, OutputTaken

    if isinstance(event, OutputTaken):
        return f"taken: {event.path}, {human_size(event.size)}, {event.words}"
    if isinstance(event, OutputMissed) and event.reason:
        return f"not taken: {event.reason}"
    return None
