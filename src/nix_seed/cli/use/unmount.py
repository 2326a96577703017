"""``nix-seed unmount``."""

from typing import Any

from nix_seed.cli.command import seed_command
from nix_seed.cli.options import json_option
from nix_seed.cli.say import answer
from nix_seed.cli.use.hydrate import root_option
from nix_seed.core.errors import CouldNotCheck


@seed_command("unmount")
@root_option
@json_option
def command(**options: Any) -> None:
    """Let a mounted store become an ordinary one, and take the mount away.

    What has not been fetched yet is fetched first. Processes that use the mount are not disturbed.
    After a mount that died, what it left is cleaned up, and what is lacking is named.
    """
    from nix_seed.use.mount.owed import read_owed
    from nix_seed.use.mount.store import is_served, recover, wait_until_whole
    from nix_seed.use.store import locked_store

    root = options["root"]
    mounted = is_served(root)
    if mounted:
        wait_until_whole(root, leave=True)
    else:
        with locked_store(root):
            recover(root)
        lacking = len(read_owed(root))
        if lacking:
            raise CouldNotCheck(
                f"the store below {root} lacks up to {lacking} paths that its mount showed",
                hint="fetch them: nix-seed hydrate REF, with the image that was mounted",
            )
    words = "is an ordinary store now" if mounted else "has nothing mounted"
    answer({"root": str(root), "mounted": mounted}, f"{root} {words}")
