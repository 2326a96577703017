"""One output, kept in a layout by a builder whom a policy knows, beside a stranger's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import zstandard

from nix_seed.core.digests import Digest
from nix_seed.formats.intoto.bundle import BUNDLE_V03
from nix_seed.formats.intoto.statement import Commit
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.formats.oci.manifest import Descriptor
from nix_seed.formats.oci.reference import LayoutReference
from nix_seed.logs.embedded import EmbeddedLog
from nix_seed.outputs.cache import OutputCache, OutputMissed
from nix_seed.outputs.kept import keep, put_config
from nix_seed.outputs.open import fresh_key, open_cache
from nix_seed.outputs.rules.kept import NAR_TYPE, KeptOutput, Stored
from nix_seed.outputs.rules.statement import OutputFact, OutputsStatement
from nix_seed.outputs.sign import sign_outputs
from nix_seed.registry.layout import Layout
from nix_seed.registry.layout_store import LayoutStore
from nix_seed.registry.store import Fetched, Held
from nix_seed.release.load import load_policy, verifiers_of
from nix_seed.trust.sign import KeySigner
from support.attestations import put
from support.nars import NarFile, dump, nar_hash
from support.output_world import SOURCE, policy_text

HASH = "0123456789abcdfghijklmnpqrsvwxyz"
PATH = StorePath.parse(f"/nix/store/{HASH}-greeting")
OTHER = StorePath.parse(f"/nix/store/{HASH[::-1]}-other")
TREE = NarFile(b"hello\n" * 100_000)
NAR = b"".join(dump(TREE))
NAR_HASH, NAR_SIZE = nar_hash(TREE)
BLOB = zstandard.compress(NAR)
FACT = OutputFact(PATH, NAR_HASH, NAR_SIZE, ())
NOW = "2026-01-31T12:00:00Z"


class Scene:
    """A layout, one builder whom the policy knows, and a stranger."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = LayoutStore(Layout.create(root / "kept"))
        self.alice, self.mallory = KeySigner.generate(), KeySigner.generate()
        self.log = EmbeddedLog.create(root / "log", "log.example")
        (root / "trust.toml").write_text(policy_text({"alice": self.alice}, self.log))
        self.events: list[object] = []
        put_config(self.store)

    def bundle(self, *facts: OutputFact, signer: KeySigner | None = None) -> Stored:
        """Have *signer* (alice) state *facts*."""
        said = OutputsStatement(
            source=SOURCE,
            commit=Commit("c0ffee" + "0" * 34),
            system="x86_64-linux",
            seed=Digest.of(b"seed"),
            builder="alice",
            finished_on=NOW,
            outputs=facts or (FACT,),
        )
        (signed,) = sign_outputs(said, signer or self.alice, [self.log])
        stored = put(self.store, signed.bundles[0], BUNDLE_V03)
        return Stored(stored.digest, stored.size)

    def blob(self, data: bytes = BLOB) -> Stored:
        """Store *data*."""
        stored = put(self.store, data, NAR_TYPE)
        return Stored(stored.digest, stored.size)

    def keep(self, fact: OutputFact = FACT, blob: Stored | None = None, **hints: object) -> None:
        """List *fact* as a builder would, with other *hints*."""
        kept = KeptOutput(
            path=fact.path,
            nar_hash=fact.nar_hash,
            nar_size=fact.nar_size,
            nar=blob or self.blob(),
            bundles=(self.bundle(fact),),
            commit="c0ffee" + "0" * 34,
            signer="alice",
            pushed=NOW,
        )
        keep(self.store, replace(kept, **hints))  # type: ignore[arg-type]

    def cache(self) -> OutputCache:
        """The cache in front of it."""
        loaded = load_policy(self.root / "trust.toml", datetime.now(UTC))
        where = LayoutReference(str(self.root / "kept"))
        return open_cache(verifiers_of(loaded), where, fresh_key(), None, self.events.append)

    @property
    def reasons(self) -> str:
        """What the cache has told."""
        told = (each.reason for each in self.events if isinstance(each, OutputMissed))
        return "\n".join(told)


class Counting(LayoutStore):
    """Notes what it is asked for."""

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        self.asked: list[str | Digest] = []

    def get_manifest(self, name: str | Digest, *, writing: bool = False) -> Fetched | None:
        self.asked.append(name)
        return super().get_manifest(name, writing=writing)

    def open_blob(self, blob: Descriptor, held: Held | None = None) -> Iterator[bytes]:
        self.asked.append(blob.digest)
        return super().open_blob(blob, held)


def many(scene: Scene, number: int) -> tuple[OutputCache, Counting, list[StorePath], Digest]:
    """A cache in front of that many paths, and the word on all of them."""
    paths = [StorePath.parse(f"/nix/store/{n:02d}{HASH[2:]}-p") for n in range(10, 10 + number)]
    facts = [replace(FACT, path=path) for path in paths]
    bundle = scene.bundle(*facts)
    for fact in facts:
        scene.keep(fact, bundles=(bundle,))
    cache, store = scene.cache(), Counting(Layout.open(scene.root / "kept"))
    cache.store = store
    return cache, store, paths, bundle.digest
