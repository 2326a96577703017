"""What the inputs of a CI step mean: they are text, whatever they stand for."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from nix_seed.core import canonical_json
from nix_seed.core.errors import InputError
from nix_seed.formats.intoto.statement import is_commit
from nix_seed.formats.oci.reference import Reference, check_tag
from nix_seed.setup.rules.ci_events import Decision

LATEST: Final = "latest"
_SEPARATORS = re.compile(r"[\s,]+")
_LINES = re.compile(r"[,\n]")
_SYSTEM = re.compile(r"[a-z0-9_]+-[a-z0-9]+\Z")
_GHCR = "ghcr.io"
# On GitHub a package lies beside the repository, on GitLab inside of it.
_NAMES = {"github": "{}-seed", "gitlab": "{}/seed"}


@dataclass(frozen=True, slots=True)
class SeedAttr:
    """Where the flake lies below its start, and its attribute; None is ``seed``, if there."""

    directory: str
    attr: str | None


def parse_seed_attr(text: str) -> SeedAttr:
    """Read ``.#seed``, ``sub/dir#attribute``, ``#attribute`` or ``attribute``."""
    directory, hash_sign, attr = text.strip().rpartition("#")
    if not hash_sign and (attr.startswith((".", "/")) or "/" in attr):
        directory, attr = attr, ""
    if ":" in directory:
        raise InputError(
            f"seed_attr {text!r} names a flake that is not in the checkout",
            hint="what is published is the commit checked out: name a directory of it, .#seed",
        )
    return SeedAttr(directory or ".", None if attr in ("", "seed") else attr)


def parse_list(text: str, separators: re.Pattern[str] = _SEPARATORS) -> tuple[str, ...]:
    """Read what spaces, commas or lines separate, or a JSON list of texts; each once."""
    stripped = text.strip()
    if stripped.startswith("["):
        try:
            found = canonical_json.loads(stripped.encode(), label="a list")
        except (InputError, UnicodeEncodeError) as error:
            raise InputError(f"{_shown(text)} begins as a JSON list, and is none") from error
        if not all(isinstance(each, str) for each in found):
            raise InputError(f"{_shown(text)}: a list of texts is wanted")
        return tuple(dict.fromkeys(each.strip() for each in found if each.strip()))
    found = (each.strip() for each in separators.split(stripped))
    return tuple(dict.fromkeys(each for each in found if each))


def parse_names(text: str) -> tuple[str, ...]:
    """Read names that may have spaces in them: commas and lines separate."""
    return parse_list(text, _LINES)


def parse_tags(text: str) -> tuple[str, ...]:
    """Read tags; ``InputError`` for what can be none."""
    tags = parse_list(text)
    for tag in tags:
        check_tag(tag, "tags")
    return tags


def split_index_tags(tags: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Divide *tags* in those that may name anything, and those of a promoted index alone.

    These are ``latest``, and every commit.
    """
    held = tuple(tag for tag in tags if tag == LATEST or is_commit(tag))
    return tuple(tag for tag in tags if tag not in held), held


def parse_systems(text: str) -> tuple[str, ...]:
    """Read Nix systems, sorted; ``InputError`` for what can be none."""
    systems = parse_list(text)
    for system in systems:
        if not _SYSTEM.match(system):
            raise InputError(
                f"{_shown(system)} is no Nix system", hint="such as x86_64-linux, aarch64-darwin"
            )
    return tuple(sorted(systems))


def parse_switch(text: str, name: str) -> bool:
    """Read ``true`` or ``false``; nothing is false."""
    value = text.strip().lower()
    if value not in ("", "true", "false"):
        raise InputError(f"{name} is {_shown(text)}, neither true nor false")
    return value == "true"


def repository_of(
    image: str, registry: str, decision: Decision, environ: Mapping[str, str]
) -> Reference:
    """Return the repository of the seeds: the *image* named, or the CI job's project's own.

    *image* may name its registry as well; *registry* is for one that does not. Registries take
    lower case only, while repositories may be called anything.
    """
    host = registry.strip() or environ.get("CI_REGISTRY", "") or _GHCR
    name = image.strip()
    if not name:
        if decision.repository is None:
            raise InputError(
                "which repository of the registry are the seeds in?",
                hint="name it: image (SEED_IMAGE), such as owner/name",
            )
        name = _NAMES[decision.host].format(decision.repository)
    first, slash, _ = name.partition("/")
    names_host = bool(slash) and ("." in first or ":" in first or first == "localhost")
    found = Reference.parse(name.lower() if names_host else f"{host}/{name.lower()}")
    if found.tag is not None or found.digest is not None:
        raise InputError(f"image {name} names a tag or digest", hint="name the repository alone")
    return found


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:80]}…")
