"""Options that several commands share, and what they mean."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from nix_seed.clients.image_layout import Image
    from nix_seed.clients.nix import Nix
    from nix_seed.flows.plan import Request
    from nix_seed.flows.stores import AnyReference

__all__ = [
    "accept_option",
    "attr_option",
    "cache_directory",
    "flake_and_attr",
    "image_named",
    "image_options",
    "json_option",
    "locked_image",
    "open_seed",
    "policy_history_option",
    "policy_option",
    "request_of",
    "state_directory",
    "state_option",
    "store_option",
    "with_options",
]

# The scheme of a flake's address: what follows a host's colon is a port.
_FLAKE = re.compile(r"[a-z][a-z0-9+.-]*:(?![0-9])")

Command = TypeVar("Command", bound=Callable[..., Any])


def with_options(command: Command, options: Sequence[Callable[[Any], Any]]) -> Command:
    """Add *options* to *command*, in their order, as decorators one below the other would."""
    for decorate in reversed(options):
        command = decorate(command)
    return command


def policy_option(about: str, default: str | None = "trust.toml") -> Callable[[Any], Any]:
    """Return the option ``--policy FILE``, read as ``policy_file``; *about* is its help."""
    return click.option(
        "--policy",
        "policy_file",
        default=default,
        show_default=default is not None,
        type=click.Path(path_type=Path),
        metavar="FILE",
        help=about,
    )


policy_history_option = click.option(
    "--policy-history",
    "earlier",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="An earlier policy, by which earlier releases were made; may be repeated.",
)


def state_option(about: str) -> Callable[[Any], Any]:
    """Return the option ``--state DIR``; *about* is its help."""
    return click.option(
        "--state", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help=about
    )


store_option = click.option(
    "--store",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="NIX_SEED_STORE",
    metavar="ROOT",
    help="A Nix store of its own, rooted there [the machine's].",
)


def image_options(command: Command) -> Command:
    """Add what says which image is meant: the flake, its attribute, kind, system, layers, base."""
    return with_options(command, _IMAGE)


_IMAGE: list[Callable[[Any], Any]] = [
    click.argument("flake", default=".", metavar="[FLAKE]"),
    click.option("--attr", metavar="NAME", help="Attribute made by mkSeed or mkRun [seed, run]."),
    click.option(
        "--kind",
        type=click.Choice(["seed", "run"]),
        default="seed",
        show_default=True,
        help="An image to build in, or to ship.",
    ),
    click.option("--system", metavar="SYSTEM", help="Nix system [this machine's]."),
    click.option("--base", metavar="REF", help="A previous image, whose layers are kept."),
    click.option(
        "--layers",
        type=int,
        default=64,
        show_default=True,
        help="Layers at most, the last, small one not counted.",
    ),
    click.option(
        "--compressor",
        type=click.Choice(["zstd", "gzip"]),
        default="zstd",
        show_default=True,
        help="gzip serves Docker before 23 and other old engines.",
    ),
    click.option(
        "--level", type=int, metavar="N", help="Compression level [3 for zstd, 6 for gzip]."
    ),
    store_option,
]

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")

attr_option = click.option(
    "--attr", metavar="NAME", help="The project's attribute that the seed was made by [seed]."
)

accept_option = click.option(
    "--accept-licence",
    multiple=True,
    envvar="NIX_SEED_ACCEPT_LICENCE",
    metavar="NAME",
    help="You accept this licence, or this package's: it comes from its vendor, not in the image.",
)


def cache_directory() -> Path:
    """Return where layers and unpacked images are kept between runs."""
    given = os.environ.get("NIX_SEED_CACHE")
    if given:
        return Path(given)
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "nix-seed"


def state_directory() -> Path:
    """Return where what was seen of logs is kept: unlike a cache, it is not to be thrown away."""
    given = os.environ.get("NIX_SEED_STATE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "nix-seed"


def locked_image(question: str) -> str:
    """Return the repository that ``seed.lock`` names; ``InputError`` asks *question* without."""
    from nix_seed.ground.errors import InputError
    from nix_seed.rules.lock import LOCK_NAME, SeedLock

    lock = Path(LOCK_NAME)
    if not lock.is_file():
        raise InputError(question, hint="say it: --from host/name, or --from oci:DIR")
    return SeedLock.parse(lock.read_bytes(), LOCK_NAME).image


def request_of(options: dict[str, Any]) -> tuple[Nix, Request]:
    """Make of *options*, as ``image_options`` names them, a Nix and a request to it."""
    from nix_seed.clients.nix import Nix
    from nix_seed.flows.plan import Request
    from nix_seed.rules.compress import Compressor
    from nix_seed.rules.layers import check_budget

    store = options["store"]
    flake, attr = flake_and_attr(options["flake"], options["attr"])
    check_budget(options["layers"])
    request = Request(
        flake=flake,
        kind=options["kind"],
        compressor=Compressor.at_hand(options["compressor"], options["level"]),
        budget=options["layers"],
        attr=attr,
        system=options["system"],
    )
    return Nix(store=store.absolute() if store else None), request


def flake_and_attr(flake: str, attr: str | None) -> tuple[str, str | None]:
    """Read ``FLAKE#NAME`` as Nix's own commands do, and a bare name as the directory it names."""
    from nix_seed.ground.errors import InputError

    reference, _, fragment = flake.partition("#")
    if fragment and attr is not None:
        raise InputError(
            f"{flake} names the attribute {fragment}, and --attr {attr}",
            hint="name it once",
        )
    # Nix takes a name without a slash for an entry of its registry, never for a directory.
    if ":" not in reference and "/" not in reference and Path(reference, "flake.nix").is_file():
        reference = f"./{reference}"
    return reference or ".", attr or fragment or None


def image_named(text: str) -> AnyReference | None:
    """Read *text* where it names an image, ``oci:DIR`` or a registry's; None where it is a flake.

    A registry's host has a dot or a port, or is ``localhost``; no reference to a flake begins so,
    and what is a file or directory here is none either.
    """
    from nix_seed.formats.oci.reference import parse_reference

    if text.startswith("oci:"):
        return parse_reference(text)
    host = text.partition("/")[0]
    flake = text.startswith((".", "/", "~")) or "#" in text or _FLAKE.match(text)
    named = "/" in text and ("." in host or ":" in host or host == "localhost")
    return None if flake or not named or Path(text).exists() else parse_reference(text)


def open_seed(options: dict[str, Any], nix: Nix, system: str | None = None) -> Image:
    """Open the seed that ``--image`` names or, unnamed, the one built for the flake in ``--src``.

    One in a registry is pulled into the cache; of an index, *system*'s (default: this machine's).
    A command with ``verify_options`` has it verified first.
    """
    from nix_seed.clients.image_layout import open_image
    from nix_seed.flows.plan import Request, evaluate_request
    from nix_seed.formats.oci.reference import LayoutReference
    from nix_seed.ground.errors import InputError
    from nix_seed.rules.compress import Compressor
    from nix_seed.rules.partition import DEFAULT_BUDGET

    if options["image"] is not None:
        return _named_seed(options, system)
    source: Path = options["src"]
    flake = str(source.absolute())
    request = Request(flake, "seed", Compressor.at_hand(), DEFAULT_BUDGET, options.get("attr"))
    found = LayoutReference(
        str(cache_directory() / "images"), tag=evaluate_request(nix, request).input_key
    )
    try:
        return open_image(found)
    except InputError as error:
        raise InputError(
            f"no seed of {source} has been built here",
            hint=f"build it first: nix-seed build {source}; or name one with --image",
        ) from error


def _named_seed(options: dict[str, Any], system: str | None) -> Image:
    from nix_seed.cli.registry_options import stores_of
    from nix_seed.flows.evaluate import current_system
    from nix_seed.flows.pull import open_here
    from nix_seed.formats.oci.reference import parse_reference

    reference = parse_reference(options["image"])
    kept = cache_directory() / "images"
    stores, system = stores_of(options), system or current_system()
    if "no_verify" in options:
        from nix_seed.cli.trusted import trusted
        from nix_seed.flows.events import ignore

        reference = trusted(options, stores, reference, system, options["src"], ignore)
    return open_here(stores, reference, kept, system)
