"""What a store path is called: package, version, output, package URL; which packages changed."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from urllib.parse import quote

from nix_seed.core.values import dataclass
from nix_seed.formats.nix.store_path import PathInfo, StorePath

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


@dataclass(frozen=True, slots=True)
class PackageChange:
    """One path that came (``old`` None), went (``new`` None) or was replaced under one name.

    ``old`` equals ``new`` where one path holds other bytes than before (another NAR hash).
    """

    package: str
    old: StorePath | None
    new: StorePath | None

    @property
    def kind(self) -> str:
        """``new``, ``gone``, ``rebuilt`` under the same name, or ``replaced`` by another."""
        if self.old is None or self.new is None:
            return "new" if self.old is None else "gone"
        return "rebuilt" if self.old.name == self.new.name else "replaced"

    @property
    def words(self) -> str:
        """What happened, by names: ``gcc-13.2 is gone``, ``gcc-13.2 → gcc-14.1``."""
        names = [path.name for path in (self.old, self.new) if path is not None]
        if self.kind == "replaced":
            return " → ".join(names)
        return f"{names[0]} {'was' if self.kind == 'rebuilt' else 'is'} {self.kind}"


def match_packages(
    new: Mapping[StorePath, PathInfo], old: Mapping[StorePath, PathInfo]
) -> tuple[PackageChange, ...]:
    """Pair what differs by ``StorePath.package``, exact names first; in the order of packages."""
    changes = [
        PackageChange(path.package, path, path)
        for path in new
        if path in old and new[path].nar_hash != old[path].nar_hash
    ]
    came = _by_package(path for path in new if path not in old)
    went = _by_package(path for path in old if path not in new)
    for package in came.keys() | went.keys():
        pairs = _pair(came.get(package, []), went.get(package, []))
        changes += [PackageChange(package, before, after) for before, after in pairs]
    return tuple(sorted(changes, key=_order))


def _by_package(paths: Iterable[StorePath]) -> dict[str, list[StorePath]]:
    result: defaultdict[str, list[StorePath]] = defaultdict(list)
    for path in sorted(paths, key=by_name):
        result[path.package].append(path)
    return dict(result)


def _pair(
    came: list[StorePath], went: list[StorePath]
) -> list[tuple[StorePath | None, StorePath | None]]:
    """Same full name first (only the hash differs), then in order, then what is left over."""
    pairs: list[tuple[StorePath | None, StorePath | None]] = []
    rest_came, rest_went = [], list(went)
    for path in came:
        same = next((before for before in rest_went if before.name == path.name), None)
        if same is None:
            rest_came.append(path)
        else:
            rest_went.remove(same)
            pairs.append((same, path))
    both = min(len(rest_came), len(rest_went))
    pairs += zip(rest_went, rest_came, strict=False)
    pairs += [(None, path) for path in rest_came[both:]]
    pairs += [(path, None) for path in rest_went[both:]]
    return pairs


def _order(change: PackageChange) -> tuple[str, str, str]:
    path = change.new or change.old
    assert path is not None
    return by_name(path)


Name = tuple[str, str, str]


def by_name(path: StorePath) -> Name:
    """Return the order in which ties are broken: names first, so that a new hash moves nothing."""
    return path.package, path.name, path.base_name
