"""What a repository says of a store path that it keeps: an index at a tag made of the path's hash.

Each manifest of that index is one builder's: the NAR's blob and the bundle that vouches for it. The
descriptor repeats, in one annotation, what a binary cache is asked for, so that one request finds
it. All of that is only a hint: what is believed is the signed statement.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import field, replace
from typing import Annotated, ClassVar, Final

from nix_seed.core.declared import Declared, at, check_time, text_of
from nix_seed.core.digests import Digest, NarHash, exact_base64, to_base64
from nix_seed.core.errors import InputError
from nix_seed.core.values import dataclass
from nix_seed.formats.intoto.bundle import BUNDLE_V03
from nix_seed.formats.nix.store_path import HASH_PART, STORE_DIR, PathInfo, StorePath
from nix_seed.formats.oci.manifest import Descriptor, Manifest, MediaType

OUTPUT_TYPE: Final = "application/vnd.nix-seed.output.v1+json"
NAR_TYPE: Final = "application/vnd.nix-seed.nar.v1+zstd"
ANNOTATION: Final = "io.nix-seed.output"
TAG_PREFIX: Final = "out-"
MOST_REFERENCES: Final = 10_000
MOST_BUNDLES: Final = 10
"""Of one output: one for each log."""
MOST_KEPT: Final = 200
"""Of one path: that many are read, and no more written."""
NEWEST_TAG: Final = f"{TAG_PREFIX}newest"
"""Where all that was listed of the last push's commit stands once more, in one index."""
NEWEST_COMMIT: Final = "io.nix-seed.output.commit"
"""The annotation of that index which names the commit."""
LARGEST_INLINE: Final = 1 << 10
"""Bytes of a NAR's blob that goes along in it."""
_KEPT_TAG: Final = re.compile(rf"{TAG_PREFIX}{HASH_PART}(?:\.[0-9a-f]{{16}})?\Z")
_INLINE: Final = "io.nix-seed.output.nar"
_MOST_NEWEST: Final = 1 << 20  # bytes of annotations, of which a document is made almost alone


def tag_of(hash_part: str) -> str:
    """Return the tag under which the path with these 32 characters is kept."""
    return TAG_PREFIX + hash_part


def hash_part_of(tag: str) -> str:
    """Return the 32 characters of the path that is kept under *tag*."""
    return tag.removeprefix(TAG_PREFIX)


def lists_outputs(tag: str) -> bool:
    """Whether *tag* names a list of what is kept, or one builder's part of it."""
    return tag == NEWEST_TAG or _KEPT_TAG.match(tag) is not None


def builders_tag(kept: KeptOutput) -> str:
    """Return the tag of the manifest of *kept*: one for each path and signer."""
    signer = Digest.of(kept.signer.encode()).hex[:16]
    return f"{tag_of(kept.path.hash_part)}.{signer}"


Named = Annotated[
    StorePath,
    text_of(lambda name: StorePath.parse(f"{STORE_DIR}/{name}"), lambda path: path.base_name),
]
"""A store path, spelled without its directory, as in a narinfo."""


@dataclass(frozen=True, slots=True)
class Stored(Declared):
    """A blob, by its digest and size in bytes."""

    digest: Digest
    size: int

    def descriptor(self, media_type: str) -> Descriptor:
        """Return the blob as a manifest names it."""
        return Descriptor(media_type, self.digest, self.size)


@dataclass(frozen=True, slots=True)
class KeptOutput(Declared):
    """One builder's NAR of *path*, as it is listed: *nar* is its blob, *bundles* the signed word.

    *signer* says for people who signed it, and *pushed* when it was last pushed. *build_millis* are
    the milliseconds that building it took, where its builder knows.
    """

    closed: ClassVar = True

    path: Named
    nar_hash: NarHash
    nar_size: int
    nar: Stored
    bundles: tuple[Stored, ...] = field(metadata=at(sizes=(1, MOST_BUNDLES)))
    commit: str
    signer: str
    pushed: str
    deriver: Named | None = field(default=None, metadata=at(omit=True))
    references: tuple[Named, ...] = field(
        default=(), metadata=at(omit=True, sizes=(0, MOST_REFERENCES))
    )
    build_millis: int | None = field(default=None, metadata=at(omit=True))

    def __post_init__(self) -> None:
        check_time(self.pushed)

    @property
    def info(self) -> PathInfo:
        """What Nix would know of the path."""
        return PathInfo(self.path, self.nar_hash, self.nar_size, tuple(self.references))

    def manifest(self, config: Descriptor) -> Manifest:
        """Return the manifest that keeps both blobs, with an empty *config*."""
        words = (each.descriptor(BUNDLE_V03) for each in self.bundles)
        layers = (self.nar.descriptor(NAR_TYPE), *words)
        said = {ANNOTATION: self.dump().decode()}
        return Manifest(config, layers, said, artifact_type=OUTPUT_TYPE)


def entry_of(manifest: bytes, kept: KeptOutput) -> Descriptor:
    """Return how *manifest*, which is that of *kept*, stands in the path's index."""
    return Descriptor(
        MediaType.MANIFEST,
        Digest.of(manifest),
        len(manifest),
        annotations={ANNOTATION: kept.dump().decode()},
        artifact_type=OUTPUT_TYPE,
    )


def read_entries(
    entries: Iterable[Descriptor], hash_part: str, where: str
) -> tuple[tuple[KeptOutput, ...], tuple[InputError, ...]]:
    """Return what the index of a path lists, the newest first, and what of it cannot be read.

    One bad entry hides no other.
    """
    found: list[KeptOutput] = []
    troubles: list[InputError] = []
    for number, item in enumerate(entries):
        if number >= MOST_KEPT:
            troubles.append(InputError(f"{where} lists more than {MOST_KEPT}"))
            break
        try:
            found.append(read_entry(item, hash_part, f"{where}, {item.digest}"))
        except InputError as error:
            troubles.append(error)
    return newest_first(found), tuple(troubles)


def newest_first(found: Iterable[KeptOutput]) -> tuple[KeptOutput, ...]:
    """Return *found* in the order in which it counts."""
    ordered = sorted(found, key=lambda kept: (kept.pushed, kept.bundles[0].digest), reverse=True)
    return tuple(ordered)


def read_entry(item: Descriptor, hash_part: str | None, where: str) -> KeptOutput:
    """Read one entry of the index of a path (None: of any); ``InputError`` for another's."""
    kept = KeptOutput.parse(item.annotations.get(ANNOTATION, "").encode(), where)
    if hash_part not in (None, kept.path.hash_part):
        raise InputError(f"{where} is listed under {hash_part}, and says that it is {kept.path}")
    return kept


def with_nar(entry: Descriptor, blob: bytes) -> Descriptor:
    """Return *entry* with the *blob* of its NAR in it, for the index of a whole commit."""
    return replace(entry, annotations={**entry.annotations, _INLINE: to_base64(blob)})


def nar_within(item: Descriptor, kept: KeptOutput) -> bytes | None:
    """Return the blob of *kept*'s NAR that *item* holds; None where it holds none, or another."""
    text = item.annotations.get(_INLINE, "")
    if not text or len(text) > 2 * LARGEST_INLINE:
        return None
    try:
        blob = exact_base64(text)
    except ValueError:
        return None
    return blob if Digest.of(blob) == kept.nar.digest else None


def newest_of(
    entries: Iterable[Descriptor], before: Iterable[Descriptor]
) -> tuple[Descriptor, ...]:
    """Return the index of a commit's *entries*, as many as fit; NARs that *before* held stay."""
    had = {item.digest: item for item in before if _INLINE in item.annotations}
    found: dict[Digest, Descriptor] = {}
    left = _MOST_NEWEST
    for entry in entries:
        item = entry if _INLINE in entry.annotations else had.get(entry.digest, entry)
        left -= sum(map(len, item.annotations.values()))
        if left < 0:
            break
        found[item.digest] = item
    return tuple(found[digest] for digest in sorted(found))
