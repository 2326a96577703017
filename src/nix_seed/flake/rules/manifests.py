"""Which of the project's own derivations are built from its manifests and patches alone?

Some builders (crane's ``buildDepsOnly``, naersk, ``importNpmLock``) compile what a project depends
on from a source that holds its manifests alone; and a project may patch what it depends on. A
commit may change these, so that the result is the project's own, and is built anew wherever the
seed is new, though most commits leave it alone.
"""

import re
from collections.abc import Callable, Iterable

from nix_seed.flake.rules.frontier import is_never_substituted
from nix_seed.flake.rules.recipe import Recipe
from nix_seed.formats.nix.store_path import Derivation, Graph, StorePath

# What tells a package manager what to get, or changes what was got, by the name of the file.
_MANIFEST = re.compile(
    r".*\.(patch|diff)|.*\.lock|.*\.cabal|.*-lock\.(json|yaml)|(Cargo|pyproject|gomod2nix|uv|Pipfile)\.toml|config\.toml"
    r"|package\.json|go\.(mod|sum)|requirements.*\.(txt|in)|Gemfile|Pipfile|mix\.exs|deps\.nix"
    r"|cabal\.project(\.freeze)?|stack\.yaml|build\.sbt|pom\.xml|rust-toolchain(\.toml)?"
)


def find_made_of_manifests(
    recipe: Recipe, read: Graph, names_in: Callable[[StorePath], Iterable[frozenset[str]]]
) -> tuple[StorePath, ...]:
    """Return those that the rest of the project is built from, sorted by name.

    *names_in* gives of each file of a source, if that is the project's own, the names it goes by.
    """
    made = {path for path in recipe.project if _is_made(path, recipe, read, names_in)}
    rest = recipe.project - made
    used = {item for path in rest for item in read(path).input_drvs}
    return tuple(
        sorted(
            (path for path in made & used if not _is_cheap(read(path))),
            key=lambda path: (path.name, path),
        )
    )


def _is_cheap(derivation: Derivation) -> bool:
    """Whether it is a text or a command of nixpkgs' (``runCommand``) rather than a build."""
    env = derivation.env
    is_command = "buildCommand" in env or '"buildCommand":' in env.get("__json", "")
    return is_command or is_never_substituted(derivation)


def _is_made(
    root: StorePath,
    recipe: Recipe,
    read: Graph,
    names_in: Callable[[StorePath], Iterable[frozenset[str]]],
) -> bool:
    seen, waiting, found = {root}, [root], False
    while waiting:
        path = waiting.pop()
        derivation = read(path)
        # One that is written anew has no source, but its name.
        found = found or _MANIFEST.fullmatch(path.name.removesuffix(".drv")) is not None
        for names in (names for source in derivation.input_srcs for names in names_in(source)):
            if not any(map(_MANIFEST.fullmatch, names)):
                return False
            found = True
        more = recipe.project & set(derivation.input_drvs) - seen
        seen |= more
        waiting += more
    return found
