"""``nix-seed exists``."""

from typing import Any

from nix_seed.cli.command import argument, exit_with, progress, seed_command
from nix_seed.cli.image.build import target_named
from nix_seed.cli.options import image_options, json_option, registry_options, request_of, stores_of
from nix_seed.cli.say import answer, manner, say
from nix_seed.core.events import Stage, tell


@seed_command("exists")
@image_options
@argument("reference", "REF")
@registry_options
@json_option
def command(**options: Any) -> None:
    """Ask whether the repository REF has the image that FLAKE evaluates to.

    Evaluation, then one HEAD request; nothing is built. Exit code 0 if it is there, 1 if it is not.
    """
    from concurrent.futures import ThreadPoolExecutor

    from nix_seed.image.request import evaluate_request, find_by_key, tags_of

    nix, request = request_of(options)
    target = target_named(options["reference"])
    with progress(quiet=True), ThreadPoolExecutor(1) as beside:
        # While Nix works: to load what speaks to registries takes as long as half an evaluation.
        opening = beside.submit(stores_of(options).repository, target)
        evaluated = evaluate_request(nix, request)
        tell(Stage("ask", f"asking {target.registry}"))
        found = find_by_key(opening.result(), evaluated)
    tag = tags_of(evaluated)[0]
    if manner().json or found is not None:
        digest = found and str(found.digest)
        value = {"exists": found is not None, "inputKey": evaluated.input_key, "tag": tag}
        answer(value | {"digest": digest}, str(target.at(found.digest)) if found else "")
    else:
        say(f"{target.at(tag)} is not there; nix-seed build --push makes it", err=True)
    exit_with(0 if found else 1)
