"""Seeds of small store paths, whole or spoilt, in a layout; and what Nix says of a store."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from nix_seed.core.digests import DiffID, Digest
from nix_seed.flake.rules.outline import ImageConfig
from nix_seed.formats.nix.store_path import PathInfo
from nix_seed.formats.oci.manifest import Descriptor, MediaType
from nix_seed.image.assemble import StoreFiles
from nix_seed.image.rules.frames import Compressor, Name
from nix_seed.image.rules.layer import write_entries_layer, write_layer
from nix_seed.image.rules.partition.plan import Group
from nix_seed.image.rules.spec import Spec, build_image, container_entries
from nix_seed.registry.layout import Layout
from nix_seed.registry.layout_store import LayoutStore
from support.distribution import nix_env
from support.nars import Tree
from support.trees import put

Blob = tuple[str, bytes]
"""A layer's media type and its bytes."""


def spec_of(groups: Sequence[Sequence[PathInfo]], compressor: Compressor) -> Spec:
    """A seed of one layer a group, all in the tier ``packages``."""
    return Spec(
        kind="seed",
        name="tiny",
        system="x86_64-linux",
        config=ImageConfig(),
        files=(),
        inputs={},
        tiers=("base", "toolchain", "packages"),
        paths={info.path: info for group in groups for info in group},
        layers=tuple(
            Group("packages", tuple(sorted(info.path for info in group))) for group in groups
        ),
        compressor=compressor,
    )


def layers_of(spec: Spec, root: Path) -> list[Blob]:
    """The product's own layers of *spec*, its paths lying in the store below *root*."""
    blobs = []
    for group in spec.layers:
        sink = io.BytesIO()
        infos = [spec.paths[path] for path in group.paths]
        write_layer(infos, spec.compressor, StoreFiles(root), sink)
        blobs.append((spec.compressor.media_type, sink.getvalue()))
    return blobs


def contents_of(spec: Spec, root: Path) -> list[bytes]:
    """What the layers of *spec* add to the table of contents."""
    return [
        write_layer(
            [spec.paths[path] for path in group.paths],
            spec.compressor,
            StoreFiles(root),
            io.BytesIO(),
        ).contents
        for group in spec.layers
    ]


def put_seed(
    directory: Path,
    spec: Spec,
    blobs: Sequence[Blob],
    tag: str = "seed",
    contents: Sequence[bytes] = (),
) -> str:
    """Put the image of *spec* with these layers, right or not, into a layout; return ``oci:…``."""
    last = io.BytesIO()
    # Layers that may be wrong have no table of contents; what is unpacked needs none.
    finished = write_entries_layer(container_entries(spec, contents), spec.compressor, last)
    store = LayoutStore(Layout.create(directory))
    pairs = []
    for media_type, blob in [*blobs, (spec.compressor.media_type, last.getvalue())]:
        layer = Descriptor(media_type, Digest.of(blob), len(blob))
        _take(store, layer, blob)
        pairs.append((layer, DiffID.of(blob)))  # hydrate has no use for diffIDs
    pairs[-1] = finished.descriptor, finished.diff_id
    documents = build_image(spec, pairs)
    config = documents.config
    _take(store, Descriptor(MediaType.CONFIG, Digest.of(config), len(config)), config)
    store.put_manifest(documents.manifest, MediaType.MANIFEST, tag)
    return f"oci:{directory}:{tag}"


def _take(store: LayoutStore, blob: Descriptor, data: bytes) -> None:
    store.take_blob(blob, lambda held: iter([data[held.size :]]))


def make_seed(
    directory: Path, groups: Sequence[Mapping[str, Tree]], name: Name = "zstd"
) -> tuple[str, Spec]:
    """Make trees store paths, chained by references, and a seed of them, one layer a group."""
    infos: list[list[PathInfo]] = []
    below: tuple[PathInfo, ...] = ()
    for group in groups:
        infos.append([])
        for tree in group:
            info = put(directory / "root", tree, group[tree])
            info = replace(info, references=tuple(each.path for each in below))
            infos[-1].append(info)
            below = (info,)
    spec = spec_of(infos, Compressor.at_hand(name))
    contents = contents_of(spec, directory / "root")
    blobs = layers_of(spec, directory / "root")
    return put_seed(directory / "image", spec, blobs, contents=contents), spec


def verify(root: Path, **settings: str) -> None:
    """Have Nix verify the store below *root*, contents and all; nothing may be wrong."""
    command = ["nix-store", "--store", str(root), "--verify", "--check-contents"]
    for name, value in settings.items():
        command += ["--option", name.replace("_", "-"), value]
    done = subprocess.run(command, env=nix_env(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    wrong = [line for line in done.stderr.splitlines() if not line.endswith("...")]
    assert wrong == [], done.stderr


def query(root: Path, *arguments: str) -> list[str]:
    """Ask ``nix-store --query`` about the store below *root*."""
    command = ["nix-store", "--store", str(root), "--query", *arguments]
    done = subprocess.run(command, env=nix_env(), capture_output=True, text=True, check=True)
    return done.stdout.split()


def names_in(root: Path) -> set[str]:
    """Everything that lies directly in the store, Nix's own links directory left out."""
    return {name for name in os.listdir(root / "nix/store") if name != ".links"}
