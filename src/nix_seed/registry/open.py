"""From a reference to the store that holds it: a layout on disk or a registry's repository."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, InputError
from nix_seed.core.files import home
from nix_seed.core.values import dataclass
from nix_seed.formats.oci.manifest import Descriptor, MediaType, Platform, platform_of
from nix_seed.formats.oci.reference import LayoutReference, Reference
from nix_seed.registry.credentials import Keyring
from nix_seed.registry.errors import Patience
from nix_seed.registry.layout import Layout
from nix_seed.registry.layout_store import LayoutStore
from nix_seed.registry.store import Fetched, ImageStore

if TYPE_CHECKING:
    from nix_seed.registry.client import Repository
    from nix_seed.registry.session import Session

AnyReference = Reference | LayoutReference


JOBS = 4


@dataclass(frozen=True, slots=True)
class Stores:
    """Opens stores, each registry once, so that its connections and tokens are shared.

    *jobs* blobs are moved at once. Without a *keyring* the user's own files and environment are
    asked for credentials.
    """

    keyring: Keyring | None = None
    plain_http: bool = False
    patience: Patience | None = None
    ca_file: str | None = None
    jobs: int = JOBS
    _sessions: dict[str, Session] = field(default_factory=dict, repr=False)

    def open(
        self, reference: AnyReference, *, create: bool = False, mount_from: tuple[str, ...] = ()
    ) -> ImageStore:
        """Open the store of *reference*; *create* makes a layout that is not there yet."""
        if isinstance(reference, LayoutReference):
            directory = Path(reference.directory)
            return LayoutStore(Layout.create(directory) if create else Layout.open(directory))
        return self.repository(reference, mount_from)

    def repository(self, reference: Reference, mount_from: tuple[str, ...] = ()) -> Repository:
        """Open the repository of *reference*; nothing is asked yet."""
        # Only here: layouts on disk need no HTTP, whose library takes a while to import.
        from nix_seed.registry.client import Repository

        return Repository(self.session(reference.registry), reference, mount_from)

    def session(self, host: str) -> Session:
        """Return what speaks to the registry *host*."""
        from nix_seed.registry.session import Session

        if host not in self._sessions:
            self._sessions[host] = Session(
                host,
                self.credentials,
                patience=self.patience or Patience(),
                plain_http=self.plain_http,
                ca_file=self.ca_file,
            )
        return self._sessions[host]

    @property
    def credentials(self) -> Keyring:
        """The keyring, or the user's own."""
        return self.keyring or Keyring(dict(os.environ), home())


def is_to_be_made(reference: AnyReference) -> bool:
    """Whether *reference* is of a layout that does not exist before something is put there."""
    if not isinstance(reference, LayoutReference):
        return False
    return Layout.is_to_be_made(Path(reference.directory))


def check_writable(stores: Stores, reference: AnyReference) -> None:
    """Raise where no image can be put at *reference*, before one is made. Nothing is put there.

    ``Denied`` names the permission that a registry wants; ``InputError`` is for a directory.
    """
    if not isinstance(reference, LayoutReference):
        stores.repository(reference).check_writable()
        return
    directory = Path(reference.directory)
    if not Layout.is_to_be_made(directory):
        Layout.open(directory)
    there = next(each for each in (directory, *directory.absolute().parents) if each.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise InputError(
            f"{directory} cannot be written: {there} is "
            + ("read-only for this user" if there.is_dir() else "a file"),
            hint="name another directory: oci:DIR:TAG",
        )


def holder_of(
    stores: Stores, references: Sequence[AnyReference], digest: Digest
) -> tuple[AnyReference, list[AnyReference]] | None:
    """Return the first of *references* whose store holds *digest*, and the rest of them."""
    for number, reference in enumerate(references):
        if stores.open(reference).head_manifest(digest) is not None:
            return reference, [*references[:number], *references[number + 1 :]]
    return None


def name_in(store: ImageStore, reference: AnyReference) -> str | Digest:
    """Return the tag or digest of *reference*; for a layout of one image, that image's digest."""
    if reference.name is not None:
        return reference.name
    if isinstance(store, LayoutStore):
        return store.only_image().digest
    raise InputError(f"{reference} names no image", hint=f"add a tag: {reference}:latest")


def find(stores: Stores, reference: AnyReference) -> Descriptor | None:
    """Return what *reference* names if it exists: one HEAD request, nothing fetched or verified.

    A layout that is not there holds nothing.
    """
    if isinstance(reference, LayoutReference) and not Path(reference.directory).exists():
        return None
    store = stores.open(reference)
    return store.head_manifest(name_in(store, reference))


def fetch_if_there(stores: Stores, reference: AnyReference) -> Fetched | None:
    """Return the manifest or index that *reference* names, by one GET request; None without one.

    A layout that is not there holds nothing.
    """
    if isinstance(reference, LayoutReference) and not Path(reference.directory).exists():
        return None
    store = stores.open(reference)
    return store.get_manifest(name_in(store, reference))


def fetch(store: ImageStore, reference: AnyReference) -> Fetched:
    """Return the manifest or index that *reference* names; ``InputError`` if there is none."""
    found = store.get_manifest(name_in(store, reference))
    if found is None:
        tags = store.list_tags()
        shown = ", ".join(tags[:10]) + (" …" if len(tags) > 10 else "")
        raise InputError(f"{reference} does not exist", hint=f"{store} has {shown or 'no tags'}")
    return found


def choose_system(store: ImageStore, root: Fetched, system: str) -> Fetched:
    """Return the image for *system*: of an index the one child, of an image the image itself."""
    if root.descriptor.media_type != MediaType.INDEX:
        return root
    label = f"{store}@{root.descriptor.digest}"
    wanted = platform_of(system)
    index = root.index(label)
    found = [child for child in index.manifests if _is_for(child, wanted)]
    if len(found) != 1:
        there = ", ".join(sorted(map(_shown, index.manifests))) or "none"
        raise InputError(
            f"{label} has {len(found) or 'no'} images for {system}", hint=f"it has: {there}"
        )
    chosen = store.get_manifest(found[0].digest)
    if chosen is None:
        raise CheckedFalse(
            f"{label} names the image {found[0].digest}, which {store} does not have"
        )
    return chosen


def _is_for(child: Descriptor, wanted: Platform) -> bool:
    has = child.platform
    if has is None or (has.os, has.architecture) != (wanted.os, wanted.architecture):
        return False
    # Many indexes leave the variant of arm64 out: there is but one.
    return has.variant in (None, wanted.variant)


def _shown(child: Descriptor) -> str:
    has = child.platform
    if has is None:
        return str(child.digest)
    return "/".join(part for part in (has.os, has.architecture, has.variant) if part)
