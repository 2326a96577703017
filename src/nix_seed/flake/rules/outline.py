"""The outline: what the Nix half says an image should hold, as data (``outline.nix``).

It comes out of a flake's own code, so everything in it is checked before it is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from nix_seed.core.errors import InputError
from nix_seed.flake.rules.licence import LicencePolicy
from nix_seed.formats.nix.store_path import StorePath

# Where the image holds its own spec (docs/image.md).
SPEC_PATH = "etc/nix-seed/seed.json"
CONTENTS_PATH = "etc/nix-seed/contents"

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?\Z")
_MODE = re.compile(r"[01][0-7]{3}\Z")


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Common settings: immutable, strict, spelled as in Nix."""


class ContextElement(_Part, frozen=True):
    """One element of a Nix string context (``builtins.getContext``)."""

    outputs: tuple[str, ...] = ()
    path: bool = False
    all_outputs: bool = False


Context = dict[str, ContextElement]


class ProjectOutput(_Part, frozen=True):
    """One output of the flake, ``packages.default``, and the derivations that make it.

    ``foreign`` ones are defined in no file of the flake: where no source decides them, they are
    baked like any dependency.
    """

    output: str
    context: Context
    foreign: bool = False

    @property
    def is_shell(self) -> bool:
        """Whether it is there for what it is built from."""
        return self.output.startswith("devShells.")

    @property
    def is_program(self) -> bool:
        """Whether it is there to be started, whoever's it is."""
        return self.output.startswith(("apps.", "formatter."))


class Project(_Part, frozen=True):
    """The project's own outputs by kind."""

    packages: tuple[ProjectOutput, ...] = ()
    apps: tuple[ProjectOutput, ...] = ()
    checks: tuple[ProjectOutput, ...] = ()
    dev_shells: tuple[ProjectOutput, ...] = ()
    extra: tuple[ProjectOutput, ...] = ()

    @property
    def all(self) -> tuple[ProjectOutput, ...]:
        """Outputs of every kind, and what is the project's though no output names it."""
        return self.packages + self.extra + self.apps + self.checks + self.dev_shells


class TierOutline(_Part, frozen=True):
    """What a tier holds beyond the frontier of the outputs it is named for."""

    name: str
    roots: Context


class File(_Part, frozen=True, omit_defaults=True):
    """An entry beside ``/nix``: text, a symlink, or neither (a directory). *mode* is octal."""

    path: str
    text: str | None = None
    link: str | None = None
    mode: str | None = None


class ImageConfig(_Part, frozen=True, omit_defaults=True):
    """The user's part of the image configuration (image-spec, config.md)."""

    env: dict[str, str] = {}
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    labels: dict[str, str] = {}


class Container(_Part, frozen=True, omit_defaults=True):
    """What makes the closure a system: files and environment.

    With *any_user* the store is writable for whatever user the container runs as.
    """

    files: tuple[File, ...]
    env: dict[str, str]
    any_user: bool = False


class Outline(_Part, frozen=True):
    """The whole of it. *excluded* is left out beside what the flake's own recipe leaves out."""

    name: str
    system: str
    kind: Literal["seed", "run"]
    source: str
    inputs: dict[str, str]
    project: Project
    tiers: tuple[TierOutline, ...]
    compilers: Context
    config: ImageConfig
    container: Container
    licences: LicencePolicy = LicencePolicy()
    excluded: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, value: Any) -> Outline:
        """Read what Nix evaluated; errors name the option at fault."""
        try:
            outline = msgspec.convert(value, cls)
        except msgspec.ValidationError as error:
            raise InputError(
                f"the flake's outline of an image is malformed: {error}",
                hint="check the arguments of mkSeed or mkRun against the documentation",
            ) from error
        if not _NAME.match(outline.name):
            raise InputError(
                f"{outline.name!r} cannot be the name of an image",
                hint="use lower-case letters, digits, '.', '_' and '-' (mkSeed's argument name)",
            )
        check_files(outline.container.files)
        for env in (outline.config.env, outline.container.env):
            _check_env(env)
        for path in outline.inputs.values():
            StorePath.containing(path)
        return outline


def check_files(files: Iterable[File]) -> None:
    """Raise ``InputError`` where *files* cannot lie beside one another, and a spec, in an image."""
    known: dict[str, File] = {}
    for file in files:
        parts = file.path.split("/")
        if not file.path.isprintable() or {"", ".", ".."} & set(parts) or parts[0] == "nix":
            raise InputError(f"{file.path!r} cannot be a file of an image")
        if file.text is not None and file.link is not None:
            raise InputError(f"{file.path} is given as a text and as a link")
        if file.mode is not None and not _MODE.match(file.mode):
            raise InputError(f"{file.path}: {file.mode!r} is not a mode of four octal digits")
        if file.path in known or file.path in (SPEC_PATH, CONTENTS_PATH):
            raise InputError(f"{file.path} is given twice among the files of the image")
        known[file.path] = file
    for path in [*known, SPEC_PATH, CONTENTS_PATH]:
        _check_parents(path, known)


def _check_parents(path: str, files: dict[str, File]) -> None:
    """See that what *path* lies in is a directory, given as one or not given at all."""
    parts = path.split("/")
    for depth in range(1, len(parts)):
        parent = files.get("/".join(parts[:depth]))
        if parent is not None and (parent.text is not None or parent.link is not None):
            kind = "a link" if parent.link is not None else "a file"
            raise InputError(
                f"{path} cannot be in the image: {parent.path} is {kind}, not a directory",
                hint=f"leave out {parent.path}, or put {path} where it leads",
            )


def _check_env(env: dict[str, str]) -> None:
    for name, value in env.items():
        if not name or "=" in name or "\0" in name + value:
            raise InputError(f"the environment variable {name!r} cannot be set in an image")
