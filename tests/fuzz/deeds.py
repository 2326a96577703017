"""What readers do with bytes, where that is more than one call; and documents that are real."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from nix_seed.core.digests import DiffID, Digest, NarHash
from nix_seed.core.errors import NixSeedError
from nix_seed.core.safe_text import split_address
from nix_seed.flake.rules.nix_log import NixLog
from nix_seed.formats.intoto.bundle import Bundle
from nix_seed.formats.intoto.statement import build_statement
from nix_seed.formats.nix.store_path import PathInfo, StorePath
from nix_seed.formats.oci.manifest import Descriptor, MediaType, fallback_tag
from nix_seed.formats.oci.reference import LayoutReference
from nix_seed.formats.zstd import Frame, FrameCutter, SeekTable
from nix_seed.image.assemble import StoreFiles
from nix_seed.image.read.safe_root import scratch_directory
from nix_seed.image.read.spec import read_seed
from nix_seed.image.read.stream import TarPieces
from nix_seed.image.read.tar import read_entries
from nix_seed.image.read.unpack import unpack_layer
from nix_seed.image.rules.contents import FOLDER, dump_contents, parse_contents
from nix_seed.image.rules.frames import Compressor, locate_paths
from nix_seed.image.rules.layer import FinishedLayer, write_layer
from nix_seed.registry.credentials import Keyring
from nix_seed.registry.layout import Layout, open_image
from nix_seed.registry.layout_store import LayoutStore
from nix_seed.registry.rules.http import join_url, parse_url, proxy_for
from nix_seed.registry.rules.lock import LockedImage, SeedLock
from nix_seed.registry.store import Held
from nix_seed.release.load import load_policy_of_then
from nix_seed.release.rules.signed_entries import Sieve
from nix_seed.trust.rules.bundle import Expected, Ground, Refused, Trust, evaluate_bundle
from nix_seed.trust.rules.policy import Policy
from nix_seed.trust.rules.signer import CertificateIdentity
from nix_seed.trust.sign import KeySigner
from nix_seed.trust.sigstore import SigstoreCheck, load_verifier
from nix_seed.use.hydrate_layer import LayerTask, Target, hydrate_layer
from support.attestations import predicate
from support.audits import Ledger
from support.hydration import spec_of
from support.layouts import frames
from support.nars import Directory, NarFile, Symlink
from support.private_sigstore import PrivateSigstore
from support.trees import put

HEX: Final = "ab" * 32
_KEY: Final = KeySigner.generate().who

DESCRIPTOR: Final = {
    "mediaType": "application/vnd.oci.image.manifest.v1+json",
    "digest": f"sha256:{HEX}",
    "size": 7,
}
MANIFEST: Final = {
    "schemaVersion": 2,
    "mediaType": "application/vnd.oci.image.manifest.v1+json",
    "config": DESCRIPTOR,
    "layers": [DESCRIPTOR],
    "annotations": {"org.opencontainers.image.ref.name": "latest"},
}
INDEX: Final = {
    "schemaVersion": 2,
    "mediaType": "application/vnd.oci.image.index.v1+json",
    "manifests": [
        DESCRIPTOR
        | {
            "platform": {"os": "linux", "architecture": "amd64"},
            "annotations": {"org.opencontainers.image.ref.name": "latest"},
        }
    ],
}


def read_tar(data: bytes) -> None:
    for entry in read_entries(io.BytesIO(data), "a layer"):
        str(entry)


def tars() -> Iterator[bytes]:
    import tarfile

    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=form) as made:
            file = tarfile.TarInfo("nix/store/a")
            file.size = 3
            made.addfile(file, io.BytesIO(b"abc"))
            link = tarfile.TarInfo("nix/b")
            link.type, link.linkname = tarfile.SYMTYPE, "store/a"
            made.addfile(link)
        yield stream.getvalue()[:2560]


def read_layout(data: bytes) -> None:
    """Read a layout on disk whose index, version, or only document, is *data*."""
    with tempfile.TemporaryDirectory() as name:
        directory, digest = Path(name), Digest.of(data)
        version = b'{"imageLayoutVersion":"1.0.0"}'
        first = data.startswith(b'{"imageLayoutVersion"')
        (directory / "oci-layout").write_bytes(data if first else version)
        (directory / "blobs/sha256").mkdir(parents=True)
        (directory / "blobs/sha256" / digest.hex).write_bytes(data)
        named = [_named(digest, len(data), tag) for tag in ("one", fallback_tag(Digest(HEX)))]
        for index in (data, json.dumps(INDEX | {"manifests": named}).encode()):
            (directory / "index.json").write_bytes(index)
            store = LayoutStore(Layout.open(directory))
            for question in (
                lambda store=store: [store.get_manifest(tag) for tag in store.list_tags()],
                lambda store=store: store.referrers(Digest(HEX)),
                lambda: open_image(LayoutReference(name, "one")),
                lambda store=store: read_seed("it", store.get_manifest(digest), store),
            ):
                with suppress(NixSeedError):
                    question()


def _named(digest: Digest, size: int, tag: str) -> dict[str, Any]:
    named = {"org.opencontainers.image.ref.name": tag}
    return DESCRIPTOR | {"digest": str(digest), "size": size, "annotations": named}


def read_layer(data: bytes) -> None:
    """Unpack *data* as a layer of each kind, and as one of a seed, and read it as a seed's last."""
    for kind in (MediaType.LAYER, MediaType.LAYER_ZSTD, MediaType.LAYER_GZIP):
        with (
            scratch_directory("fuzz-") as directory,
            suppress(NixSeedError),
            TarPieces(iter([data]), kind, 1 << 20, "it", 0, hashed=True) as pieces,
        ):
            unpack_layer(pieces, directory, "it", 100)
            pieces.drain()
    blob = Descriptor(MediaType.LAYER_ZSTD, Digest.of(data), len(data))
    info = PathInfo(StorePath("0" * 31 + "a-hello-1.0"), NarHash(HEX), 96, ())
    with scratch_directory("fuzz-") as directory:
        store = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            task = LayerTask(blob, {info.path: info}, frozenset({info.path}), "it")
            hydrate_layer(task, _Held(data), Target(store, False, 0))
        finally:
            os.close(store)


@dataclass(frozen=True)
class _Held:
    data: bytes

    def open_blob(self, blob: Descriptor, held: Held | None = None) -> Iterator[bytes]:
        return iter([self.data])

    def read_range_unverified(self, blob: Descriptor, start: int, length: int) -> bytes:
        return self.data[start : start + length]


def read_frames(data: bytes) -> None:
    """Cut zstd into frames, fed in two pieces."""
    cutter = FrameCutter(1 << 16, "it")
    for piece in (data[:7], data[7:]):
        list(cutter.feed(piece))
    cutter.finish()


def read_table(data: bytes) -> None:
    """Read a seek table, and do with it what is done."""
    table = SeekTable.parse(data, "it")
    table.check_blob(100, "it")
    locate_paths(table, [StorePath("0" * 31 + "a-hello-1.0")])


def layers() -> Iterator[bytes]:
    for made in tars():
        yield frames(made, 700)
        yield gzip.compress(made)
        yield made


def read_address(data: str) -> None:
    where = parse_url("https://registry.example/v2/")
    for read in (parse_url, lambda said: join_url(where, said, "it")):
        with suppress(NixSeedError):
            assert parse_url(str(read(data))) == read(data), "one reading"
    split_address(data)


def read_proxies(data: bytes) -> None:
    said = data.decode("latin-1")
    for name in ("https_proxy", "ALL_PROXY"):
        for left_out in ("", said):
            with suppress(NixSeedError):
                proxy_for({name: said, "no_proxy": left_out}, parse_url("https://r.example/"))


def read_credentials(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        Path(name, "config.json").write_bytes(data)
        keyring = Keyring({"DOCKER_CONFIG": name, "PATH": "/nowhere"}, Path(name))
        keyring.find("ghcr.io", "owner/name")


@cache
def _sigstore() -> tuple[SigstoreCheck | None, bytes, bytes]:
    """A judge of keyless bundles, its trusted root, a bundle that it takes; needs OpenSSL."""
    if shutil.which("openssl") is None:
        return None, b"{}", b"{}"
    with tempfile.TemporaryDirectory() as name:
        made = PrivateSigstore(Path(name, "sigstore"))
        payload = build_statement(predicate(), "x").dump()
        root = made.trusted_root()
        return SigstoreCheck(root), root, json.dumps(made.bundle(payload)).encode()


def keyless_bundles() -> Iterator[bytes]:
    """Yield one that is good."""
    yield _sigstore()[2]


def trusted_roots() -> Iterator[bytes]:
    """Yield one that is good."""
    yield _sigstore()[1]


def read_keyless(data: bytes) -> None:
    """Judge a keyless bundle: whatever its bytes are, that is the bundle's fault, or none's."""
    check, bundle = _sigstore()[0], Bundle.parse(data, "it")
    if check is None:
        return
    with suppress(Refused):
        check.check(bundle)


def read_trusted_root(data: bytes) -> None:
    """Load a policy's trusted root."""
    load_verifier(data, "it")


def judge(data: bytes) -> None:
    """Judge a bundle by keys and identities: that never raises, nor ends unexpectedly."""
    identity = CertificateIdentity("https://issuer.example", "https://x.example/a")
    trust = Trust((_KEY,), (identity,), _sigstore()[0])
    verdict = evaluate_bundle(data, trust, Expected(None, None), "it")
    assert verdict.ground is not Ground.INTERNAL, verdict.reason


def read_entry(data: bytes) -> None:
    """Look through a log's entry for signatures of a promoter's, as an audit does."""
    Sieve("log", _policies()).look(0, data, bytes(32))


@cache
def _policies() -> tuple[Policy, ...]:
    with tempfile.TemporaryDirectory() as name:
        world = Ledger(Path(name, "world"), releases=0)
        world.promoters["ines"] = {"issuer": '"https://issuer.example"', "subject": '"x:y"'}
        return (load_policy_of_then(world.write_policy()).policy,)


def read_table_of_contents(data: bytes) -> None:
    """Read an image's table of contents, and go through all that it lists."""
    for layer in parse_contents(data, "it"):
        waiting = list(layer.roots())
        while waiting:
            node = waiting.pop()
            if layer.kinds[node] == FOLDER:
                waiting.extend(layer.entries(node))
        assert layer.blob_size


def tables() -> Iterator[bytes]:
    """Yield a table of two layers."""
    with tempfile.TemporaryDirectory() as name:
        tree = Directory({b"a": NarFile(b"x" * 9), b"b": Symlink(b"a"), b"c": Directory({})})
        info = put(Path(name), "fuzzed", tree)
        made = write_layer([info], Compressor.at_hand("zstd"), StoreFiles(Path(name)), io.BytesIO())
        yield dump_contents([made.contents] * 2)


def read_nix_log(data: bytes) -> None:
    """Read what Nix writes to standard error."""
    log = NixLog()
    for line in data.split(b"\n"):
        list(log.read(line))
    str((log.work, log.error))


NIX_LOG: Final = b"""@nix {"action":"start","id":1,"type":105,"text":"x","fields":["/a.drv","",1,1]}
@nix {"action":"result","id":1,"type":101,"fields":["a line"]}
@nix {"action":"result","id":1,"type":105,"fields":[1,2,3,4]}
@nix {"action":"msg","level":0,"msg":"error: x"}
@nix {"action":"stop","id":1}"""


def layer_record() -> bytes:
    """A record of the cache of layers."""
    layer = Descriptor(MediaType.LAYER_ZSTD, Digest(HEX), 7)
    return FinishedLayer(layer, DiffID(HEX), 9, (Frame(7, 9),)).dump()


def elf() -> bytes:
    """The head of a program of this machine."""
    return Path(os.path.realpath(sys.executable)).read_bytes()[:4096]


def read_evm(data: bytes) -> None:
    try:
        from nix_seed.evm.signatures import EvmSignature
    except ImportError:
        return
    EvmSignature.load(data, "it")


@cache
def release_documents() -> tuple[bytes, ...]:
    """Return every small file of a promoted release: images, bundles, records, a log, a policy."""
    with tempfile.TemporaryDirectory() as name:
        world = Ledger(Path(name, "world"), releases=1)
        world.write_policy()
        world.audit()
        files = sorted(path for path in Path(name).rglob("*") if path.is_file())
        found = (path.read_bytes() for path in files if path.stat().st_size < 20_000)
        return tuple(dict.fromkeys((*found, *_payloads(files), *_made())))


def _payloads(files: Iterable[Path]) -> Iterator[bytes]:
    """Yield what bundles hold: statements, predicates, entries of logs and their bodies."""
    for path in files:
        with suppress(ValueError, KeyError, TypeError):
            value = json.loads(path.read_bytes())
            statement = base64.b64decode(value["dsseEnvelope"]["payload"])
            yield statement
            yield json.dumps(json.loads(statement)["predicate"]).encode()
            for entry in value["verificationMaterial"]["tlogEntries"]:
                yield json.dumps(entry).encode()
                yield base64.b64decode(entry["canonicalizedBody"])


def _made() -> Iterator[bytes]:
    info = PathInfo(StorePath("0" * 31 + "a-hello-1.0"), NarHash(HEX), 96, ())
    yield spec_of([[info]], Compressor.at_hand("zstd")).dump()
    yield SeedLock("ghcr.io/o/n", {"x": LockedImage(Digest(HEX), NarHash(HEX))}).dump()
