"""One grammar for naming images (OCI distribution specification 1.1, "Pulling manifests").

::

    HOST[:PORT]/NAME[:TAG][@sha256:HEX]     an image in a registry
    oci:DIR[:TAG | @sha256:HEX]             an image in an OCI image layout on disk

A registry is always named. Docker's guess, by which ``debian`` means ``docker.io/library/debian``,
is not made: an image that builds are checked against must not depend on whose default applies.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Self

from nix_seed.core.digests import Digest
from nix_seed.core.errors import InputError
from nix_seed.core.values import dataclass

_LAYOUT = "oci:"
_HOST = re.compile(
    r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*|\[[0-9a-f:.]+\])"
    r"(?::[0-9]{1,5})?\Z"
)
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_PART}(?:/{_PART})*\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")
# What was plainly meant as a digest, of whatever algorithm; Digest.parse then judges it.
_DIGEST_LIKE = re.compile(r"@([a-z0-9]+(?:[+._-][a-z0-9]+)*:[0-9A-Fa-f]{16,}|sha256:.*)\Z", re.S)
_NAME_LIMIT = 255  # host and name together, as every registry in use enforces it
# Where skopeo finds images, and nobody else.
_ELSEWHERE = re.compile(
    r"(?:oci-archive|docker-archive|docker-daemon|containers-storage|dir):(?!\d+/)"
)
_FLAKE = re.compile(
    r".*#|(?:flake|path|github|gitlab|sourcehut|(?:git|hg|tarball|file)\+\w+):(?!\d+/)"
)
_BUILD = "nix-seed build FLAKE -o DIR, or --push REF"
_FORMS = (
    "write ghcr.io/owner/repo:tag, host:5000/repo@sha256:…, or oci:DIR for an image layout on disk"
)


def parse_reference(text: str) -> Reference | LayoutReference:
    """Read either form; the prefix ``oci:`` decides which."""
    return (LayoutReference if text.startswith(_LAYOUT) else Reference).parse(text)


def check_tag(tag: str, where: str) -> None:
    """Raise ``InputError`` unless *tag* is one the specification allows."""
    if not _TAG.match(tag):
        raise InputError(
            f"{where}: {tag!r} is not a tag",
            hint="a tag has up to 128 letters, digits, '_', '.' and '-', "
            "and begins with none of the last two",
        )


class _Named:
    """An image by its *tag* or *digest*, of which the digest decides."""

    __slots__ = ()
    tag: str | None
    digest: Digest | None

    @property
    def name(self) -> str | Digest | None:
        """What names the manifest in its repository or layout: the digest, else the tag."""
        return self.tag if self.digest is None else self.digest

    def at(self, name: str | Digest) -> Self:
        """Return the image called *name* (a tag or a digest) of the same repository or layout."""
        tag, digest = (None, name) if isinstance(name, Digest) else (name, None)
        return replace(self, tag=tag, digest=digest)  # type: ignore[type-var]


@dataclass(frozen=True, slots=True)
class Reference(_Named):
    """An image, or with neither tag nor digest a repository, in a registry.

    Where both are given, the digest decides and the tag is a remark for people.
    """

    registry: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    def __post_init__(self) -> None:
        _check_registry(self.registry)
        _check_repository(self.registry, self.repository)
        if self.tag is not None:
            check_tag(self.tag, f"{self.registry}/{self.repository}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``HOST[:PORT]/NAME[:TAG][@DIGEST]``."""
        if _FLAKE.match(text):
            raise InputError(
                f"{text!r} names a flake, not an image", hint=f"build its image first: {_BUILD}"
            )
        if "://" in text:
            host, slash, path = text.partition("://")[2].partition("?")[0].partition("/")
            bare = f"{host.rpartition('@')[2]}{slash}{path}"
            raise InputError(f"{text!r}: a reference has no scheme", hint=f"write {bare}")
        if _ELSEWHERE.match(text):
            raise InputError(
                f"{text!r}: only registries and image layouts are read",
                hint=f"copy it first: `skopeo copy {text} oci:DIR:TAG`",
            )
        rest, digest = _split_digest(text)
        registry, slash, path = rest.partition("/")
        if slash and "@" in registry:
            raise InputError(
                f"{registry.rpartition('@')[2]}/{path}: a reference holds no user and no password",
                hint="log in: `docker login`, `podman login`, or --username and --password-stdin",
            )
        if text.startswith((".", "/", "~")):
            raise InputError(
                f"{text!r} names a place on disk, and no registry",
                hint=f"for an image layout write oci:{text}; a flake is built first: {_BUILD}",
            )
        if not slash or not _names_a_host(registry):
            raise InputError(f"{text!r} names no registry", hint=_suggest(text))
        repository, colon, tag = path.partition(":")
        return cls(registry, repository, tag if colon else None, digest)

    def __str__(self) -> str:
        tag = "" if self.tag is None else f":{self.tag}"
        digest = "" if self.digest is None else f"@{self.digest}"
        return f"{self.registry}/{self.repository}{tag}{digest}"


@dataclass(frozen=True, slots=True)
class LayoutReference(_Named):
    """An image in an OCI image layout; without tag and digest, its only one.

    The tag is the descriptor's ``org.opencontainers.image.ref.name`` in ``index.json``.
    """

    directory: str
    tag: str | None = None
    digest: Digest | None = None

    def __post_init__(self) -> None:
        if not self.directory:
            raise InputError("oci: names no directory", hint=_FORMS)
        if ":" in self.directory or "\0" in self.directory or _DIGEST_LIKE.search(self.directory):
            raise InputError(
                f"oci:{self.directory}: the directory of an image layout cannot have ':' in its "
                "name, because a tag follows it"
            )
        if self.tag is not None:
            check_tag(self.tag, f"oci:{self.directory}")
        if self.tag is not None and self.digest is not None:
            raise InputError(f"oci:{self.directory}: give a tag or a digest, not both")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``oci:DIR[:TAG | @DIGEST]``."""
        if not text.startswith(_LAYOUT):
            raise InputError(f"{text!r} does not begin with oci:", hint=_FORMS)
        rest, digest = _split_digest(text.removeprefix(_LAYOUT))
        directory, colon, tag = rest.rpartition(":")
        if not colon:
            return cls(rest, None, digest)
        return cls(directory, tag, digest)

    def __str__(self) -> str:
        tag = "" if self.tag is None else f":{self.tag}"
        digest = "" if self.digest is None else f"@{self.digest}"
        return f"{_LAYOUT}{self.directory}{tag}{digest}"


def _split_digest(text: str) -> tuple[str, Digest | None]:
    found = _DIGEST_LIKE.search(text)
    if found is None:
        return text, None
    return text[: found.start()], Digest.parse(found[1])


def _names_a_host(text: str) -> bool:
    # The convention of every client: a first part without dot and port is a name, save localhost.
    return "." in text or ":" in text or text == "localhost"


def _check_registry(registry: str) -> None:
    if not _names_a_host(registry):
        raise InputError(f"{registry!r} is not a registry's host", hint=_FORMS)
    if registry != registry.lower():
        raise InputError(
            f"{registry!r} has upper-case letters; hosts are written in lower case",
            hint=f"write {registry.lower()}",
        )
    port = registry.rpartition(":")[2] if re.search(r":[0-9]+\Z", registry) else "1"
    if not _HOST.match(registry) or not 0 < int(port) < 65536 or str(int(port)) != port:
        raise InputError(f"{registry!r} is not a host, or a host and a port", hint=_FORMS)


def _check_repository(registry: str, repository: str) -> None:
    if repository != repository.lower():
        raise InputError(
            f"{registry}/{repository} has upper-case letters, which registries refuse in names",
            hint=f"write {registry}/{repository.lower()}",
        )
    if not _NAME.match(repository):
        raise InputError(
            f"{repository!r} is not a repository's name",
            hint="its parts, separated by '/', are lower-case letters and digits, "
            "with '.', '_', '__' or '-' between them",
        )
    if len(registry) + 1 + len(repository) > _NAME_LIMIT:
        raise InputError(f"{registry}/{repository} is longer than {_NAME_LIMIT} characters")


def _suggest(text: str) -> str:
    path = text if "/" in text else f"library/{text}"
    guess = f"docker.io/{path}"
    try:
        Reference.parse(guess)
    except InputError:
        return _FORMS
    on_disk = f"for an image layout on disk oci:{text}"
    return f"for Docker Hub write {guess}, {on_disk}, otherwise ghcr.io/owner/repo:tag"
