"""Builders, logs, promoters and a registry, all honest until someone takes them over."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial

from nix_seed.core import canonical_json
from nix_seed.core.digests import DiffID, Digest, NarHash
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
from nix_seed.formats.oci.manifest import (
    ANNOTATION_NAR_HASH,
    ANNOTATION_SYSTEM,
    Descriptor,
    Manifest,
    MediaType,
    platform_of,
)
from nix_seed.formats.oci.reference import Reference
from nix_seed.image.rules.frames import Compressor
from nix_seed.logs.embedded import LogKey
from nix_seed.registry.store import Held
from nix_seed.release.attest import attach_to_commit
from nix_seed.release.promote import Promoted, Signing, promote
from nix_seed.release.verifiers import Verifiers
from nix_seed.release.verify import ReleasePlace
from nix_seed.trust.attestations import attach_bundle
from nix_seed.trust.rules.policy import Policy
from nix_seed.trust.rules.policy_file import parse_policy
from nix_seed.trust.sign import KeySigner, Signed, log_signed
from sim.transports import MemoryLog, MemoryStore, MemoryStores

__all__ = ["NOW", "REFERENCE", "SOURCE", "Cast", "Scene", "Terms", "TinyImage"]

NOW = datetime(2026, 6, 1, tzinfo=UTC)
SOURCE = "https://forge.example/owner/project"
REFERENCE = Reference("registry.example", "owner/project")
SYSTEMS = ("aarch64-linux", "x86_64-linux")
_LOCK = Digest.of(b"flake.lock")


@dataclass(frozen=True, slots=True)
class Terms:
    """What a policy demands: *threshold* of *builders*, *needed* of *logs*, *wanted* promoters."""

    builders: int
    threshold: int
    logs: int
    needed: int
    promoters: int
    wanted: int

    def __str__(self) -> str:
        return (
            f"{self.threshold} of {self.builders} builders, {self.needed} of {self.logs} logs, "
            f"{self.wanted} of {self.promoters} promoters"
        )


class Cast:
    """Everybody's keys, and the policy that knows them; the same through many scenes."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.builders = {f"builder-{n}": _signer() for n in range(terms.builders)}
        self.promoters = {f"promoter-{n}": _signer() for n in range(terms.promoters)}
        self.stranger = _signer()
        self.log_keys = {f"log-{n}": LogKey.make(f"log-{n}.example") for n in range(terms.logs)}
        text = _policy_text(self).encode()
        self.policy: Policy = parse_policy(text, "trust.toml", NOW)


@dataclass(frozen=True, slots=True)
class TinyImage:
    """An image: real manifest and configuration, and a layer of one file, which is no spec."""

    system: str
    descriptor: Descriptor
    nar_hash: NarHash
    layers: tuple[LayerDigests, ...]
    parts: tuple[tuple[str, bytes], ...] = field(repr=False)

    @classmethod
    def of(cls, text: str, system: str) -> TinyImage:
        """Make the image that *text* stands for."""
        platform = platform_of(system)
        tar = _tar(f"layer of {text} for {system}".encode())
        layer = Compressor.at_hand().compress(tar)
        config = canonical_json.dumps(
            {
                "architecture": platform.architecture,
                "os": platform.os,
                **({"variant": platform.variant} if platform.variant else {}),
                "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(tar))]},
            }
        )
        nar_hash = NarHash.of(f"seed.json of {text} for {system}".encode())
        said = {ANNOTATION_SYSTEM: system, ANNOTATION_NAR_HASH: str(nar_hash)}
        layers = (Descriptor(MediaType.LAYER_ZSTD, Digest.of(layer), len(layer)),)
        parts = ((MediaType.CONFIG, config), (MediaType.LAYER_ZSTD, layer))
        configuration = Descriptor(MediaType.CONFIG, Digest.of(config), len(config))
        body = Manifest(configuration, layers, said).dump()
        descriptor = Descriptor(MediaType.MANIFEST, Digest.of(body), len(body), said, platform)
        digests = (LayerDigests(layers[0].digest, DiffID.of(tar)),)
        return cls(system, descriptor, nar_hash, digests, (*parts, (MediaType.MANIFEST, body)))

    @property
    def digest(self) -> Digest:
        """The manifest's digest."""
        return self.descriptor.digest

    def put(self, store: MemoryStore) -> None:
        """Store it."""
        *blobs, (media_type, manifest) = self.parts
        for kind, data in blobs:
            blob = Descriptor(kind, Digest.of(data), len(data))
            store.take_blob(blob, partial(_rest, data))
        store.put_manifest(manifest, media_type)


def _tar(data: bytes) -> bytes:
    """Return an archive of one file, the same each time."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("file")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return made.getvalue()


class Scene:
    """One repository, its logs, and the commits that were built for it."""

    def __init__(self, cast: Cast) -> None:
        self.cast = cast
        self.store = MemoryStore("registry.example/owner/project")
        self.logs = [MemoryLog(name, key) for name, key in cast.log_keys.items()]
        self.truth: dict[Commit, Mapping[str, TinyImage]] = {}

    def copy(self) -> Scene:
        """The same once more, to be attacked in another way."""
        other = Scene(self.cast)
        other.store = self.store.copy()
        other.logs = [log.fork() for log in self.logs]
        other.truth = dict(self.truth)
        return other

    def commit(self, text: str) -> Commit:
        """A commit, and what honest builders get from it."""
        commit = Commit(Digest.of(text.encode()).hex[:40])
        self.truth[commit] = {s: TinyImage.of(f"{commit}", s) for s in SYSTEMS}
        return commit

    def images(self, commit: Commit) -> Iterable[TinyImage]:
        """The honest images of *commit*."""
        return self.truth[commit].values()

    def sign_build(
        self, builder: str, image: TinyImage, commit: Commit, key: KeySigner | None = None
    ) -> Signed:
        """What *builder* says of *image*, signed with its key or another."""
        said = BuildPredicate(
            source=Source(SOURCE, commit, _LOCK),
            system=image.system,
            nar_hash=image.nar_hash,
            layers=image.layers,
            image_digest=image.digest,
            builder=builder,
            nix=NixFacts("2.28.3", (), "true"),
            paths=PathCounts(1, 0, 0, 0),
            started_on="2026-01-31T12:00:00Z",
            finished_on="2026-01-31T12:34:56Z",
        )
        payload = build_statement(said, "registry.example").dump()
        return (key or self.cast.builders[builder]).sign(PAYLOAD_TYPE, payload)

    def attest(
        self,
        builders: Iterable[str],
        images: Iterable[TinyImage],
        commit: Commit,
        store: MemoryStore | None = None,
        logs: Sequence[MemoryLog] | None = None,
    ) -> None:
        """Have each of *builders* push *images*, and say that it built them from *commit*."""
        where = store or self.store
        images = tuple(images)
        for image in images:
            image.put(where)
        for builder in builders:
            for image in images:
                self.attach(self.sign_build(builder, image, commit), image, commit, where, logs)

    def attach(
        self,
        signed: Signed,
        image: TinyImage,
        commit: Commit,
        store: MemoryStore,
        logs: Sequence[MemoryLog] | None = None,
    ) -> None:
        """Log and list what was signed."""
        needed = self.cast.terms.needed
        for bundle in log_signed(signed, self.logs if logs is None else logs, needed=needed):
            attach_bundle(store, image.descriptor, bundle.dump(), BUILD_TYPE)
            attach_to_commit(store, commit, bundle.dump())

    def promote(
        self,
        who: str,
        commit: Commit,
        store: MemoryStore | None = None,
        judges: Verifiers | None = None,
        tags: Sequence[str] = ("latest",),
    ) -> Promoted:
        """Have a promoter run the real thing."""
        stores = MemoryStores(jobs=1, views={REFERENCE.repository: store or self.store})
        return promote(
            replace(judges or Verifiers(self.cast.policy, NOW), stores=stores),
            commit,
            ReleasePlace(REFERENCE, (), tags),
            Signing(self.cast.promoters[who], self.logs),
        )

    def release(self, commit: Commit) -> Promoted:
        """Have everyone build and enough promote *commit*, honestly."""
        self.attest(self.cast.builders, self.images(commit), commit)
        for who in list(self.cast.promoters)[: self.cast.terms.wanted]:
            done = self.promote(who, commit)
        return done


def _rest(data: bytes, held: Held) -> Iterator[bytes]:
    yield data[held.size :]


def _signer() -> KeySigner:
    return KeySigner.generate("ed25519")


def _policy_text(cast: Cast) -> str:
    terms = cast.terms
    systems = ", ".join(f'"{system}"' for system in SYSTEMS)
    parts = [
        f'version = 1\nepoch = 1\nexpires = 2126-01-01T00:00:00Z\nsource = "{SOURCE}"\n'
        f"systems = [{systems}]\n[quorum]\nthreshold = {terms.threshold}\n"
        f'distinct = ["operator"]\nlogs = {terms.needed}\npromoters = {terms.wanted}\n'
    ]
    for name, key in cast.builders.items():
        parts.append(f'[[builders]]\nid = "{name}"\noperator = "{name} ltd"\n{_key(key)}')
    parts += [
        f'[[logs]]\nid = "{name}"\nkind = "tiles"\norigin = "{key.note_key.name}"\n'
        f'key = "{key.note_key}"\n'
        for name, key in cast.log_keys.items()
    ]
    parts += [f'[[promoters]]\nid = "{name}"\n{_key(key)}' for name, key in cast.promoters.items()]
    return "\n".join(parts)


def _key(key: KeySigner) -> str:
    return f'key = """\n{key.public_key.pem.decode()}"""\n'
