"""``nix-seed completion``."""

import click

from nix_seed.cli.command import seed_command


@seed_command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the script that completes nix-seed's commands and options in SHELL.

    For bash: eval "$(nix-seed completion bash)" in ~/.bashrc.
    """
    from click.shell_completion import get_completion_class

    from nix_seed.cli.main import cli

    completer = get_completion_class(shell)
    assert completer is not None
    click.echo(completer(cli, {}, "nix-seed", "_NIX_SEED_COMPLETE").source())
