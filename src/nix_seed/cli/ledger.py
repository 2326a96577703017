"""``nix-seed ledger``: what keeps releases beside the transparency logs."""

from __future__ import annotations

import click

from nix_seed.cli.ledger_evm import evm

__all__ = ["command"]


@click.group("ledger", short_help="Keep releases in a contract on an EVM chain.")
def command() -> None:
    """Keep releases where a second one for a commit cannot be entered.

    Transparency logs are the default ledger, and need none of these commands.
    """


command.add_command(evm)
