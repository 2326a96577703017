"""An image that can be mounted: its manifest, spec and table of contents, and only the last layer.

Everything that is used of a layer is checked by the table; the table lies in the last layer, which
has its digest in the manifest. What the table says of a layer's size and paths is compared with
manifest and spec before anything is mounted.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, InputError, NixSeedError
from nix_seed.core.values import dataclass
from nix_seed.formats.oci.manifest import EMPTY, Manifest, MediaType
from nix_seed.image.read.spec import RemoteSeed, read_seed
from nix_seed.image.read.stream import BlobReader
from nix_seed.image.rules.contents import parse_contents
from nix_seed.registry.store import Fetched, ImageStore, put_bytes
from nix_seed.use.mount.frame_file import MountedLayer
from nix_seed.use.mount.linux import NotMountable
from nix_seed.use.rules import prefetch, written as hints


@dataclass(frozen=True, slots=True)
class MountableSeed:
    """What is needed to mount a seed; *first* is what an earlier build read of it.

    That build *written* into its store what evaluating writes, by names that prove it. Its registry
    answered within *round_trip* seconds.
    """

    seed: RemoteSeed
    image: Digest
    layers: tuple[MountedLayer, ...]
    first: prefetch.Frames
    written: Mapping[str, bytes] = field(default_factory=dict)
    round_trip: float = 0.0


def open_mountable(
    name: str,
    root: Fetched,
    source: ImageStore,
    last: Callable[[], BlobReader] | None = None,
    *,
    written: bool = True,
) -> MountableSeed:
    """Read what mounting the image *root* takes; *last* brings what holds its last layer.

    What evaluating wrote is fetched only where it is to be *written* into a store. Raises
    ``NotMountable`` where the image has to be unpacked: made by an older release, compressed with
    gzip, or in a registry that gives no parts of blobs. ``CheckedFalse`` where its parts disagree.
    """
    manifest = root.manifest(name)
    hint = _Hint(source, root.descriptor.digest, written=written)
    hint.start()
    # Side by side: each of these is a round trip.
    ranges: list[bool] = []
    took: list[float] = []

    def probe() -> None:
        begun = time.monotonic()
        ranges.append(_gives_ranges(source, manifest))
        took.append(time.monotonic() - begun)

    probing = threading.Thread(target=probe, daemon=True)
    probing.start()
    seed = read_seed(name, root, source if last is None else last())
    if not seed.spec.has_contents:
        raise NotMountable(f"{name} has no table of contents: it is of an older format, or gzip")
    layers = mounted_layers(seed)
    probing.join()
    if ranges != [True]:
        raise NotMountable(f"{source} gives no parts of blobs")
    hint.join()
    return MountableSeed(seed, root.descriptor.digest, layers, hint.frames, hint.written, took[0])


def mounted_layers(seed: RemoteSeed) -> tuple[MountedLayer, ...]:
    """Read the table of *seed*; ``CheckedFalse`` where manifest or spec say otherwise."""
    try:
        tables = parse_contents(seed.contents, f"the table of contents of {seed.name}")
    except InputError as error:
        raise CheckedFalse(
            error.message, hint="the image was not made by nix-seed, or was altered: get it again"
        ) from error
    if len(tables) != len(seed.spec.layers):
        raise _lies(seed, f"lists {len(tables)} layers, its spec {len(seed.spec.layers)}")
    pairs = zip(seed.manifest.layers[:-1], tables, seed.spec.layers, strict=True)
    for number, (layer, table, group) in enumerate(pairs, 1):
        if layer.media_type != MediaType.LAYER_ZSTD or layer.size != table.blob_size:
            raise _lies(seed, f"has other frames than layer {number}")
        names = sorted(path.base_name.encode() for path in group.paths)
        if names != [table.names[node] for node in table.roots()]:
            raise _lies(seed, f"lists other store paths in layer {number} than its spec")
    return tuple(map(MountedLayer, seed.manifest.layers, tables))


def keep_hint(
    store: ImageStore,
    seed: MountableSeed,
    read: Sequence[tuple[int, int]],
    files: Mapping[str, bytes],
) -> str:
    """Put beside the image what a build has *read*, after what is listed there; return the tag.

    So with what it wrote, of which those *files* are sent that make what the image holds.
    """
    nothing, held = put_bytes(store, MediaType.EMPTY, EMPTY), seed.seed.spec.paths
    before = _Hint(store, seed.image, written=True)
    before.run()
    proved = hints.prove_written({**before.written, **files}, held)
    data = hints.dump_written(hints.choose_sent(proved, held))
    manifest = Manifest(
        config=nothing,
        layers=(put_bytes(store, hints.MEDIA_TYPE, data) if data else nothing,),
        annotations={prefetch.ANNOTATION: prefetch.dump_prefetch((*seed.first, *read))},
        artifact_type=prefetch.ARTIFACT_TYPE,
    )
    tag = _tag(seed.image)
    store.put_manifest(manifest.dump(), MediaType.MANIFEST, tag)
    return tag


class _Hint(threading.Thread):
    """Asks for what lies beside an image and proves nothing: without any of it, all goes on."""

    def __init__(self, source: ImageStore, image: Digest, *, written: bool) -> None:
        super().__init__(daemon=True)
        self._source, self._image, self._wanted = source, image, written
        self.frames: prefetch.Frames = ()
        self.written: Mapping[str, bytes] = {}

    def run(self) -> None:
        """Fill *frames* and, where it is wanted, *written*."""
        with contextlib.suppress(NixSeedError):
            found = self._source.get_manifest(_tag(self._image))
            if found is None:
                return
            manifest = Manifest.parse(found.body, "a prefetch list")
            self.frames = prefetch.parse_prefetch(manifest.annotations.get(prefetch.ANNOTATION, ""))
            for blob in manifest.layers if self._wanted else ():
                if blob.media_type == hints.MEDIA_TYPE and blob.size <= hints.LARGEST:
                    self.written = hints.parse_written(b"".join(self._source.open_blob(blob)))


def _tag(image: Digest) -> str:
    return f"sha256-{image.hex}.prefetch"


def _gives_ranges(source: ImageStore, manifest: Manifest) -> bool:
    with contextlib.suppress(NixSeedError):
        return bool(manifest.layers) and source.gives_ranges(manifest.layers[0])
    return False


def _lies(seed: RemoteSeed, problem: str) -> CheckedFalse:
    return CheckedFalse(
        f"the table of contents of {seed.name} {problem}",
        hint="the image was not made by nix-seed, or was altered: get it again",
    )
