"""Repositories of one registry, without a command's options: as ``Stores`` opens them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from nix_seed.formats.oci.reference import Reference
from nix_seed.registry.client import Repository
from nix_seed.registry.credentials import Keyring
from nix_seed.registry.errors import Patience
from nix_seed.registry.session import Session


@dataclass(frozen=True)
class Registry:
    """The registry ``host[:port]``, reached by one session; without a *keyring*, by the user's."""

    host: str
    keyring: Keyring | None = None
    patience: Patience = field(default_factory=Patience)
    plain_http: bool = False
    ca_file: str | None = None
    session: Session = field(init=False)

    def __post_init__(self) -> None:
        keyring = Keyring(dict(os.environ), Path.home()) if self.keyring is None else self.keyring
        session = Session(
            self.host,
            keyring,
            patience=self.patience,
            plain_http=self.plain_http,
            ca_file=self.ca_file,
        )
        object.__setattr__(self, "session", session)

    def repository(self, path: str, mount_from: tuple[str, ...] = ()) -> Repository:
        """Return the repository ``owner/name``."""
        return Repository(self.session, Reference(self.host, path), mount_from)
