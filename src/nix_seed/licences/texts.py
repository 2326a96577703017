"""Reads which licence a source tree states in its own LICENSE or COPYING file."""

import re
from pathlib import Path

from nix_seed.flake.rules.licence import UNSTATED, Licence, evaluate_expression, join

_FILE = re.compile(r"(un)?licen[cs]e|copying", re.IGNORECASE)
_MOST = 1 << 20
# What only that licence says, all in one line; the first that matches.
_WORDS = (
    ("AGPL-3.0-only", r"GNU AFFERO GENERAL PUBLIC LICENSE Version 3"),
    ("LGPL-3.0-only", r"GNU LESSER GENERAL PUBLIC LICENSE Version 3"),
    ("LGPL-2.1-only", r"GNU LESSER GENERAL PUBLIC LICENSE Version 2\.1"),
    ("GPL-3.0-only", r"GNU GENERAL PUBLIC LICENSE Version 3"),
    ("GPL-2.0-only", r"GNU GENERAL PUBLIC LICENSE Version 2"),
    ("Apache-2.0", r"Apache License,? Version 2\.0"),
    ("MPL-2.0", r"Mozilla Public License,? Version 2\.0"),
    ("EUPL-1.2", r"European Union Public Licence v\. ?1\.2"),
    ("CC0-1.0", r"CC0 1\.0 Universal"),
    ("Unlicense", r"This is free and unencumbered software released into the public domain"),
    ("ISC", r"Permission to use, copy, modify, (and/or|and) distribute this software for any"),
    ("MIT", r"Permission is hereby granted, free of charge, to any person obtaining a copy"),
    (
        "BSD-3-Clause",
        r"Redistribution and use in source and binary forms.*(Neither the name|may not be used to"
        r" endorse)",
    ),
    ("BSD-2-Clause", r"Redistribution and use in source and binary forms"),
)


def read_licence_texts(tree: Path) -> Licence:
    """Return the licence that the files at the top of *tree* state; all of them apply."""
    try:
        files = sorted(file for file in tree.iterdir() if _FILE.match(file.name))
        found = [_recognise(file) for file in files if file.is_file() and not file.is_symlink()]
    except OSError:
        return UNSTATED
    return join(found) if found else UNSTATED


def _recognise(file: Path) -> Licence:
    with file.open("rb") as stream:
        text = " ".join(stream.read(_MOST).decode("utf-8", "replace").split())
    for name, words in _WORDS:
        if re.search(words, text, re.IGNORECASE):
            return Licence(name, evaluate_expression(name))
    return Licence(f"see {file.name}", "unknown")
