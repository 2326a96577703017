"""Options of the commands that speak to registries, and what they mean."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from nix_seed.cli.options import with_options

if TYPE_CHECKING:
    from nix_seed.flows.stores import Stores

__all__ = ["jobs_option", "registry_options", "stores_of"]

_PASSWORD = "nix_seed.password"  # among what a context and those nested in it share

Command = TypeVar("Command", bound=Callable[..., Any])


def registry_options(command: Command) -> Command:
    """Add how to reach a registry and as whom; ``stores_of`` reads them."""
    return with_options(command, _REGISTRY)


_REGISTRY: list[Callable[[Any], Any]] = [
    click.option("--username", metavar="NAME", help="Log in as NAME [docker's or podman's login]."),
    click.option("--password-stdin", is_flag=True, help="Read the password from standard input."),
    click.option(
        "--plain-http",
        is_flag=True,
        help="Speak HTTP without TLS [only to this machine, where a server has no TLS].",
    ),
    click.option(
        "--ca-file",
        type=click.Path(exists=True, dir_okay=False),
        metavar="FILE",
        help="Accept certificates signed by these authorities.",
    ),
]

jobs_option = click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    metavar="N",
    help="Blobs moved at once.",
)


def stores_of(options: dict[str, Any]) -> Stores:
    """Make of *options*, as ``registry_options`` names them, what opens stores."""
    from pathlib import Path

    from nix_seed.clients.registry.credentials import Credential, Keyring
    from nix_seed.flows.stores import Stores
    from nix_seed.ground.errors import InputError

    username, given = options["username"], None
    if (username is not None) != options["password_stdin"]:
        raise InputError(
            "--username and --password-stdin go together",
            hint='as in: printf %s "$TOKEN" | nix-seed push … --username me --password-stdin',
        )
    if username is not None:
        password = _password()
        if not password:
            raise InputError("--password-stdin: standard input holds no password")
        given = Credential("--username", username, password)
    return Stores(
        Keyring(dict(os.environ), Path.home(), given),
        plain_http=options["plain_http"],
        ca_file=options["ca_file"],
    )


def _password() -> str:
    """Return the line on standard input; it is read once, and several steps of a command ask."""
    meta = click.get_current_context().meta
    if _PASSWORD not in meta:
        meta[_PASSWORD] = sys.stdin.readline().rstrip("\r\n")
    password: str = meta[_PASSWORD]
    return password
