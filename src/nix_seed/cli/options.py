"""Options that several commands share, and what they mean.

Commands that use an image verify it first, where there is a policy to verify it by.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from nix_seed.cli.command import (
    DIRECTORY,
    EXISTING_DIRECTORY,
    EXISTING_FILE,
    Command,
    NamedPath,
    argument,
    option,
    remember,
    together,
)
from nix_seed.cli.lazily import lazily
from nix_seed.cli.say import note, say, warn
from nix_seed.core.errors import InputError, NixSeedError
from nix_seed.core.files import cache_directory, home, own_directory, read_given
from nix_seed.core.processes import current_system
from nix_seed.formats.oci.reference import LayoutReference, parse_reference

with lazily():
    from nix_seed.flake import checkout, nix
    from nix_seed.flake.rules import choice as choices
    from nix_seed.formats.intoto import statement as intoto
    from nix_seed.image import request as requests
    from nix_seed.image.read import unpack
    from nix_seed.image.rules import frames
    from nix_seed.image.rules.partition import plan as partitions
    from nix_seed.registry import credentials, layout, open as registries, transfer
    from nix_seed.registry.rules import lock as locks
    from nix_seed.release import load


# The scheme of a flake's address: what follows a host's colon is a port.
_FLAKE = re.compile(r"[a-z][a-z0-9+.-]*:(?![0-9])")


def policy_option(about: str, default: str | None = "trust.toml") -> Callable[[Any], Any]:
    """Return the option ``--policy FILE``, read as ``policy_file``; *about* is its help."""
    return option("--policy FILE", about, into="policy_file", default=default)


policy_history_option = option(
    "--policy-history FILE",
    "An earlier policy, by which earlier releases were made; may be repeated.",
    into="earlier",
    multiple=True,
    type=EXISTING_FILE,
)


evidence_option = option(
    "--evidence REF",
    "Look for attestations in this repository as well; may be repeated.",
    multiple=True,
)


def state_option(about: str) -> Callable[[Any], Any]:
    """Return the option ``--state DIR``; *about* is its help."""
    return option("--state DIR", about)


store_option = option(
    "--store ROOT",
    "A Nix store of its own, rooted there [the machine's].",
    type=DIRECTORY,
    envvar="NIX_SEED_STORE",
)


exclude_option = option(
    "--exclude OUTPUT",
    "Leave out packages.NAME, packages.SYSTEM.NAME or a kind, such as checks; may be repeated.",
    multiple=True,
)

made_options = together(
    option("--attr NAME", "Attribute made by mkSeed or mkRun [seed, run]."),
    option(
        "--kind",
        "An image to build in, or to ship.",
        type=click.Choice(["seed", "run"]),
        default="seed",
    ),
    option("--system SYSTEM", "Nix system [this machine's]."),
    exclude_option,
)
"""Add which image a flake makes."""

image_options = together(
    argument("flake", "[FLAKE]", default="."),
    made_options,
    option("--base REF", "A previous image, whose layers are kept."),
    option("--layers", "Layers at most, the last, small one not counted.", type=int, default=64),
    option(
        "--compressor",
        "gzip serves Docker before 23 and other old engines.",
        type=click.Choice(["zstd", "gzip"]),
        default="zstd",
    ),
    option("--level N", "Compression level [3 for zstd, 6 for gzip].", type=int),
    store_option,
)
"""Add what says which image is meant: the flake, its attribute, kind, system, layers, base."""


class _Project(click.Option):
    """The option that names the project; its older name, ``--src``, is taken and not shown."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        record = super().get_help_record(ctx)
        return record and (record[0].replace(", --src", ""), record[1])


def project_option(about: str, *, any_flake: bool = False) -> Callable[[Any], Any]:
    """Return the option ``--flake``, read as ``src``: a directory, or *any_flake*, as a text."""
    return click.option(
        "--flake",
        "--src",
        "src",
        cls=_Project,
        type=str if any_flake else EXISTING_DIRECTORY,
        default=".",
        show_default=True,
        metavar="FLAKE" if any_flake else "DIR",
        help=about,
    )


def seed_options(engines: Sequence[str], project: str) -> Callable[[Command], Command]:
    """Return what adds which seed is used, by which of *engines*, for which project."""
    more = "; host: the hydrated store itself" if "host" in engines else ""
    return together(
        option(
            "--engine",
            f"What runs the image [the first that works]{more}.",
            type=click.Choice(engines),
            envvar="NIX_SEED_ENGINE",
        ),
        option("--image REF", "The seed [the one built here, else seed.lock's]."),
        project_option(project),
        attr_option,
        exclude_option,
        accept_option,
        registry_options,
    )


json_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=remember,
    help="Print one JSON object (docs/json.md), errors too.",
)
"""Add ``--json``; ``say.answer`` and ``say.manner`` know of it."""

attr_option = option("--attr NAME", "The project's attribute that the seed was made by [seed].")

accept_option = option(
    "--accept-licence NAME",
    "You accept this licence, or this package's: it comes from its vendor, not in the image.",
    multiple=True,
    envvar="NIX_SEED_ACCEPT_LICENCE",
)


def unpacking_cache() -> Path:
    """Return where images are unpacked, to be executed: where nobody else can write."""
    usual = cache_directory()
    own = usual if os.environ.get("NIX_SEED_CACHE") else unpack.private_cache(usual)
    if own != usual:
        say(f"nix-seed: others can write to {usual}: images are unpacked in {own}", err=True)
    return own


def state_directory() -> Path:
    """Return where what was seen of logs is kept: unlike a cache, it is not to be thrown away."""
    return own_directory("NIX_SEED_STATE", "XDG_STATE_HOME", ".local/state")


def locked_image(lacking: str) -> str:
    """Return the repository that ``seed.lock`` names; ``InputError`` says *lacking* without."""
    lock = Path(locks.LOCK_NAME)
    if not lock.is_file():
        raise InputError(lacking, hint="name it: --from host/name, or --from oci:DIR")
    return locks.SeedLock.parse(read_given(lock), locks.LOCK_NAME).image


def request_of(options: dict[str, Any]) -> tuple[nix.Nix, requests.Request]:
    """Make of *options*, as ``image_options`` names them, a Nix and a request to it."""
    flake, attr = flake_and_attr(options["flake"], options["attr"])
    partitions.check_budget(options["layers"])
    request = requests.Request(
        flake,
        choice_of(options, attr),
        frames.Compressor.at_hand(options["compressor"], options["level"]),
        options["layers"],
    )
    return nix_of(options), request


def choice_of(options: dict[str, Any], attr: str | None) -> choices.FlakeChoice:
    """Return which image *options*, as ``made_options`` names them, choose."""
    return choices.FlakeChoice(options["kind"], attr, options["system"], options["exclude"])


def nix_of(options: dict[str, Any]) -> nix.Nix:
    """Return the Nix of the store that ``--store`` names, or the machine's."""
    store = options["store"]
    return nix.Nix(store=store.absolute() if store else None)


def policy_of(options: dict[str, Any]) -> load.LoadedPolicy:
    """Return the policy that ``--policy`` names, as it is to be believed now."""
    return load.load_policy(options["policy_file"])


def state_of(options: dict[str, Any]) -> Path | None:
    """Return the directory that ``--state`` names or the usual one; None for ``--no-state``."""
    given: Path | None = options["state"]
    if not options.get("no_state"):
        return given or state_directory()
    if given is not None:
        raise click.UsageError("--state and --no-state exclude each other")
    return None


def flake_and_attr(flake: str, attr: str | None) -> tuple[str, str | None]:
    """Read ``FLAKE#NAME`` as Nix's own commands do, and a bare name as the directory it names."""
    reference, _, fragment = flake.partition("#")
    if fragment and attr is not None:
        raise InputError(
            f"{flake} names the attribute {fragment}, and --attr {attr}",
            hint="name it once",
        )
    # Nix takes a name that starts with no dot or slash for an entry of its registry.
    plain = ":" not in reference and not reference.startswith((".", "/", "~"))
    if plain and Path(reference, "flake.nix").is_file():
        reference = f"./{reference}"
    return reference or ".", attr or fragment or None


def image_named(text: str) -> registries.AnyReference | None:
    """Read *text* where it names an image, ``oci:DIR`` or a registry's; None where it is a flake.

    A registry's host has a dot or a port, or is ``localhost``; no reference to a flake begins so,
    and what is a file or directory here is none either.
    """
    if text.startswith("oci:"):
        return parse_reference(text)
    host = text.partition("/")[0]
    flake = text.startswith((".", "/", "~")) or "#" in text or _FLAKE.match(text)
    named = "/" in text and ("." in host or ":" in host or host == "localhost")
    return None if flake or not named or Path(text).exists() else parse_reference(text)


def open_seed(options: dict[str, Any], nix: nix.Nix, system: str | None = None) -> layout.Image:
    """Open the seed that was built for the project, or what ``named_seed`` returns.

    One in a registry is pulled into the cache; of an index, *system*'s (default: this machine's).
    """
    built = open_built(options, nix)
    if built is not None:
        return built
    stores, reference, system = named_seed(options, system)
    return transfer.open_here(stores, reference, cache_directory() / "images", system)


def open_built(options: dict[str, Any], nix: nix.Nix) -> layout.Image | None:
    """Open the seed that was built here for the project, unless ``--image`` names one.

    What keeps a project with a lock from being evaluated here only means that it has none.
    """
    if options["image"] is not None:
        return None
    source: Path = options["src"]
    chosen = choices.FlakeChoice(attr=options.get("attr"), exclude=options.get("exclude", ()))
    request = requests.Request(str(source.absolute()), chosen)
    try:
        key = requests.evaluate_request(nix, request).input_key
    except NixSeedError:
        if (source / locks.LOCK_NAME).is_file():
            return None
        raise
    with suppress(InputError):
        return layout.open_image(LayoutReference(str(cache_directory() / "images"), tag=key))
    return None


def named_seed(
    options: dict[str, Any], system: str | None = None
) -> tuple[registries.Stores, registries.AnyReference, str]:
    """Return what ``--image`` names or, unnamed, the project's ``seed.lock``.

    It is verified where the command has ``verify_options``.
    """
    if options.get("exclude"):
        if options["image"] is None:
            raise no_seed(options["src"])
        raise InputError(
            "--exclude chooses among the seeds built here, and --image names one",
            hint="leave --exclude out: an image says itself what it leaves out",
        )
    stores, system = stores_of(options), system or current_system()
    if options["image"] is None:
        reference = _locked_seed(options["src"], system)
    else:
        reference = parse_reference(options["image"])
    if "no_verify" in options:
        reference = trusted(options, stores, reference, system, options["src"])
    return stores, reference, system


def no_seed(source: Path) -> InputError:
    """Return what to raise where no seed was built for the project in *source*."""
    return InputError(
        f"no seed of {source} has been built here",
        hint=f"build it first: nix-seed build {source}; or name one with --image",
    )


def _locked_seed(source: Path, system: str) -> registries.AnyReference:
    lock, found = source / locks.LOCK_NAME, None
    if lock.is_file():
        found = locks.SeedLock.parse(read_given(lock), str(lock)).reference(system)
    if found is None:
        raise no_seed(source)
    note(f"no seed of {source} has been built here: taking the one in {lock}")
    return found


def named_value(option: str, text: str, example: str) -> tuple[str, str]:
    """Read *text*, given to *option*, as ``ID=VALUE``; ``InputError`` shows the *example*."""
    name, _, value = text.partition("=")
    if not name or not value:
        raise InputError(
            f"{option} {text} is not of the form ID=VALUE", hint=f"such as {option} {example}"
        )
    return name, value


_PASSWORD = "nix_seed.password"  # among what a context and those nested in it share


registry_options = together(
    option("--username NAME", "Log in as NAME [docker's or podman's login]."),
    option("--password-stdin", "Read the password from standard input."),
    option(
        "--plain-http", "Speak HTTP without TLS [only to this machine, where a server has no TLS]."
    ),
    option(
        "--ca-file FILE",
        "Accept certificates signed by these authorities.",
        type=NamedPath(str, exists=True, dir_okay=False),
    ),
)
"""Add how to reach a registry and as whom; ``stores_of`` reads them."""

jobs_option = option("--jobs N", "Blobs moved at once.", type=click.IntRange(1, 64), default=4)


def stores_of(options: dict[str, Any]) -> registries.Stores:
    """Make of *options*, as ``registry_options`` names them, what opens stores."""
    username, given, named = options["username"], None, frozenset[str]()
    if (username is not None) != options["password_stdin"]:
        raise InputError(
            "--username and --password-stdin go together",
            hint='as in: printf %s "$TOKEN" | nix-seed push … --username me --password-stdin',
        )
    if username is not None:
        # The line on standard input; it is read once, and several steps of a command ask.
        context = click.get_current_context()
        meta, named = context.meta, frozenset(_registries(context.params.values()))
        if _PASSWORD not in meta:
            meta[_PASSWORD] = sys.stdin.readline().rstrip("\r\n")
        password: str = meta[_PASSWORD]
        if not password:
            raise InputError("--password-stdin: standard input holds no password")
        given = credentials.Credential("--username", username, password)
    return registries.Stores(
        credentials.Keyring(dict(os.environ), home(), given, given_for=named),
        plain_http=options["plain_http"],
        ca_file=options["ca_file"],
        jobs=options.get("jobs") or registries.JOBS,
    )


def _registries(values: Iterable[object]) -> Iterator[str]:
    """Yield the registry of each reference among what was written on the command line."""
    for value in values:
        if isinstance(value, tuple):
            yield from _registries(value)
        elif isinstance(value, str):
            with suppress(InputError):
                reference = parse_reference(value)
                if not isinstance(reference, LayoutReference):
                    yield reference.registry


verify_options = together(
    policy_option(
        "Verify the image by this policy first [the project's trust.toml, if there].", default=None
    ),
    option("--no-verify", "Use the image unverified, policy or not."),
)
"""Add the policy to verify by, and how to go without; ``trusted`` reads them."""


def trusted(
    options: dict[str, Any],
    stores: registries.Stores,
    reference: registries.AnyReference,
    system: str | None,
    project: Path,
) -> registries.AnyReference:
    """Return *reference* by the digest that was verified; as it is where there is no policy.

    *project* is the directory whose ``trust.toml`` is the default.
    """
    path = policy_used(options, project)
    if options["no_verify"]:
        warn(
            f"{reference} is used unverified (--no-verify): neither that builders agree on it was "
            "checked, nor that it was promoted"
        )
        return reference
    if path is None:
        return reference

    loaded = load.load_policy(path)
    found = load.check_trusted(stores, reference, system, loaded, state_directory())
    say(f"verified by {path}: {found.reason}", err=True)
    return found.reference


def commit_named(text: str) -> intoto.Commit:
    """Read *text* as a commit: in full, or as this directory's Git knows it (``HEAD``, a tag)."""
    found = text if intoto.is_commit(text) else None
    if found is None and not text.startswith("-"):
        found = checkout.resolve_commit(Path(), text)
    if found is None:
        raise InputError(
            f"{text!r} is no commit of the repository in this directory",
            hint="name it in full, 40 or 64 hex digits; or as Git here knows it: HEAD, v1.0",
        )
    return intoto.Commit(found)


def image_or_commit(text: str) -> str:
    """Return *text* where it can name an image, and else the commit that it names, in full."""
    return text if "/" in text or ":" in text else str(commit_named(text))


def accepted_licences(given: Sequence[str], policy: Path | None) -> tuple[str, ...]:
    """Return the licences that the user accepts: *given* now, and those of the *policy* used."""
    if policy is None:
        return tuple(given)

    return (*given, *load.load_policy(policy).policy.licences)


def policy_used(options: dict[str, Any], project: Path) -> Path | None:
    """Return the policy that is named, or is *project*'s own; None where there is none."""
    path: Path | None = options.get("policy_file")
    if path is None and (project / checkout.DEFAULT_POLICY).is_file():
        return project / checkout.DEFAULT_POLICY
    return path
