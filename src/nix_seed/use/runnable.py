"""An image, ready to run commands in: mounted or, where that cannot be, unpacked."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from nix_seed.core.events import ignore
from nix_seed.core.values import dataclass
from nix_seed.registry.layout import Image
from nix_seed.registry.open import AnyReference, Stores, choose_system, fetch
from nix_seed.use.engines import choose_engine
from nix_seed.use.engines.base import Engine
from nix_seed.use.engines.mounted import mounted_engine
from nix_seed.use.mount.linux import NotMountable

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Runnable:
    """The image *reference*, of an index *system*'s, which is mounted only if *mounts*.

    *cache* is where images are kept, unpacked or mounted, and *layout* where one is pulled to that
    is not mounted. It is run by *engine* then; None is the first that works here.
    """

    stores: Stores
    reference: AnyReference
    system: str
    cache: Path
    layout: Path
    engine: str | None = None
    mounts: bool = True
    fills: bool = True

    def use(
        self, work: Callable[[Image, Engine], _T], told: Callable[[str], object] = ignore
    ) -> _T:
        """Return what *work* does with the image mounted; else *told* is told why it is not.

        *work* is begun anew where it read what could not be fetched. What is unpacked already is
        not mounted. A mount *fills* with what nobody reads as well, unless told not to.
        """
        if self.mounts:
            source = self.stores.open(self.reference)
            root = choose_system(source, fetch(source, self.reference), self.system)
            digest = root.descriptor.digest
            name, unpacked = str(self.reference.at(digest)), f"roots/sha256-{digest.hex}"
            try:
                if not (self.cache / unpacked).is_dir():
                    with mounted_engine(self.cache, root, source, name, fills=self.fills) as opened:
                        return work(*opened)
            except NotMountable as error:
                told(error.message)
        # Only here: who mounts an image moves none.
        from nix_seed.registry.transfer import open_here

        image = open_here(self.stores, self.reference, self.layout, self.system)
        return work(image, choose_engine(self.engine, self.cache))
