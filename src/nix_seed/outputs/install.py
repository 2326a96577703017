"""Takes a promoted output into a store: just what the quorum stands for, or nothing."""

from collections.abc import Sequence
from dataclasses import replace

from nix_seed.core.errors import CheckedFalse, NixFailed
from nix_seed.core.events import Stage, listener, tell
from nix_seed.core.values import dataclass
from nix_seed.flake.nix import Nix
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.outputs.cache import Decide, OutputCache
from nix_seed.outputs.open import fresh_key
from nix_seed.outputs.rules.agreed import NotServed, Served
from nix_seed.outputs.server import CacheServer, serving
from nix_seed.outputs.words import WordReader
from nix_seed.registry.open import AnyReference
from nix_seed.release.rules.tree import OutputLeaf, ReleasedOutputs
from nix_seed.release.verifiers import Verifiers
from nix_seed.trust.attestations import Attestation


@dataclass(frozen=True, slots=True)
class Promise:
    """The promoted *output*, and all that was *released* with it."""

    output: OutputLeaf
    released: ReleasedOutputs

    @property
    def wanted(self) -> dict[StorePath, object]:
        """The NAR hash of each promoted path for the same system."""
        leaves = (leaf for leaf in self.released.leaves if leaf.system == self.output.system)
        return {leaf.path: leaf.nar_hash for leaf in leaves}


def install(by: Verifiers, place: AnyReference, promise: Promise, nix: Nix) -> None:
    """Have the output and its closure in the store of *nix*.

    What was promoted is taken from *place*, and only with the promoted NAR hash; the rest of the
    closure, which the seed holds, from wherever this Nix takes paths. ``CheckedFalse`` where the
    store has, before or after, another NAR at a promoted path.
    """
    output, key = promise.output, fresh_key()
    cache = OutputCache(by.stores.open(place), _exactly(by, promise), key, on_event=listener())
    tell(Stage("install", f"taking {output.path}"))
    with serving(CacheServer(cache)) as here:
        more = {
            "extra-substituters": here.url,
            "extra-trusted-public-keys": key.public,
            "narinfo-cache-negative-ttl": "0",
            "narinfo-cache-positive-ttl": "0",
        }
        taking = replace(nix, settings={**nix.settings, **more})
        arguments = ["--realise", "--no-gc-warning", str(output.path)]
        try:
            taking.run("nix-store", arguments, f"taking {output.path}")
        except NixFailed as error:
            raise NixFailed(
                f"Nix cannot take {output.path}",
                detail=error.detail,
                hint="the rest of its closure lies in the seed: nix-seed hydrate "
                f"{place.at(str(output.commit))}; where a daemon builds, only its trusted users "
                "may name a cache (trusted-users in nix.conf)",
            ) from error
    wanted = promise.wanted
    for path, info in nix.closure([output.path]).items():
        if path in wanted and wanted[path] != info.nar_hash:
            raise CheckedFalse(
                f"this store has {info.nar_hash} at {path}, and promoted is {wanted[path]}",
                hint=f"what was there before is another build: nix-store --delete {path}",
            )


def _exactly(by: Verifiers, promise: Promise) -> Decide:
    """Return what lets only promoted NARs pass, and these only on a quorum's word."""
    reader = WordReader(replace(by, policy=replace(by.policy, outputs="quorum")))
    wanted = promise.wanted

    def decide(
        path: StorePath, bundles: Sequence[Attestation], unread: Sequence[str] = ()
    ) -> Served | NotServed:
        found = reader.decide(path, bundles, unread)
        if isinstance(found, Served) and wanted.get(path) != found.nar_hash:
            return NotServed(f"{path} was not promoted as {found.nar_hash}")
        return found

    return decide
