"""``nix-seed shell``: ``run``, with a shell for the command."""

import sys
from typing import Any

import click

from nix_seed.cli.command import seed_command
from nix_seed.cli.say import note
from nix_seed.cli.use.run import run_command, run_options
from nix_seed.core.errors import InputError

# A seed need not hold ``less``: without it a screen is shown at a time, by the shell itself.
_PAGER = r"""#!/usr/bin/env bash
command -v less >/dev/null && exec less -FRX "$@"
[ -t 1 ] || exec cat "$@"
left=$(($(stty size </dev/tty | cut -d " " -f 1) - 1)) || exec cat "$@"
rows=$left
while IFS= read -r line || [ -n "$line" ]; do
  if [ "$left" -lt 1 ]; then
    printf %s "-- space: more, enter: a line, q: end --" && IFS= read -rsn 1 key </dev/tty
    printf "\r\033[K"
    case $key in q) exit 0 ;; "") left=1 ;; *) left=$rows ;; esac
  fi
  printf "%s\n" "$line" && left=$((left - 1))
done < <(cat "$@")
"""
# $1 the pager, $2 what `nix develop` is asked for, empty for none. What the last command answered
# decides nothing: results come back however the shell was left.
_SCRIPT = r"""
kept=$(mktemp -d) && printf %s "$1" >"$kept/pager" && chmod +x "$kept/pager" || exit 125
export PAGER="$kept/pager" GIT_PAGER="$kept/pager" NIX_PAGER="$kept/pager"
prompt="seed:\w\$ "
if [ -n "$2" ]; then
  nix develop --bash-prompt "$prompt" "$2" && exit 0
else
  printf "PS1=%s\n" "'$prompt'" >"$kept/rc" && bash --rcfile "$kept/rc" -i && exit 0
fi
code=$?
[ "$code" -gt 125 ] && exit "$code"
exit 0
"""


@seed_command("shell")
@run_options
@click.argument("develop", required=False, default="", metavar="[INSTALLABLE]")
def command(develop: str, **options: Any) -> None:
    """Start a shell inside a seed, in the project's directory, with no network.

    With INSTALLABLE, such as `.`, it is the one that `nix develop` makes. What you change below
    /src is gone at the end; new store paths and `result` links come back.

    \b
        nix-seed shell --image oci:seed .
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise InputError(
            "nix-seed shell needs a terminal", hint="without one: nix-seed run -- COMMAND"
        )
    note("nix-seed: what you change below /src is gone when you leave; results come back")
    run_command(("/bin/sh", "-c", _SCRIPT, "nix-seed", _PAGER, develop), options)
