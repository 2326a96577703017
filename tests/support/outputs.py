"""Builders that made a project's packages, say so, and keep the NARs in one repository."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nix_seed.core.digests import Digest, encode_nix32
from nix_seed.formats.intoto.bundle import BUNDLE_V03
from nix_seed.formats.nix.store_path import PathInfo, StorePath
from nix_seed.outputs.kept import keep, put_config
from nix_seed.outputs.rules.kept import NAR_TYPE, KeptOutput, Stored
from nix_seed.outputs.rules.statement import OutputFact, OutputsStatement, make_statement
from nix_seed.outputs.sign import SignedOutputs, list_statement, sign_outputs
from nix_seed.registry.client import Repository
from nix_seed.trust.attestations import Attestation
from nix_seed.trust.sign import KeySigner
from support.attestations import put
from support.nars import Directory, NarFile, Tree, dump, nar_hash
from support.trust import COMMIT, SOURCE, SYSTEM, World

__all__ = ["OutputsWorld", "file_tree", "store_path"]

SEED = Digest.of(b"the seed")


def store_path(name: str) -> StorePath:
    """A store path whose hash says nothing of its contents, as built ones are."""
    return StorePath(f"{encode_nix32(Digest.of(name.encode()).raw[:20])}-{name}")


def file_tree(**files: str) -> Tree:
    """A directory of text files."""
    entries = {name.encode(): NarFile(text.encode()) for name, text in files.items()}
    return Directory(entries)


class OutputsWorld(World):
    """Three packages, of which ``tool`` is built from ``library`` and ``site`` from neither.

    *trees* are what an honest builder gets; ``made`` says what one got instead.
    """

    def __init__(self, root: Path, store: Repository | None = None) -> None:
        super().__init__(root, store)
        self.trees: dict[str, Tree] = {
            "library": file_tree(lib="the library", about="version 1"),
            "tool": file_tree(program="calls the library", about="version 1"),
            "site": file_tree(index="hello"),
        }

    def facts(self, made: Mapping[str, Tree] | None = None) -> tuple[OutputFact, ...]:
        """What a builder finds in its store."""
        library = store_path("library")
        found = []
        for name, tree in (self.trees | dict(made or {})).items():
            digest, size = nar_hash(tree)
            uses = (library,) if name == "tool" else ()
            path, drv = store_path(name), store_path(f"{name}.drv")
            found.append(OutputFact(path, digest, size, uses, drv, uses, (f"packages.{name}",)))
        return tuple(sorted(found, key=lambda fact: fact.path))

    def states(self, who: str, *facts: OutputFact, **changes: Any) -> OutputsStatement:
        """What *who* states of *facts* (those of an honest builder), with *changes*."""
        said = OutputsStatement(
            source=SOURCE,
            commit=COMMIT,
            system=SYSTEM,
            seed=SEED,
            builder=who,
            finished_on="2026-01-31T12:34:56Z",
            outputs=facts or self.facts(),
        )
        return replace(said, **changes)

    def build(
        self,
        who: str,
        made: Mapping[str, Tree] | None = None,
        key: str | None = None,
        **changes: Any,
    ) -> SignedOutputs:
        """Have *who*, signing with *key*, push what it *made*, and say so."""
        said = self.states(who, *self.facts(made), **changes)
        return self.push(said, self.keys[key or who], self.trees | dict(made or {}))

    def push(
        self, said: OutputsStatement, key: KeySigner, trees: Mapping[str, Tree]
    ) -> SignedOutputs:
        """Sign and log *said*, keep the NARs of *trees*, and list all of it."""
        (signed,) = sign_outputs(said, key, [self.log])
        put_config(self.store)
        for fact in said.outputs:
            self.keep(fact, trees[fact.path.name], signed, key.identity)
        list_statement(self.store, signed)
        return signed

    def keep(self, fact: OutputFact, tree: Tree, signed: SignedOutputs, who: str) -> None:
        """Keep the NAR of *tree* as that of *fact*, with the bundle that vouches for it."""
        import zstandard

        blob = zstandard.compress(b"".join(dump(tree)))
        stored = [self._stored(blob, NAR_TYPE), self._stored(signed.bundles[0], BUNDLE_V03)]
        info = PathInfo(fact.path, fact.nar_hash, fact.nar_size, fact.references)
        keep(
            self.store,
            KeptOutput(
                info.path,
                info.nar_hash,
                info.nar_size,
                stored[0],
                (stored[1],),
                str(signed.said.commit),
                who,
                signed.said.finished_on,
                fact.deriver,
                info.references,
            ),
        )

    def _stored(self, text: bytes, kind: str) -> Stored:
        put(self.store, text, kind)
        return Stored(Digest.of(text), len(text))


def bundles_of(*signed: SignedOutputs) -> list[Attestation]:
    """What a reader finds, with its place."""
    return [Attestation("here", bundle) for each in signed for bundle in each.bundles]


def payload_of(said: OutputsStatement) -> bytes:
    """The bytes that are signed of *said*."""
    return make_statement(said).dump()
