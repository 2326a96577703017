"""The command ``nix-seed``: a table of commands, each loaded only when it is asked for."""

import importlib
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from nix_seed.cli.say import say

# name -> (module:attribute, one line of help), in the order of a user's day.
COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("nix_seed.cli.setup.init:command", "Prepare a repository: workflow and policy."),
    "build": (
        "nix_seed.cli.image.build:command",
        "Turn a flake into an image to build in, or to ship.",
    ),
    "plan": ("nix_seed.cli.image.plan:command", "Show the layers, and who caused what changed."),
    "hydrate": ("nix_seed.cli.use.hydrate:command", "Fill this machine's Nix store from a seed."),
    "run": ("nix_seed.cli.use.run:command", "Run a command inside a seed, with no network."),
    "prove": ("nix_seed.cli.use.prove:command", "Show that a seed holds all that its flake needs."),
    "push": ("nix_seed.cli.registry.push:command", "Copy an image to a registry."),
    "pull": ("nix_seed.cli.registry.pull:command", "Copy an image from a registry, verified."),
    "index": (
        "nix_seed.cli.image.index:command",
        "Publish one index over the images of all systems.",
    ),
    "roots": ("nix_seed.cli.roots.roots:command", "Show what an image finally rests on."),
    "sbom": ("nix_seed.cli.sbom.sbom:command", "Write an image's bill of materials."),
    "licences": (
        "nix_seed.cli.licences.licences:command",
        "Show the licence of everything in an image.",
    ),
    "inspect": ("nix_seed.cli.image.inspect:command", "Show what an image is, without its layers."),
    "report": ("nix_seed.cli.report.report:command", "Write one page about an image."),
    "exists": (
        "nix_seed.cli.image.exists:command",
        "Ask whether a registry has the image already.",
    ),
    "lock": ("nix_seed.cli.image.lock:command", "Pin each system's seed in seed.lock."),
    "publish": ("nix_seed.cli.release.publish:command", "Build, push and attest in one."),
    "attest": (
        "nix_seed.cli.release.attest:command",
        "State, signed, what was built from a commit.",
    ),
    "promote": (
        "nix_seed.cli.release.promote:command",
        "Release a commit that a quorum of builders stands for.",
    ),
    "verify": (
        "nix_seed.cli.release.verify:command",
        "Check that independent builders agree on an image.",
    ),
    "audit": (
        "nix_seed.cli.audit.audit:command",
        "Replay a ledger and its logs, and report all that is wrong.",
    ),
    "monitor": (
        "nix_seed.cli.audit.monitor:command",
        "Audit a ledger continuously; end at the first alarm.",
    ),
    "export": ("nix_seed.cli.release.export:command", "Collect all that verifying offline needs."),
    "diff": ("nix_seed.cli.image.diff:command", "Show in what two images differ."),
    "policy": (
        "nix_seed.cli.trust.policy:command",
        "Write, check and change the policy to verify by.",
    ),
    "key": ("nix_seed.cli.trust.key:command", "Make and show keys that sign attestations."),
    "log": ("nix_seed.cli.logs.log:command", "Serve, show and check a transparency log."),
    "ledger": (
        "nix_seed.cli.release.ledger:command",
        "Show what is released; keep it in a contract.",
    ),
    "doctor": (
        "nix_seed.cli.setup.doctor:command",
        "Check this machine or an image, and say how to mend it.",
    ),
    "clean": ("nix_seed.cli.image.clean:command", "Clear away what was kept for the next run."),
    "ci": ("nix_seed.cli.setup.ci:command", "Run the steps of a CI job."),
    "completion": ("nix_seed.cli.completion:command", "Print a shell's completion script."),
}


class ReaderGone(Exception):
    """A pipe broke. Click would exit with 1 for that, which here means "checked and false"."""


@contextmanager
def _notice_broken_pipe() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise ReaderGone from error


class LazyGroup(click.Group):
    """A group whose commands are imported one at a time: ``--help`` needs none of them."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Read the arguments, and print the help where it is asked for."""
        with _notice_broken_pipe():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _notice_broken_pipe():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands, in the table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command *cmd_name*."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table without importing what it names."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the nearest commands when there is none of that name."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            import difflib

            near = difflib.get_close_matches(name, COMMANDS)
            also = f" Did you mean {' or '.join(near)}?" if near else ""
            ctx.fail(f"There is no command {name!r}.{also}")
        return super().resolve_command(ctx, args)


_EPILOG = """\b
Exit codes: 0 done · 1 checked and false · 2 wrong input · 3 could not check · 4 Nix failed
Completion: eval "$(nix-seed completion bash)"   (or zsh, fish)"""


@click.group(
    cls=LazyGroup,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda ctx, _, asked: _show_version(ctx) if asked else None,
    help="Show the version and exit.",
)
def cli() -> None:
    """Turn a Nix flake into layered, offline OCI build images that anyone can check."""


def _show_version(ctx: click.Context) -> None:
    from importlib.metadata import PackageNotFoundError, version

    from nix_seed.core.version import __version__

    try:
        shown = version("nix-seed")
    except PackageNotFoundError:
        shown = f"{__version__} (a checkout)"
    say(f"nix-seed, version {shown}")
    ctx.exit()


def main() -> None:
    """Run the command line; map every error of the tree to its message and exit code."""
    try:
        code = cli.main(standalone_mode=False, prog_name="nix-seed")
        sys.stdout.flush()
    except click.exceptions.Abort:
        _quit("interrupted; finished layers are kept, and the next run goes on from there", 130)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (ReaderGone, BrokenPipeError):
        _quit_pipe()
    except Exception as error:
        _fail(error)
    sys.exit(code if isinstance(code, int) else 0)


def _quit_pipe() -> NoReturn:
    """End as SIGPIPE would: the reader (``head``, say) has gone, and not everything was done."""
    # Python flushes once more at its end, and would complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(128 + signal.SIGPIPE)


def _fail(error: Exception) -> NoReturn:
    from nix_seed.cli.say import error_lines
    from nix_seed.core.errors import NixSeedError

    if isinstance(error, NixSeedError):
        _quit("\n".join(error_lines(error)), error.exit_code)
    if os.environ.get("NIX_SEED_DEBUG"):
        # Not raised: Python would exit with 1, which means "checked and false".
        import traceback

        _quit("".join(traceback.format_exception(error)).rstrip(), 3)
    # Whatever was being checked, it was not: never let a bug look like an answer.
    _quit(
        f"error: an unexpected {type(error).__name__}: {error}\n"
        "this is a fault of nix-seed; set NIX_SEED_DEBUG=1 for the details to report",
        3,
    )


def _quit(text: str, code: int) -> NoReturn:
    say(text, err=True)
    sys.exit(code)
