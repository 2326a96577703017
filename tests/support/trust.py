"""A small world of builders: a real image, real keys, a real log, and a policy that knows them."""

from __future__ import annotations

import copy
import io
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self, cast

from nix_seed.core.digests import DiffID, Digest, encode_nix32
from nix_seed.flake.rules.outline import ImageConfig
from nix_seed.formats.intoto.bundle import Bundle
from nix_seed.formats.intoto.statement import (
    BUILD_TYPE,
    PAYLOAD_TYPE,
    BuildPredicate,
    Commit,
    LayerDigests,
    NixFacts,
    PathCounts,
    Source,
    build_statement,
)
from nix_seed.formats.nix.store_path import PathInfo, StorePath
from nix_seed.formats.oci.manifest import About, Descriptor, MediaType
from nix_seed.image.assemble import StoreFiles
from nix_seed.image.rules.frames import Compressor
from nix_seed.image.rules.layer import write_entries_layer, write_layer
from nix_seed.image.rules.partition.plan import Group
from nix_seed.image.rules.spec import Spec, build_image, container_entries
from nix_seed.logs.embedded import EmbeddedLog
from nix_seed.registry.client import Repository
from nix_seed.registry.layout import Layout
from nix_seed.registry.layout_store import LayoutStore
from nix_seed.registry.store import ImageStore
from nix_seed.release.attest import attach_to_commit
from nix_seed.trust.attestations import attach_bundle
from nix_seed.trust.sign import KeySigner, Signed
from support.attestations import put
from support.nars import Directory, NarFile, Tree, nar_hash
from support.remembered import Files, read_tree, remembered, write_tree
from support.trees import make

COMMIT = Commit("c0ffee" + "0" * 34)
OTHER_COMMIT = Commit("badbad" + "0" * 34)
SOURCE = "https://forge.example/owner/project"
SYSTEM = "x86_64-linux"

TREES: dict[str, Tree] = {
    "glibc-2.36": Directory({b"lib": Directory({b"libc.so": NarFile(b"the C library")})}),
    "gcc-12.2.0": Directory({b"bin": Directory({b"gcc": NarFile(b"#!compiler", executable=True)})}),
}
TAMPERED: dict[str, Tree] = TREES | {
    "gcc-12.2.0": Directory({b"bin": Directory({b"gcc": NarFile(b"#!backdoor", executable=True)})})
}


@dataclass(frozen=True, slots=True)
class MadeImage:
    """An image in a store, and what is to be said of it."""

    descriptor: Descriptor
    spec: Spec
    layers: tuple[LayerDigests, ...]


def make_image(
    store: ImageStore, root: Path, tag: str, trees: dict[str, Tree], system: str = SYSTEM
) -> MadeImage:
    """Put a seed of *trees*, one layer each, into *store*, as the product itself would."""
    infos = [_path(root, name, tree) for name, tree in trees.items()]
    spec = _spec(infos, system)
    pairs, blobs, contents = [], [], []
    for group in spec.layers:
        sink = io.BytesIO()
        done = write_layer(
            [spec.paths[path] for path in group.paths], spec.compressor, StoreFiles(root), sink
        )
        pairs.append((done.descriptor, done.diff_id))
        blobs.append(sink.getvalue())
        contents.append(done.contents)
    sink = io.BytesIO()
    done = write_entries_layer(container_entries(spec, contents), spec.compressor, sink)
    pairs.append((done.descriptor, done.diff_id))
    for blob in (*blobs, sink.getvalue()):
        put(store, blob, MediaType.LAYER_ZSTD)
    documents = build_image(spec, pairs)
    put(store, documents.config, MediaType.CONFIG)
    descriptor = store.put_manifest(documents.manifest, MediaType.MANIFEST, tag)
    layers = tuple(LayerDigests(one.digest, DiffID(two.hex)) for one, two in pairs)
    return MadeImage(descriptor, spec, layers)


def _path(root: Path, name: str, tree: Tree) -> PathInfo:
    """Make *tree* a store path whose name says nothing of its contents, as built ones are."""
    path = StorePath(f"{encode_nix32(Digest.of(name.encode()).raw[:20])}-{name}")
    where = root / "nix/store"
    where.mkdir(parents=True, exist_ok=True)
    make(tree, os.fsencode(where / path.base_name))
    digest, size = nar_hash(tree)
    return PathInfo(path, digest, size, ())


def _spec(infos: Sequence[PathInfo], system: str) -> Spec:
    return Spec(
        kind="seed",
        name="tiny",
        system=system,
        config=ImageConfig(cmd=("/bin/sh",)),
        files=(),
        inputs={},
        tiers=("base", "toolchain", "packages"),
        paths={info.path: info for info in infos},
        layers=tuple(Group("toolchain", (info.path,)) for info in infos),
        compressor=Compressor.at_hand(),
    )


class World:
    """Images, keys, a log; and what the tests do with them. Everything lies below *root*."""

    BUILDERS = ("alice", "bob", "carol")

    def __init__(self, root: Path, repository: Repository | None = None) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root = root
        self.directory = root / "images"
        self.store: ImageStore = repository or LayoutStore(Layout.create(self.directory))
        self.reference = f"{repository or f'oci:{self.directory}'}:seed"
        self.keys = {name: KeySigner.generate() for name in (*self.BUILDERS, "mallory")}
        self.log = EmbeddedLog.create(root / "log", "log.example")
        self.image = make_image(self.store, root / "good", "seed", TREES)
        self.other = make_image(self.store, root / "bad", "tampered", TAMPERED)
        self.arguments: list[str] = ["--commit", str(COMMIT)]
        self.head: dict[str, str] = {
            "version": "1",
            "epoch": "1",
            "expires": "2126-01-01T00:00:00Z",
            "systems": f'["{SYSTEM}"]',
            "source": f'"{SOURCE}"',
        }
        self.quorum: dict[str, str] = {"threshold": "2", "distinct": '["operator"]', "logs": "1"}
        self.built: dict[str, str] = {}
        self.builders: dict[str, dict[str, str]] = {
            name: {"operator": f'"{name} ltd"', "key": pem(self.keys[name])}
            for name in self.BUILDERS
        }
        self.logs: list[dict[str, str]] = [
            {
                "id": '"log"',
                "kind": '"tiles"',
                "origin": '"log.example"',
                "key": f'"{self.log.trusted.key}"',
            }
        ]
        self.witnesses: list[dict[str, str]] = []
        self.promoters: dict[str, dict[str, str]] = {}
        self.sigstore: dict[str, str] = {}

    @classmethod
    def fresh(cls, root: Path) -> Self:
        """Return a new world below *root*, with the keys that all fresh worlds of its kind have."""
        if cls not in _FIRST:
            with TemporaryDirectory() as first:
                _FIRST[cls] = cls(Path(first)), read_tree(Path(first))
        world, files = _FIRST[cls]
        root.mkdir(parents=True, exist_ok=True)
        write_tree(root, files)
        return cast(Self, world).at(root)

    def moved(self, root: Path) -> Self:
        """Return a copy of this world, below *root*."""
        shutil.copytree(self.root, root)
        return self.at(root)

    def at(self, root: Path) -> Self:
        """Return this world where its files have been copied to *root*."""
        mine = copy.copy(self)
        mine.root, mine.directory = root, root / "images"
        mine.store = LayoutStore(Layout.open(mine.directory))
        mine.reference = f"oci:{mine.directory}:seed"
        mine.log = EmbeddedLog.open(root / "log")
        for name, value in vars(self).items():
            if isinstance(value, dict | list):
                setattr(mine, name, copy_of(value))
        return mine

    def outside(self) -> object | None:
        """What deeds depend on beside the files, for ``remembered``."""
        # What a registry or a server keeps is not among the files.
        if not isinstance(self.store, LayoutStore) or not isinstance(self.log, EmbeddedLog):
            return None
        log = self.log.directory
        if not log.is_relative_to(self.root):
            return None
        keys = {name: key.public_key.pem for name, key in self.keys.items()}
        images = [each.descriptor for each in vars(self).values() if isinstance(each, MadeImage)]
        # The one thing that tests replace in the product while something is done.
        how = About.annotations.__qualname__
        return type(self), self.policy(), keys, images, str(log.relative_to(self.root)), how

    def policy(self) -> str:
        """The text of ``trust.toml`` as it now is."""
        parts = [_table("", self.head), _table("[quorum]", self.quorum)]
        if self.sigstore:
            parts.append(_table("[sigstore]", self.sigstore))
        if self.built:
            parts.append(_table("[built]", self.built))
        for name, builder in self.builders.items():
            parts.append(_table("[[builders]]", {"id": f'"{name}"'} | builder))
        parts += [_table("[[logs]]", log) for log in self.logs]
        parts += [_table("[[witnesses]]", witness) for witness in self.witnesses]
        for name, promoter in self.promoters.items():
            parts.append(_table("[[promoters]]", {"id": f'"{name}"'} | promoter))
        return "\n".join(parts)

    def write_policy(self) -> Path:
        """Write it, and return where."""
        path = self.root / "trust.toml"
        path.write_text(self.policy())
        return path

    def says(self, who: str, image: MadeImage | None = None, **changes: Any) -> BuildPredicate:
        """What *who* says of *image* (the good one), with *changes*."""
        about = image or self.image
        said = BuildPredicate(
            source=Source(SOURCE, COMMIT, Digest.of(b"flake.lock")),
            system=about.spec.system,
            nar_hash=about.spec.nar_hash,
            layers=about.layers,
            image_digest=about.descriptor.digest,
            builder=who,
            nix=NixFacts("2.28.3", (), "true"),
            paths=PathCounts(2, 0, 0, 0),
            started_on="2026-01-31T12:00:00Z",
            finished_on="2026-01-31T12:34:56Z",
        )
        return replace(said, **changes)

    def sign(self, said: BuildPredicate, key: str | KeySigner | None = None) -> Signed:
        """Sign with *key* (that of whom it names as builder)."""
        signer = key if isinstance(key, KeySigner) else self.keys[key or said.builder]
        return signer.sign(PAYLOAD_TYPE, build_statement(said, "forge.example").dump())

    def bundle(self, signed: Signed, *logs: EmbeddedLog) -> Bundle:
        """Log what is signed to each of *logs* (the world's own), and bundle it."""
        verifier = signed.verifier
        entries = [log.append(signed.envelope, verifier) for log in logs or (self.log,)]
        return signed.logged(tuple(entries))

    def attach(
        self, bundle: Bundle | bytes, image: MadeImage | None = None, commit: Commit | None = COMMIT
    ) -> Descriptor:
        """Attach to *image* (the good one), and list under *commit*."""
        text = bundle if isinstance(bundle, bytes) else bundle.dump()
        about = (image or self.image).descriptor
        done = attach_bundle(self.store, about, text, BUILD_TYPE)
        if commit is not None:
            attach_to_commit(self.store, commit, text)
        return done

    @remembered
    def publish(self, /, *names: str, image: MadeImage | None = None, **changes: Any) -> None:
        """Have each builder state, sign, log and attach."""
        for name in names:
            self.attach(self.bundle(self.sign(self.says(name, image, **changes))), image)


def quoted(text: str) -> str:
    """A TOML string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def pem(signer: KeySigner) -> str:
    return f'"""\n{signer.public_key.pem.decode()}"""'


def _table(header: str, values: dict[str, str]) -> str:
    lines = [header] if header else []
    return "\n".join([*lines, *(f"{key} = {value}" for key, value in values.items()), ""])


def copy_of(value: dict[str, Any] | list[Any]) -> Any:
    """Return *value* with its dictionaries and lists copied, and nothing else."""
    if isinstance(value, list):
        return [copy_of(each) if isinstance(each, dict | list) else each for each in value]
    return {k: copy_of(v) if isinstance(v, dict | list) else v for k, v in value.items()}


_FIRST: dict[type[World], tuple[World, Files]] = {}
