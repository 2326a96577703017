"""How store paths came to this store, and with which settings Nix works here."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nix_seed.clients.nix import Nix
from nix_seed.formats.intoto.predicate import NixFacts, PathCounts
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.ground.errors import NixFailed

__all__ = ["count_origins", "nix_facts"]

_BATCH = 500
_NUMBER = re.compile(r"\d+\.\d+[^\s)]*")


def count_origins(nix: Nix, paths: Iterable[StorePath]) -> PathCounts:
    """Count how each of *paths*, all valid, came to be: by Nix's own records."""
    ordered = sorted(map(str, paths))
    counts: Counter[str] = Counter()
    keys: Counter[str] = Counter()
    for start in range(0, len(ordered), _BATCH):
        for info in _infos(nix, ordered[start : start + _BATCH]):
            counts[_origin(info)] += 1
            if _origin(info) == "substituted":
                keys.update({str(each).partition(":")[0] for each in info["signatures"]})
    return PathCounts(
        counts["built"],
        counts["substituted"],
        counts["added"],
        counts["unexplained"],
        tuple(sorted(keys.items())),
    )


def nix_facts(nix: Nix) -> NixFacts:
    """Return the version, and the settings that bear on trust, as Nix itself resolves them."""
    doing = "asking Nix for its settings"
    try:
        text = nix.run("nix", ["show-config"], doing)
    except NixFailed:  # the command's name since Nix 2.20
        text = nix.run("nix", ["config", "show"], doing)
    settings = {
        name.strip(): value.strip()
        for name, equals, value in (line.partition("=") for line in text.splitlines())
        if equals
    }
    version = _NUMBER.search(nix.version())
    return NixFacts(
        version=version[0] if version else nix.version(),
        substituters=tuple(settings.get("substituters", "").split()),
        sandbox=settings.get("sandbox", "unknown"),
    )


def _infos(nix: Nix, paths: Sequence[str]) -> list[Mapping[str, Any]]:
    """Read ``nix path-info --json``, a list up to Nix 2.18 and a map since."""
    doing = "asking Nix where store paths came from"
    try:
        value = json.loads(nix.run("nix", ["path-info", "--json", *paths], doing))
    except ValueError as error:
        raise NixFailed(f"{doing}: Nix printed something that is not JSON") from error
    found = list(value.values()) if isinstance(value, dict) else value
    if len(found) != len(paths) or not all(isinstance(each, dict) for each in found):
        raise NixFailed(f"{doing}: Nix answered for {len(found)} paths of {len(paths)}")
    return found


def _origin(info: Mapping[str, Any]) -> str:
    if info.get("ultimate"):
        return "built"
    if info.get("ca"):
        return "added"
    return "substituted" if info.get("signatures") else "unexplained"
