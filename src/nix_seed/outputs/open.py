"""From a reference and a policy to the cache in front of it, and the key that it signs by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CouldNotCheck, InputError
from nix_seed.core.events import OnEvent, ignore
from nix_seed.core.files import read_if_there, unnamed
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.image.rules.spec import Spec
from nix_seed.outputs.cache import MISS_LASTS, OutputCache
from nix_seed.outputs.push import BuiltIn
from nix_seed.outputs.rules.narinfo import CacheKey
from nix_seed.outputs.words import WordReader
from nix_seed.registry.open import AnyReference
from nix_seed.release.verifiers import Verifiers

_NAME: Final = "nix-seed-outputs"
_FILE: Final = "outputs-cache.key"


def open_cache(
    by: Verifiers,
    reference: AnyReference,
    key: CacheKey,
    held: Callable[[StorePath], bool] | None = None,
    on_event: OnEvent = ignore,
) -> OutputCache:
    """Return what answers Nix from the repository of *reference*, as the policy of *by* lets it.

    ``InputError`` where the policy lets it serve nothing.
    """
    if by.policy.outputs == "none":
        raise InputError(
            "the policy says that no output is taken: outputs is none",
            hint='to take what its builders signed, write outputs = "own" into the policy',
        )
    store, decide = by.stores.open(reference), WordReader(by).decide
    # Where builders must agree, what each path's own list says now is what counts.
    return OutputCache(store, decide, key, held, on_event, by.policy.outputs == "own")


def fresh_key() -> CacheKey:
    """Return a key for one run."""
    return CacheKey(_NAME, Ed25519PrivateKey.generate())


def kept_key(state: Path) -> CacheKey:
    """Return the key of this machine's cache, which lies in the directory *state*; make it once."""
    path = state / _FILE
    raw = read_if_there(path, 32)
    if raw is None:
        made = Ed25519PrivateKey.generate()
        with unnamed(state, f"writing {path}") as file:
            file.write(made.private_bytes_raw())
            file.keep(path, 0o600)
        return CacheKey(_NAME, made)
    if len(raw) != 32:
        raise CouldNotCheck(f"{path} holds no key", hint="remove it: another is made")
    return CacheKey(_NAME, Ed25519PrivateKey.from_private_bytes(raw))


# Seconds. Offline, Nix has one for all: a busy machine's own cache may take longer, and where
# nothing listens on loopback it is refused at once.
CONNECT_PATIENCE = 15


def settings_for(url: str, key: CacheKey) -> str:
    """Return the lines of nix.conf that have a Nix take from the cache at *url*, and build else.

    Nix turns substitution off where it sees no network but loopback, unless it is told. It
    remembers what a substituter said by its address, so each key gets an address of its own: what
    another run's cache said, signed by another key, must not be found there.
    """
    run = Digest.of(key.key.public_key().public_bytes_raw()).hex[:16]
    lines = {
        "substitute": "true",
        "substituters": f"{url}/run-{run}",
        "trusted-public-keys": key.public,
        "fallback": "true",
        # Without these Nix asks for each path five times in one build.
        "narinfo-cache-positive-ttl": "86400",
        "narinfo-cache-negative-ttl": str(MISS_LASTS),
        "download-attempts": "1",
        "connect-timeout": str(CONNECT_PATIENCE),
    }
    return "".join(f"{name} = {value}\n" for name, value in lines.items())


def built_in(image: Spec, digest: Digest) -> BuiltIn:
    """Return what a seed holds, what it withholds included: that only its vendor gives away."""
    withheld = {each.path for each in image.withheld}
    return BuiltIn(digest, image.system, frozenset(image.paths.keys() | withheld))
