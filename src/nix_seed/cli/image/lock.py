"""``nix-seed lock``."""

from pathlib import Path
from typing import Any

from nix_seed.cli.command import FILE, argument, option, progress, seed_command
from nix_seed.cli.options import json_option, registry_options, stores_of, trusted, verify_options
from nix_seed.cli.say import answer
from nix_seed.core.events import Stage, tell
from nix_seed.core.files import write_output
from nix_seed.formats.oci.reference import parse_reference


@seed_command("lock")
@argument("reference", "REF")
@option("-o, --output FILE", "Where to write it.", type=FILE, default="seed.lock")
@verify_options
@registry_options
@json_option
def command(**options: Any) -> None:
    """Write which image REF, an index or one system's seed, is now, by digest.

    Commit the file: builds take what it names for their base, and consumers use it. Where there is
    a trust.toml, what is pinned must verify by it first.
    """
    from nix_seed.image.index import make_lock

    stores, reference = stores_of(options), parse_reference(options["reference"])
    with progress():
        reference = trusted(options, stores, reference, None, Path())
        tell(Stage("read", f"reading {reference}"))
        lock = make_lock(stores, reference)
    write_output(options["output"], lock.dump())
    images = [f"{system:16}{image.digest}" for system, image in sorted(lock.systems.items())]
    answer(lock.to_json(), [*images, "", f"written to {options['output']}: commit it"])
