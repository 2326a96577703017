"""The last layer: what makes a closure a system. A pure function of the spec.

The files the recipe asks for, the Nix database of exactly the paths in the image, and the spec
itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from nix_seed.formats.nix.database import SCHEMA_VERSION, build_database
from nix_seed.formats.oci import tar
from nix_seed.rules.outline import File
from nix_seed.rules.spec import SPEC_PATH, Spec

__all__ = ["container_entries", "container_key"]

_STATE = ("gcroots", "profiles", "temproots", "userpool")


def container_entries(spec: Spec) -> tuple[tar.Entry, ...]:
    """Return the entries of the last layer of the image that *spec* describes."""
    entries = [_entry(file) for file in spec.files]
    entries.append(tar.Entry(SPEC_PATH.encode(), tar.FILE, 0o444, spec.dump()))
    entries += _database(spec)
    return tuple(entries)


def container_key(spec: Spec) -> str:
    """Return what the last layer is cached under; the spec's narHash decides its bytes."""
    return hashlib.sha256(f"nix-seed/container/v1\0{spec.nar_hash}".encode()).hexdigest()


def _entry(file: File) -> tar.Entry:
    name = file.path.encode()
    if file.link is not None:
        return tar.Entry(name, tar.SYMLINK, 0o777, file.link.encode())
    if file.text is not None:
        return tar.Entry(name, tar.FILE, int(file.mode or "0644", 8), file.text.encode())
    return tar.Entry(name, tar.DIRECTORY, int(file.mode or "0755", 8))


def _database(spec: Spec) -> Iterator[tar.Entry]:
    """Yield Nix's state: a valid store from the first moment, with nothing to import."""
    database = build_database(spec.registrable(path) for path in sorted(spec.paths))
    yield tar.Entry(b"nix/var/nix/db/db.sqlite", tar.FILE, 0o644, database)
    yield tar.Entry(b"nix/var/nix/db/schema", tar.FILE, 0o644, SCHEMA_VERSION)
    for name in _STATE:
        yield tar.Entry(f"nix/var/nix/{name}".encode(), tar.DIRECTORY, 0o755)
