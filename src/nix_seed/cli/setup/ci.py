"""``nix-seed ci``: what the steps of a CI job run; ``action.yml`` and its siblings are thin."""

import importlib

import click

_COMMANDS = {
    "setup": ("nix_seed.cli.setup.ci_setup:command", "Say what this machine has."),
    "seed": (
        "nix_seed.cli.setup.ci_seed:command",
        "Build, push and attest the seed.",
    ),
    "use": ("nix_seed.cli.setup.ci_use:command", "Fill this machine's Nix store from the seed."),
    "promote": (
        "nix_seed.cli.setup.ci_promote:command",
        "Promote the commit over all systems.",
    ),
    "store": ("nix_seed.cli.setup.ci_store:command", ""),
}
_HIDDEN = frozenset({"store"})


class _Steps(click.Group):
    """Its commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in _COMMANDS if name not in _HIDDEN]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name][0].partition(":")
        found: click.Command = getattr(importlib.import_module(module), attribute)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, _COMMANDS[name][1]) for name in self.list_commands(ctx)])


@click.group("ci", cls=_Steps, short_help="Run the steps of a CI job.")
def command() -> None:
    """Run the steps of a CI job, as the GitHub Action and bin/publish do.

    Inputs are options, or variables: --seed-attr is SEED_ATTR. Secrets are variables only:
    SEED_REGISTRY_TOKEN, SEED_KEY, NIX_SEED_KEY_PASSPHRASE.
    """
