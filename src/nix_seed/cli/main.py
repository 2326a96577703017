"""The command ``nix-seed``: a table of commands, each loaded only when it is asked for."""

import atexit
import gc
import importlib
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from nix_seed.cli.command import option
from nix_seed.cli.say import Manner, error_json, error_lines, say
from nix_seed.core.errors import InputError, NixSeedError, misnamed, unwritten
from nix_seed.core.safe_text import safe_text, shortened

# Sections of the help -> name -> (module below cli, one line of help), the common ones first.
SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "Build": {
        "build": ("image.build", "Turn a flake into an image to build in, or to ship."),
        "plan": ("image.plan", "Show the layers, and who caused what changed."),
        "prove": ("use.prove", "Show that a seed holds all that its flake needs."),
        "publish": ("release.publish", "Build, push and attest in one."),
    },
    "Use": {
        "run": ("use.run", "Run a command inside a seed, with no network."),
        "shell": ("use.shell", "Start a shell inside a seed, with no network."),
        "hydrate": ("use.hydrate", "Fill this machine's Nix store from a seed."),
        "mount": ("use.mount", "Mount a seed in a Nix store, and fill it meanwhile."),
        "unmount": ("use.unmount", "Make a mounted store an ordinary one."),
        "install": ("outputs.install", "Take a promoted package into this machine's store."),
        "lock": ("image.lock", "Pin each system's seed in seed.lock."),
    },
    "Registry": {
        "push": ("registry.push", "Copy an image to a registry."),
        "pull": ("registry.pull", "Copy an image from a registry, verified."),
        "exists": ("image.exists", "Ask whether a registry has the image already."),
        "index": ("image.index", "Publish one index over the images of all systems."),
        "outputs": ("outputs.outputs", "Keep what the project builds, serve and compare it."),
    },
    "Trust": {
        "verify": ("release.verify", "Check that independent builders agree on an image."),
        "attest": ("release.attest", "State, signed, what was built from a commit."),
        "promote": ("release.promote", "Release a commit that a quorum of builders stands for."),
        "audit": ("audit.audit", "Replay a ledger and its logs, and report all that is wrong."),
        "monitor": ("audit.monitor", "Audit a ledger continuously; end at the first alarm."),
        "export": ("release.export", "Collect all that verifying offline needs."),
        "policy": ("trust.policy", "Write, check and change the policy to verify by."),
        "key": ("trust.key", "Make and show keys that sign attestations."),
        "log": ("logs.log", "Serve, show and check a transparency log."),
        "ledger": ("release.ledger", "Show what is released; keep it in a contract."),
    },
    "Inspect": {
        "inspect": ("image.inspect", "Show what an image is, without its layers."),
        "diff": ("image.diff", "Show how two images differ."),
        "report": ("report.report", "Write one page about an image."),
        "licences": ("licences.licences", "Show the licence of everything in an image."),
        "sbom": ("sbom.sbom", "Write an image's bill of materials."),
        "roots": ("roots.roots", "Show what an image finally rests on."),
    },
    "Set up": {
        "init": ("setup.init", "Prepare a repository: workflow and policy."),
        "doctor": ("setup.doctor", "Check this machine or an image, and say how to mend it."),
        "clean": ("image.clean", "Clear away what was kept for the next run."),
        "ci": ("setup.ci", "Run the steps of a CI job."),
        "completion": ("completion", "Print a shell's completion script."),
    },
}
COMMANDS = {name: entry for section in SECTIONS.values() for name, entry in section.items()}


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

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take ``help COMMAND``, as many programs do, for ``COMMAND --help``; ``version`` too."""
        if args[:1] in (["help"], ["version"]):
            args = [*args[1:], f"--{args[0]}"]
        return super().parse_args(ctx, args)

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
        module, line = COMMANDS[cmd_name]
        command: click.Command = importlib.import_module(f"nix_seed.cli.{module}").command
        command.short_help = line
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """Complete names without importing what they name."""
        from click.shell_completion import CompletionItem

        named = [
            CompletionItem(name, help=line)
            for name, (_, line) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return named + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the tables without importing what they name."""
        width = max(map(len, COMMANDS))
        for title, section in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(f"{name:{width}}", text) for name, (_, text) in section.items()]
                )


_KEEPING = {"build", "publish", "attest", "push", "pull", "hydrate"}
"""Commands that move layers, and do not move again what was moved before an interruption."""

_EPILOG = """\b
Exit codes: 0 done · 1 checked and false · 2 wrong input
            3 could not check · 4 Nix failed
Completion: eval "$(nix-seed completion bash)" (zsh, fish)
Documents:  https://0compute.github.io/nix-seed/"""


@click.group(
    cls=LazyGroup,
    commands={name: click.Command(name) for name in COMMANDS},  # to choose the nearest from
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@option(
    "-V, --version",
    "Show the version and exit.",
    is_eager=True,
    expose_value=False,
    callback=lambda ctx, _, asked: _show_version(ctx) if asked else None,
)
def cli() -> None:
    """Turn a Nix flake into layered, offline OCI build images that anyone can check."""


def _show_version(ctx: click.Context) -> None:
    from nix_seed.core.version import __version__

    # The package's metadata say no more, and take 25 ms to read.
    checkout = os.path.exists(os.path.join(os.path.dirname(__file__), "../../../pyproject.toml"))
    shown = f"{__version__} (a checkout)" if checkout else __version__
    say(f"nix-seed, version {shown}")
    ctx.exit()


def main() -> None:
    """Run the command line; map every error of the tree to its message and exit code."""
    _open_standard_files()
    # Python's end looks for circles among all that was loaded, which takes as long as loading half.
    atexit.register(gc.freeze)
    asked = Manner()
    try:
        code = cli.main(standalone_mode=False, prog_name="nix-seed", obj=asked)
        sys.stdout.flush()
    except click.exceptions.Abort:
        kept = "; finished layers are kept, and the next run goes on from there"
        _quit(asked, 130, f"interrupted{kept if _KEEPING & set(sys.argv[1:2]) else ''}")
    except click.ClickException as error:
        # What stops the arguments from being read stops --json, too.
        asked.json = asked.json or "--json" in sys.argv[1:]
        vars(error)["message"] = shortened(safe_text(error.message))
        if asked.json:
            error_json(error.format_message(), 2)
        error.show()
        sys.exit(2)
    except (ReaderGone, BrokenPipeError):
        _quit_pipe()
    except Exception as error:
        _fail(asked, error)
    sys.exit(code if isinstance(code, int) else 0)


def _open_standard_files() -> None:
    """Open what was closed: the next file opened would be the standard output of all programs."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8"))


def _quit_pipe() -> NoReturn:
    """End as SIGPIPE would: the reader (``head``, say) has gone, and not everything was done."""
    # Python flushes once more at its end, and would complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(128 + signal.SIGPIPE)


def _fail(asked: Manner, error: Exception) -> NoReturn:
    if isinstance(error, OSError):
        # Files that a command wrote have been named already: this one is its own output.
        told = unwritten(error, "writing to standard output")
        if told is not None:
            told.hint = "send it to a place with room; nothing else failed"
            error = told
        elif error.filename is not None:
            error = misnamed(error)
    if isinstance(error, UnicodeEncodeError) and error.reason == "surrogates not allowed":
        # Python's spelling of bytes that are no text, which come by arguments and names of files.
        found = os.fsencode(error.object[error.start : error.end])
        error = InputError(f"what was given is not UTF-8: {found!r}", hint="name it otherwise")
    if isinstance(error, NixSeedError):
        shown = "\n".join(error_lines(error))
        _quit(asked, error.exit_code, shown, (error.message, error.hint, error.detail))
    # Whatever was being checked, it was not: never let a bug look like an answer. Nor is it raised,
    # for Python would exit with 1, which means "checked and false".
    what = f"an unexpected {type(error).__name__}: {error}"
    whose = "this is a fault of nix-seed; set NIX_SEED_DEBUG=1 for the details to report"
    shown = f"error: {what}\n{whose}"
    if os.environ.get("NIX_SEED_DEBUG"):
        import traceback

        shown = "".join(traceback.format_exception(error)).rstrip()
    _quit(asked, 3, shown, (what, whose, None))


def _quit(
    asked: Manner,
    code: int,
    text: str,
    parts: tuple[str, str | None, str | None] | None = None,
) -> NoReturn:
    """Say *text* to people, and its *parts* (message, hint, detail) to a program that waits."""
    say(shortened(text), err=True)
    if asked.json and not asked.answered:
        message, hint, detail = parts or (text, None, None)
        try:
            error_json(message, code, hint, detail)
            sys.stdout.flush()
        except BrokenPipeError:
            _quit_pipe()
    sys.exit(code)
