"""The command line: ``make distribution``, ``make project``, ``make apt-root``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from debian_flake.apt import Apt, make_apt_root
from debian_flake.distribution import ARCHITECTURES, Maker, default_cache
from debian_flake.errors import Failure
from debian_flake.project import make_project, projects
from debian_flake.store import Store


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except Failure as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def say(line: str) -> None:
    """Print a line of progress where it cannot be mistaken for a result."""
    print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make", description="Debian packages as a Nix flake.")
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_distribution(verbs.add_parser("distribution", help="make a flake of Debian packages"))
    _add_project(verbs.add_parser("project", help="make an example project that uses the flake"))
    _add_apt_root(verbs.add_parser("apt-root", help="make package lists of another suite"))
    return parser


def _add_distribution(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, metavar="DIR", help="where the flake is written")
    parser.add_argument(
        "--with", dest="extra", nargs="+", action="extend", default=[], metavar="PKG",
        help="further Debian packages, with what they depend on",
    )  # fmt: skip
    parser.add_argument(
        "--systems", nargs="+", choices=ARCHITECTURES, metavar="SYSTEM",
        help=f"one flake for several systems: {' '.join(ARCHITECTURES)}",
    )  # fmt: skip
    parser.add_argument("--apt-root", type=Path, metavar="DIR", help="use this apt root's lists")
    parser.add_argument("--store", type=Path, metavar="ROOT", help="add to the store below ROOT")
    parser.add_argument(
        "--cache", type=Path, default=default_cache(), metavar="DIR",
        help="where downloads are kept (default: %(default)s)",
    )  # fmt: skip
    parser.set_defaults(run=_distribution)


def _distribution(options: argparse.Namespace) -> None:
    maker = Maker(say, Apt(options.apt_root), Store(options.store), options.cache)
    if options.systems is None:
        print(maker.make(options.directory, options.extra))
    else:
        print(maker.make_for(options.systems, options.directory, options.extra))


def _add_project(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help=", ".join(projects()))
    parser.add_argument("directory", type=Path, metavar="DIR", help="where the project is written")
    parser.add_argument("--distribution", type=Path, required=True, metavar="DISTDIR")
    parser.add_argument("--store", type=Path, metavar="ROOT", help="lock with the store below ROOT")
    parser.set_defaults(run=_project)


def _project(options: argparse.Namespace) -> None:
    store = Store(options.store)
    print(make_project(options.name, options.directory, options.distribution, store))


def _add_apt_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, metavar="DIR", help="where the lists are kept")
    parser.add_argument("--suite", required=True, help="for example trixie, bookworm-backports")
    parser.set_defaults(run=_apt_root)


def _apt_root(options: argparse.Namespace) -> None:
    make_apt_root(options.directory, options.suite)
    print(options.directory)
