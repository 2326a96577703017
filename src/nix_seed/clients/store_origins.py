"""How store paths came to this store, and with which settings Nix works here."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from nix_seed.clients.nix import Nix
from nix_seed.clients.nix_settings import read_settings
from nix_seed.clients.provenance import Provenance, read_provenance, read_signers
from nix_seed.formats.intoto.predicate import NixFacts, PathCounts
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.ground.errors import NixFailed
from nix_seed.rules.path_signatures import Signers

__all__ = ["count_origins", "nix_facts"]

_NUMBER = re.compile(r"\d+\.\d+[^\s)]*")


def count_origins(nix: Nix, paths: Iterable[StorePath]) -> PathCounts:
    """Count how each of *paths*, all valid, came to be: by Nix's own records.

    Of signatures only those count that verify by a key which Nix here trusts.
    """
    wanted = set(paths)
    known = read_provenance(nix, wanted)
    if len(known) != len(wanted):
        absent = min(wanted - known.keys())
        raise NixFailed(f"asking Nix where store paths came from: it does not know {absent}")
    signers = read_signers(nix, known)
    counts: Counter[str] = Counter()
    keys: Counter[str] = Counter()
    for path, info in known.items():
        signed = signers.get(path, Signers())
        counts[_origin(info, signed)] += 1
        keys.update(signed.verified)
    return PathCounts(
        counts["built"],
        counts["substituted"],
        counts["added"],
        counts["unexplained"],
        tuple(sorted(keys.items())),
    )


def nix_facts(nix: Nix) -> NixFacts:
    """Return the version, and the settings that bear on trust, as Nix itself resolves them."""
    settings = read_settings(nix)
    version = _NUMBER.search(nix.version())
    return NixFacts(
        version=version[0] if version else nix.version(),
        substituters=tuple(settings.get("substituters", "").split()),
        sandbox=settings.get("sandbox", "unknown"),
    )


def _origin(info: Provenance, signed: Signers) -> str:
    if info.ultimate:
        return "built"
    if info.addressed:
        return "added"
    return "substituted" if signed.verified else "unexplained"
