"""What all commands share: how they and their options are declared, `-q`, `-v`, and the help.

Progress: a few lines that are redrawn on a terminal, a line a step in CI and in pipes.

Everything goes to standard error. The clock ticks by a signal, not by a thread: a process with
threads may not fork workers.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from nix_seed.cli.say import manner, say
from nix_seed.core.events import ignore, listening


class NamedPath(click.Path):
    """A path that is not empty: a variable that is not set would mean this directory."""

    def __init__(self, path_type: type = Path, **more: Any) -> None:
        super().__init__(path_type=path_type, **more)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path; raise for none, and for one that can be no place."""
        if value == "":
            self.fail("it is empty: is a variable not set?", param, ctx)
        try:
            os.stat(value)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
                self.fail(f"{error.strerror}: {value}", param, ctx)
        return super().convert(value, param, ctx)


PATH = NamedPath()
FILE = NamedPath(dir_okay=False)
EXISTING_FILE = NamedPath(exists=True, dir_okay=False)
DIRECTORY = NamedPath(file_okay=False)
EXISTING_DIRECTORY = NamedPath(exists=True, file_okay=False)
PORT = click.IntRange(0, 65535)
Command = TypeVar("Command", bound=Callable[..., Any])

# Options of many commands, which a command's help shows after its own, in this order.
_REGISTRY = ("username", "password_stdin", "plain_http", "ca_file")
_SHARED = ("store", *_REGISTRY, "as_json", "quiet", "verbose", "help")


def remember(ctx: click.Context, param: click.Parameter, value: bool) -> bool:
    """Note what was asked of the output, for those who print and have no option to look at."""
    if value:
        setattr(manner(ctx), str(param.name).removeprefix("as_"), True)
    return value


def _place(option: click.Option) -> int:
    return _SHARED.index(str(option.name))


def _flag(short: str, long: str, text: str) -> click.Option:
    return click.Option(
        [short, long],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=remember,
        help=text,
    )


_EVERYWHERE = (
    _flag("-q", "--quiet", "Show no progress and no notes, only the answer."),
    _flag("-v", "--verbose", "Show what Nix says and builds, and how long each step took."),
)


class SeedCommand(click.Command):
    """A command that takes ``-q`` and ``-v``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        taken = {name for param in self.params for name in param.opts}
        self.params += [each for each in _EVERYWHERE if not taken & set(each.opts)]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command's own options, and after them those that many have."""
        options = [each for each in self.get_params(ctx) if isinstance(each, click.Option)]
        shared = sorted((each for each in options if each.name in _SHARED), key=_place)
        own = [each for each in options if each.name not in _SHARED]
        for title, those in (("Options", own), ("Shared options", shared)):
            records = [each.get_help_record(ctx) for each in those]
            shown = [each for each in records if each is not None]
            if shown:
                with formatter.section(title):
                    formatter.write_dl(shown)


class SeedGroup(click.Group):
    """A group of such commands."""

    command_class = SeedCommand
    group_class = type


def seed_command(name: str, **more: Any) -> Callable[[Callable[..., Any]], SeedCommand]:
    """Make a command; its line in lists of commands stands in ``cli/main.py``."""
    return click.command(name, cls=SeedCommand, **more)


def seed_group(name: str) -> Callable[[Callable[..., Any]], SeedGroup]:
    """Make a group of commands."""
    return click.group(name, cls=SeedGroup)


def together(*options: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """Return what adds *options*, in their order, as decorators one below the other would."""

    def add(command: Command) -> Command:
        for decorate in reversed(options):
            command = decorate(command)
        return command

    return add


def argument(name: str, shown: str | None = None, **more: Any) -> Callable[[Any], Any]:
    """Return the argument *name*, which help shows as *shown*, else as its name; DIR is a path."""
    if shown == "DIR":
        more.setdefault("type", DIRECTORY)
    return click.argument(name, metavar=shown, **more)


def exit_with(code: int) -> NoReturn:
    """End the command with *code*, and close what was opened for it."""
    click.get_current_context().exit(code)


def serve(run: Callable[[], None], *signals: signal.Signals) -> None:
    """Serve by *run* until Ctrl-C or a service manager ends it, or one of *signals*."""
    for number in (signal.SIGTERM, *signals):
        signal.signal(number, lambda *_: sys.exit(0))
    sys.stdout.flush()
    try:
        run()
    except KeyboardInterrupt:
        say("stopped", err=True)


def option(
    spec: str, about: str = "", *, into: str | None = None, **more: Any
) -> Callable[[Any], Any]:
    """Return the option that help shows as *spec*: ``-o, --output FILE``, or a flag: ``--deep``.

    It is read as *into*, else by its long name; FILE, PATH and DIR are paths. Help shows a default.
    """
    *names, last = spec.replace(",", "").split()
    if last.startswith("-"):
        names.append(last)
        if "/" not in last and not {"type", "default", "flag_value"} & more.keys():
            more["is_flag"] = True
    else:
        more["metavar"] = last
        if last in ("FILE", "PATH", "DIR"):
            more.setdefault("type", DIRECTORY if last == "DIR" else PATH)
    names += [] if into is None else [into]
    return click.option(*names, help=about or None, **({"show_default": True} | more))


@contextmanager
def progress(*, quiet: bool | None = None) -> Iterator[None]:
    """Show what flows tell. Off a terminal, *quiet* leaves out what is not asked for.

    Not said, it is quiet where JSON was asked for.
    """
    asked = manner()
    quiet = asked.json if quiet is None else quiet
    terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    redrawn = terminal and not os.environ.get("CI")
    if asked.quiet or (quiet and not asked.verbose and not redrawn):
        with listening(ignore):
            yield
        return
    from nix_seed.cli.progress_lines import Lines, StatusLines

    shown = StatusLines(asked) if redrawn else Lines(sys.stderr, asked)
    asked.clear = shown.clear
    try:
        with listening(shown), _ticking(shown.tick, shown.period):
            yield
        shown.end()
    finally:
        shown.clear()
        asked.clear = None


@contextmanager
def _ticking(tick: Callable[[], None], period: float) -> Iterator[None]:
    """Call *tick* every *period* seconds, whatever the main thread waits for."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, lambda *_: tick())
    signal.setitimer(signal.ITIMER_REAL, period, period)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
