"""Read what a package's own copyright file says about its licence. A guess, never advice."""

from __future__ import annotations

import re

# Debian's short names (its copyright format 1.0) beside SPDX's.
_SPDX = {
    "apache-2.0": "Apache-2.0", "artistic": "Artistic-1.0-Perl", "bsd-2-clause": "BSD-2-Clause",
    "bsd-3-clause": "BSD-3-Clause", "bsd-4-clause": "BSD-4-Clause", "bsd": "BSD-3-Clause",
    "expat": "MIT", "mit": "MIT", "isc": "ISC", "zlib": "Zlib", "curl": "curl",
    "public-domain": "LicenseRef-public-domain", "pd": "LicenseRef-public-domain",
    "mpl-2.0": "MPL-2.0", "boost": "BSL-1.0", "bsl-1.0": "BSL-1.0", "psf-2": "PSF-2.0",
}  # fmt: skip
_GNU = re.compile(r"^(a?l?gpl|gfdl)(?:-|v)?(\d(?:\.\d)?)(\+?)", re.IGNORECASE)
_PROSE = [
    (re.compile(r"gcc runtime library exception", re.I), "GPL-3.0-or-later WITH GCC-exception-3.1"),
    (re.compile(r"common-licenses/(LGPL|GPL|AGPL|GFDL)-(\d(?:\.\d)?)"), ""),
    (re.compile(r"Permission is hereby granted, free of charge", re.I), "MIT"),
    (re.compile(r"Redistribution and use in source and binary forms", re.I), "BSD-3-Clause"),
    (re.compile(r"public domain", re.I), "LicenseRef-public-domain"),
]


def guess_spdx(copyright_text: str) -> str | None:
    """Return the SPDX identifier of the main licence, or None if the file does not tell."""
    for stanza in copyright_text.split("\n\n"):
        if re.search(r"^Files: *\*\s*$", stanza, re.MULTILINE):
            found = re.search(r"^License: *(.+)$", stanza, re.MULTILINE)
            if found and (spdx := to_spdx(found.group(1))):
                return spdx
    return _from_prose(copyright_text)


def to_spdx(debian: str) -> str | None:
    """Translate a Debian licence expression; None if any part of it is unknown."""
    parts = re.split(r"\s+(and|or)\s+|,\s*", debian.strip())
    words = [_translate(part) for part in parts if part]
    if not words or None in words:
        return None
    return " ".join(word for word in words if word)


def _translate(word: str) -> str | None:
    if word in {"and", "or"}:
        return word.upper()
    gnu = _GNU.match(word)
    if gnu:
        return _gnu(*gnu.groups())
    return _SPDX.get(word.lower())


def _gnu(family: str, version: str, plus: str) -> str:
    number = version if "." in version else f"{version}.0"
    return f"{family.upper()}-{number}-{'or-later' if plus else 'only'}"


def _from_prose(text: str) -> str | None:
    for pattern, spdx in _PROSE:
        if found := pattern.search(text):
            later = "+" if re.search(r"any\s+later\s+version", text) else ""
            return spdx or _gnu(found.group(1), found.group(2), later)
    return None
