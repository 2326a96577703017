"""Every reader of foreign bytes, by name, with something it takes: the one table for fuzzing.

The rule for each: *our own error, or a value, in bounded time*. Anything else is a fault.
"""

from __future__ import annotations

import io
import json
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from nix_seed.core import canonical_json
from nix_seed.core.digests import Digest
from nix_seed.core.errors import NixSeedError
from nix_seed.flake.rules.licence import evaluate_expression, read_facts
from nix_seed.formats.intoto.bundle import Bundle
from nix_seed.formats.intoto.statement import Statement
from nix_seed.formats.intoto.unverified import Unverified
from nix_seed.formats.nix.database import parse_registration
from nix_seed.formats.nix.derivation import Derivation
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.formats.oci.manifest import Index, Manifest
from nix_seed.formats.oci.reference import parse_reference
from nix_seed.formats.tlog.body import parse_body
from nix_seed.formats.tlog.entry import LogEntry
from nix_seed.formats.tlog.note import Checkpoint, Note, NoteKey, SignedCheckpoint
from nix_seed.formats.tlog.tile import Tile, decode_entries
from nix_seed.formats.zstd import Frame, SeekTable
from nix_seed.image.read.tar import read_entries
from nix_seed.image.rules.spec import Spec
from nix_seed.logs.rules.signer import PublicKey, read_identity
from nix_seed.registry.auth import parse_challenges
from nix_seed.registry.layout import Layout
from nix_seed.registry.layout_store import LayoutStore
from nix_seed.registry.rules.lock import SeedLock
from nix_seed.release.rules.evidence import Evidence
from nix_seed.release.rules.tree import MemberProof
from nix_seed.sbom.rules.licences import read_licences
from nix_seed.sbom.rules.spdx_list import read_expression
from nix_seed.trust.rules.policy_file import parse_policy
from support.certificates import malformed_certificates

NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
HEX: Final = "ab" * 32
PATH: Final = f"/nix/store/{'0' * 31}a-hello-1.0"


@dataclass(frozen=True, slots=True)
class Reader:
    """What reads bytes, and some that it takes, or nearly: what is made is made of these."""

    read: Callable[[bytes], Any]
    corpus: tuple[bytes, ...]

    def holds(self, data: bytes) -> bool:
        """Whether *data* is read, or refused by an error of ours; any other error is raised."""
        try:
            self.read(data)
        except NixSeedError:
            return False
        return True


def text(read: Callable[[str], Any]) -> Callable[[bytes], Any]:
    """Give *read* text: each byte a character, so that none is out of reach."""
    return lambda data: read(data.decode("utf-8", "surrogateescape"))


def _json(*values: Any) -> tuple[bytes, ...]:
    return tuple(json.dumps(each).encode() for each in values)


def _tar(data: bytes) -> None:
    for entry in read_entries(io.BytesIO(data), "a layer"):
        str(entry)


def _tars() -> Iterator[bytes]:
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


def _layout(data: bytes) -> None:
    """Read a layout on disk whose index, or version, is *data*."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        version = b'{"imageLayoutVersion":"1.0.0"}'
        first = data.startswith(b'{"imageLayoutVersion"')
        (directory / "oci-layout").write_bytes(data if first else version)
        (directory / "index.json").write_bytes(data)
        store = LayoutStore(Layout.open(directory))
        for tag in store.list_tags():
            store.get_manifest(tag)
        store.referrers(Digest(HEX))


_DESCRIPTOR: Final = {
    "mediaType": "application/vnd.oci.image.manifest.v1+json",
    "digest": f"sha256:{HEX}",
    "size": 7,
}
_MANIFEST: Final = {
    "schemaVersion": 2,
    "mediaType": "application/vnd.oci.image.manifest.v1+json",
    "config": _DESCRIPTOR,
    "layers": [_DESCRIPTOR],
    "annotations": {"org.opencontainers.image.ref.name": "latest"},
}
_INDEX: Final = {
    "schemaVersion": 2,
    "mediaType": "application/vnd.oci.image.index.v1+json",
    "manifests": [
        _DESCRIPTOR
        | {
            "platform": {"os": "linux", "architecture": "amd64"},
            "annotations": {"org.opencontainers.image.ref.name": "latest"},
        }
    ],
}
_BUNDLE: Final = {
    "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
    "verificationMaterial": {"publicKey": {"hint": "x"}, "tlogEntries": [{"logIndex": "1"}]},
    "dsseEnvelope": {
        "payload": "e30=",
        "payloadType": "application/vnd.in-toto+json",
        "signatures": [{"sig": "AAAA"}],
    },
}
_STATEMENT: Final = {
    "_type": "https://in-toto.io/Statement/v1",
    "subject": [{"name": "x", "digest": {"sha256": HEX}}],
    "predicateType": "https://x.example/v1",
    "predicate": {},
}
_ENTRY: Final = {
    "logIndex": "1",
    "logId": {"keyId": "AAAA"},
    "kindVersion": {"kind": "hashedrekord", "version": "0.0.2"},
    "integratedTime": "0",
    "inclusionProof": {
        "logIndex": "1",
        "rootHash": "AAAA",
        "treeSize": "2",
        "hashes": ["AAAA"],
        "checkpoint": {"envelope": "x\n"},
    },
    "canonicalizedBody": "e30=",
}
_BODY: Final = {
    "apiVersion": "0.0.2",
    "kind": "hashedrekord",
    "spec": {
        "hashedRekordV002": {
            "data": {"algorithm": "SHA2_256", "digest": "AAAA"},
            "signature": {
                "content": "AAAA",
                "verifier": {
                    "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                    "publicKey": {"rawBytes": "AAAA"},
                },
            },
        }
    },
}
_CHECKPOINT: Final = (
    b"log.example\n2\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n"
    b"\xe2\x80\x94 log.example AAAAAAAA\n"
)
_POLICY: Final = f"""version = 1
source = "https://forge.example/owner/project"
systems = ["x86_64-linux"]
epoch = 1
[quorum]
builders = 1
[[builders]]
id = "alice"
issuer = "https://issuer.example"
subject = "https://forge.example/x"
notBefore = 2026-01-01T00:00:00Z
[[logs]]
id = "log"
kind = "tiles"
origin = "log.example"
key = "log.example+{"ab" * 4}+AAAA"
""".encode()
_DERIVATION: Final = (
    f'Derive([("out","{PATH}","","")],[("{PATH}.drv",["out"])],["{PATH}"],"x86_64-linux",'
    f'"/bin/sh",["-c","x\\n"],[("name","hello"),("out","{PATH}")])'
).encode()
_SPDX: Final = {"packages": [{"SPDXID": "x", "annotations": [{"comment": "{}"}]}]}

READERS: Final[Mapping[str, Reader]] = {
    "canonical JSON": Reader(
        lambda data: canonical_json.loads(data, what="it"),
        (*_json({"a": [1, "x", None, 1.5]}, 2**60), b"[" * 3000, b"1" * 5000),
    ),
    "manifest": Reader(lambda data: Manifest.parse(data, "it"), _json(_MANIFEST)),
    "index": Reader(lambda data: Index.parse(data, "it"), _json(_INDEX)),
    "layout on disk": Reader(_layout, _json(_INDEX, {"imageLayoutVersion": "1.0.0"})),
    "reference": Reader(
        text(parse_reference),
        (b"ghcr.io/o/n:tag", f"h:5000/o@sha256:{HEX}".encode(), b"oci:dir:tag", b"http://x\\@y/z"),
    ),
    "challenge": Reader(
        text(parse_challenges),
        (b'Bearer realm="https://x/token",service="x",scope="a:b:pull"', b'Basic realm="\\""'),
    ),
    "bundle": Reader(lambda data: Bundle.parse(data, "it"), _json(_BUNDLE)),
    "unverified bundle": Reader(Unverified.read, _json(_BUNDLE)),
    "statement": Reader(lambda data: Statement.parse(data, "it"), _json(_STATEMENT)),
    "log entry": Reader(
        lambda data: LogEntry.from_json(canonical_json.loads(data, what="it"), "it"), _json(_ENTRY)
    ),
    "log body": Reader(
        lambda data: parse_body(data, "it"),
        _json(_BODY, {"apiVersion": "0.0.1", "kind": "dsse", "spec": {"signatures": [{}]}}),
    ),
    "note": Reader(lambda data: Note.parse(data, "it"), (_CHECKPOINT,)),
    "note's key": Reader(text(NoteKey.parse), (b"log.example+01020304+AAAA",)),
    "checkpoint": Reader(text(lambda said: Checkpoint.parse(said, "it")), (_CHECKPOINT,)),
    "signed checkpoint": Reader(lambda data: SignedCheckpoint.parse(data, "it"), (_CHECKPOINT,)),
    "tile's path": Reader(text(Tile.parse), (b"tile/0/x001/067", b"tile/entries/000.p/7")),
    "entries of a tile": Reader(
        lambda data: decode_entries(Tile(Tile.ENTRIES, 0, 2), data), (b"\x00\x01a\x00\x02bc",)
    ),
    "certificate": Reader(
        lambda data: read_identity(data, "it"), tuple(malformed_certificates().values())
    ),
    "certificate's key": Reader(
        lambda data: PublicKey.of_certificate(data, "it"), tuple(malformed_certificates().values())
    ),
    "public key": Reader(
        lambda data: PublicKey.from_der(data, "it"),
        (bytes.fromhex("302a300506032b6570032100") * 2,),
    ),
    "public key in PEM": Reader(
        lambda data: PublicKey.from_pem(data, "it"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",),
    ),
    "derivation": Reader(text(lambda said: Derivation.parse(said, "it")), (_DERIVATION,)),
    "store path": Reader(text(StorePath.parse), (PATH.encode(),)),
    "registration": Reader(
        text(parse_registration), (f"{PATH}\n{HEX}\n7\n\n1\n{PATH}\n".encode(),)
    ),
    "tar": Reader(_tar, tuple(_tars())),
    "seek table": Reader(
        lambda data: SeekTable.parse(data, "it"), (SeekTable((Frame(9, 20), Frame(8, 7))).dump(),)
    ),
    "spec": Reader(lambda data: Spec.parse(data, "it"), _json({"format": 2, "name": "x"})),
    "seed.lock": Reader(
        lambda data: SeedLock.parse(data, "it"), _json({"version": 1, "image": "x"})
    ),
    "policy": Reader(lambda data: parse_policy(data, "it", NOW), (_POLICY,)),
    "evidence": Reader(lambda data: Evidence.parse(data, "it"), _json({"leaves": [], "votes": []})),
    "proof": Reader(lambda data: MemberProof.parse(data, "it"), _json({"leaf": {}, "path": []})),
    "licence expression": Reader(text(evaluate_expression), (b"MIT OR (GPL-2.0-only WITH x)",)),
    "SPDX expression": Reader(text(read_expression), (b"mit AND (isc or 0BSD)", b"GPL-2.0+")),
    "licences of a flake": Reader(
        lambda data: read_facts(canonical_json.loads(data, what="it")),
        _json([{"drv": "x", "licences": [{"spdxId": "MIT", "free": True}], "homepage": "x"}]),
    ),
    "licences of an SBOM": Reader(
        lambda data: read_licences(data, "spdx", "it"), _json(_SPDX, {"packages": 7})
    ),
}

_PIECES: Final = (
    b"\x00", b"\xff", b"\n", b'"', b"\\", b"[", b"{", b"}", b":", b"//", b"@", b"..", b"\xc2\xb2",
    b"null", b"-1", b"1e999", b"9" * 40, b"9" * 5000, b"\xed\xa0\x80", b"\\ud800", b"0" * 64,
)  # fmt: skip


def mutate(data: bytes, made: random.Random) -> bytes:
    """Return *data* changed in a few places, as whoever wants to break a reader would."""
    for _ in range(made.choice((1, 1, 2, 4))):
        at = made.randrange(len(data) + 1)
        end = min(len(data), at + made.choice((0, 1, 1, 4, 32)))
        match made.randrange(5):
            case 0:
                data = data[:at] + made.choice(_PIECES) + data[end:]
            case 1:
                data = data[:at] + data[end:]
            case 2:
                data = data[:at] + made.randbytes(end - at) + data[end:]
            case 3:
                data = data[:end] + data[at:]
            case _:
                data = data[:at]
    return data


def change_json(data: bytes, made: random.Random) -> bytes:
    """Return JSON of the same shape as *data* with one value, anywhere, of another kind."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return mutate(data, made)
    odd: list[Any] = [
        None,
        True,
        -1,
        2**64,
        1.5,
        "",
        "\u00b2",
        "\ud800",
        "x" * 3000,
        [],
        [[]],
        {},
        {"": None},
    ]
    places: list[tuple[Any, Any]] = []

    def walk(inside: Any) -> None:
        pairs = inside.items() if isinstance(inside, dict) else enumerate(inside)
        for key, each in pairs:
            places.append((inside, key))
            if isinstance(each, dict | list):
                walk(each)

    if isinstance(value, dict | list):
        walk(value)
    if not places:
        return json.dumps(made.choice(odd)).encode()
    holder, key = made.choice(places)
    holder[key] = made.choice(odd)
    return json.dumps(value).encode()
