"""``nix-seed export``."""

from typing import Any

from nix_seed.cli.command import argument, option, progress, seed_command
from nix_seed.cli.options import json_option, registry_options, stores_of
from nix_seed.cli.say import answer
from nix_seed.core.words import human_size, members, plural
from nix_seed.formats.oci.reference import parse_reference


@seed_command("export")
@argument("reference", "IMAGE")
@argument("directory", "DIR")
@option("--deep", "Every layer as well, for verify --deep.")
@registry_options
@json_option
def command(**options: Any) -> None:
    """Collect IMAGE's documents and all attestations of it and of its commits in DIR.

    `nix-seed verify IMAGE --offline DIR` then needs no network; the policy stays the verifier's.
    """
    from nix_seed.release.export import export

    with progress():
        done = export(
            stores_of(options),
            parse_reference(options["reference"]),
            options["directory"],
            deep=options["deep"],
        )
    answer(
        members(done, "reference", "digest", "manifests", "blobs", "size"),
        f"{done.reference}: {done.digest}, {plural(done.manifests, 'manifest')}, "
        f"{plural(done.blobs, 'blob')}, {human_size(done.size)}",
    )
