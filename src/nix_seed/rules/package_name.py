"""What a store path is called: package, version and output, and the package URL made of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from nix_seed.formats.nix.store_path import StorePath

__all__ = ["Package", "image_url", "name_of_output", "package_url", "parse_name"]


_VERSION = re.compile(r"-[^A-Za-z]", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Package:
    """A package's name, never empty, and its version and output, each empty where not known."""

    name: str
    version: str = ""
    output: str = ""


def parse_name(text: str) -> Package:
    """Divide a name as Nix does (``builtins.parseDrvName``).

    The version is what follows the first dash that no ASCII letter follows: ``gcc-12.2.0-lib`` is
    ``gcc`` in version ``12.2.0-lib``. Which of it is the output's name, no name tells.
    """
    found = _VERSION.search(text)
    # Nix lets a name be empty; nothing else does.
    if found is None or found.start() == 0:
        return Package(text)
    return Package(text[: found.start()], text[found.start() + 1 :])


def name_of_output(derivation: str, output: str, said: Mapping[str, str]) -> Package:
    """Divide the name of a derivation (without ``.drv``) whose *output* a store path is.

    Its ``pname`` and ``version``, among what it *said* to its builder, count where they make up
    that name.
    """
    name, version = said.get("pname", ""), said.get("version", "")
    if name and version and f"{name}-{version}" == derivation:
        return Package(name, version, output)
    parsed = parse_name(derivation)
    return Package(parsed.name, parsed.version, output)


def package_url(package: Package, path: StorePath) -> str:
    """Return ``pkg:nix/NAME@VERSION?output=OUTPUT&outputhash=HASH``.

    Package URL specification 1.0; the type ``nix`` is proposed there and not yet decided on. The
    qualifiers are those that scanners of store paths use.
    """
    version = f"@{_encode(package.version)}" if package.version else ""
    output = f"output={_encode(package.output)}&" if package.output else ""
    return f"pkg:nix/{_encode(package.name)}{version}?{output}outputhash={path.hash_part}"


def image_url(name: str, digest: str, architecture: str) -> str:
    """Return the package URL of an image, ``pkg:oci/NAME@sha256:HEX?arch=ARCH``.

    Where it is stored is left out: the same image lies in many places.
    """
    return f"pkg:oci/{_encode(name.lower())}@{_encode(digest)}?arch={_encode(architecture)}"


def _encode(text: str) -> str:
    """Encode all but unreserved characters and the colon, as the specification wants."""
    return quote(text, safe=":")
