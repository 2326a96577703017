"""Every reader of foreign bytes, by name, with something it takes: the one table for fuzzing.

The rule for each: *our own error, or a value, in bounded time*. Anything else is a fault.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final

import zstandard

from fuzz import deeds, wire
from fuzz.deeds import HEX, INDEX, MANIFEST, release_documents
from nix_seed.audit.rules.record import LedgerRecord
from nix_seed.audit.rules.state import AuditState
from nix_seed.core import canonical_json
from nix_seed.core.digests import Digest, NarHash
from nix_seed.core.errors import NixSeedError
from nix_seed.flake.rules.licence import evaluate_expression, read_facts
from nix_seed.flake.rules.outline import Outline
from nix_seed.formats.elf import find_loader
from nix_seed.formats.intoto.bundle import Bundle, Unverified
from nix_seed.formats.intoto.statement import BuildPredicate, Commit, PromotionPredicate, Statement
from nix_seed.formats.nix.database import parse_registration
from nix_seed.formats.nix.nar import read_nar
from nix_seed.formats.nix.store_path import Derivation, PathInfo, StorePath
from nix_seed.formats.oci.manifest import Index, Manifest
from nix_seed.formats.oci.reference import parse_reference
from nix_seed.formats.tlog.entry import LogEntry, parse_body
from nix_seed.formats.tlog.merkle import Tile, decode_entries
from nix_seed.formats.tlog.note import Checkpoint, Note, NoteKey, SignedCheckpoint
from nix_seed.formats.zstd import Frame, SeekTable
from nix_seed.image.rules.layer import FinishedLayer
from nix_seed.image.rules.spec import Spec
from nix_seed.outputs.nar import checked
from nix_seed.outputs.rules.kept import KeptOutput, read_entries
from nix_seed.outputs.rules.statement import (
    OutputFact,
    OutputsStatement,
    make_statement,
    read_statement,
)
from nix_seed.registry.auth import parse_challenges
from nix_seed.registry.rules.lock import SeedLock
from nix_seed.release.rules.tree import Evidence, MemberProof, OutputLeaf, ReleasedOutputs
from nix_seed.roots.rules.policy import RootsPolicy
from nix_seed.sbom.rules.sbom import read_licences
from nix_seed.sbom.rules.spdx import read_expression
from nix_seed.trust.rules.policy_file import parse_policy
from nix_seed.trust.rules.signer import PublicKey, read_identity
from nix_seed.use.rules.prefetch import parse_prefetch
from support.certificates import malformed_certificates
from support.nars import Directory, NarFile, Symlink, dump

NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
PATH: Final = f"/nix/store/{'0' * 31}a-hello-1.0"


@dataclass(frozen=True)
class Reader:
    """What reads bytes, and some that it takes, or nearly: what is made is made of these.

    What *more* gives is among them where the reader takes it.
    """

    read: Callable[[bytes], Any]
    corpus: tuple[bytes, ...]
    more: Callable[[], Iterable[bytes]] = tuple
    per: int = 200  # inputs in a row: fewer of what takes long

    @cached_property
    def samples(self) -> tuple[bytes, ...]:
        """All that inputs are made of."""
        return (*self.corpus, *filter(self.holds, self.more()))

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


def document(read: Callable[[Any, str], Any]) -> Callable[[bytes], Any]:
    """Give *read* the JSON that the bytes are."""
    return lambda data: read(canonical_json.loads(data, label="it"), "it")


def named(read: Callable[[bytes, str], Any]) -> Callable[[bytes], Any]:
    """Give *read* the bytes, and a name for errors."""
    return lambda data: read(data, "it")


def _json(*values: Any) -> tuple[bytes, ...]:
    return tuple(json.dumps(each).encode() for each in values)


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
_OUTPUTS: Final = OutputsStatement(
    source="https://forge.example/owner/project",
    commit=Commit("ab" * 20),
    system="x86_64-linux",
    seed=Digest("ab" * 32),
    builder="alice",
    finished_on="2026-01-31T12:34:56Z",
    outputs=(OutputFact(StorePath.parse(PATH), NarHash("cd" * 32), 8, (StorePath.parse(PATH),)),),
)
_RELEASED: Final = ReleasedOutputs(
    (OutputLeaf("x86_64-linux", StorePath.parse(PATH), Commit("ab" * 20), NarHash("cd" * 32)),)
)
_NAR: Final = Directory({b"a": NarFile(b"x" * 9, executable=True), b"b": Symlink(b"a")})
_SPDX: Final = {"packages": [{"SPDXID": "x", "annotations": [{"comment": "{}"}]}]}
_KEPT: Final = {
    "path": f"{'0' * 31}a-hello-1.0",
    "narHash": "sha256-" + "A" * 43 + "=",
    "narSize": 7,
    "nar": {"digest": f"sha256:{HEX}", "size": 9},
    "bundles": [{"digest": f"sha256:{HEX}", "size": 9}],
    "commit": "x",
    "signer": "x",
    "pushed": "2026-01-31T12:00:00Z",
    "references": [],
}
_LISTED: Final = {
    "mediaType": "application/vnd.oci.image.manifest.v1+json",
    "digest": f"sha256:{HEX}",
    "size": 7,
    "annotations": {"io.nix-seed.output": json.dumps(_KEPT)},
}
_LIST: Final = {"schemaVersion": 2, "manifests": [_LISTED]}


def read_list(data: bytes) -> object:
    """Read what a registry lists of a path."""
    return read_entries(Index.parse(data, "it").manifests, "0" * 31 + "a", "it")


def pass_nar(data: bytes) -> object:
    """Check a NAR while it is passed on."""
    info = PathInfo(StorePath.parse(PATH), NarHash(HEX), 300, ())
    return list(checked(iter([data]), info, "it"))


READERS: Final[Mapping[str, Reader]] = {
    "canonical JSON": Reader(
        lambda data: canonical_json.loads(data, label="it"),
        (*_json({"a": [1, "x", None, 1.5]}, 2**60), b"[" * 3000, b"1" * 5000),
        release_documents,
    ),
    "manifest": Reader(named(Manifest.parse), _json(MANIFEST), release_documents),
    "index": Reader(named(Index.parse), _json(INDEX), release_documents),
    "layout on disk": Reader(
        deeds.read_layout, _json(INDEX, {"imageLayoutVersion": "1.0.0"}), release_documents, per=10
    ),
    "reference": Reader(
        text(parse_reference),
        (b"ghcr.io/o/n:tag", f"h:5000/o@sha256:{HEX}".encode(), b"oci:dir:tag", b"http://x\\@y/z"),
    ),
    "challenge": Reader(
        text(parse_challenges),
        (b'Bearer realm="https://x/token",service="x",scope="a:b:pull"', b'Basic realm="\\""'),
    ),
    "bundle": Reader(named(Bundle.parse), _json(_BUNDLE), release_documents),
    "unverified bundle": Reader(Unverified.read, _json(_BUNDLE), release_documents),
    "statement": Reader(named(Statement.parse), _json(_STATEMENT), release_documents),
    "log entry": Reader(
        document(LogEntry.from_json),
        _json(_ENTRY),
        release_documents,
    ),
    "log body": Reader(
        named(parse_body),
        _json(_BODY, {"apiVersion": "0.0.1", "kind": "dsse", "spec": {"signatures": [{}]}}),
        release_documents,
    ),
    "note": Reader(named(Note.parse), (_CHECKPOINT,), release_documents),
    "note's key": Reader(text(NoteKey.parse), (b"log.example+01020304+AAAA",), release_documents),
    "checkpoint": Reader(
        text(lambda said: Checkpoint.parse(said, "it")), (_CHECKPOINT,), release_documents
    ),
    "signed checkpoint": Reader(named(SignedCheckpoint.parse), (_CHECKPOINT,), release_documents),
    "tile's path": Reader(text(Tile.parse), (b"tile/0/x001/067", b"tile/entries/000.p/7")),
    "entries of a tile": Reader(
        lambda data: decode_entries(Tile(Tile.ENTRIES, 0, 2), data), (b"\x00\x01a\x00\x02bc",)
    ),
    "certificate": Reader(named(read_identity), tuple(malformed_certificates().values())),
    "certificate's key": Reader(
        named(PublicKey.of_certificate), tuple(malformed_certificates().values())
    ),
    "public key": Reader(
        named(PublicKey.from_der),
        (bytes.fromhex("302a300506032b6570032100") * 2,),
    ),
    "public key in PEM": Reader(
        named(PublicKey.from_pem),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",),
    ),
    "derivation": Reader(text(lambda said: Derivation.parse(said, "it")), (_DERIVATION,)),
    "store path": Reader(text(StorePath.parse), (PATH.encode(),)),
    "NAR": Reader(lambda raw: list(read_nar([raw], "it", 8)), (b"".join(dump(_NAR)),)),
    "statement on outputs": Reader(
        lambda raw: read_statement(Statement.parse(raw, "it"), "it"),
        (make_statement(_OUTPUTS).dump(),),
    ),
    "promoted outputs": Reader(named(ReleasedOutputs.parse), (_RELEASED.dump(),)),
    "registration": Reader(
        text(parse_registration), (f"{PATH}\n{HEX}\n7\n\n1\n{PATH}\n".encode(),)
    ),
    "tar": Reader(deeds.read_tar, tuple(deeds.tars())),
    "layer": Reader(deeds.read_layer, tuple(deeds.layers()), per=10),
    "zstd frames": Reader(deeds.read_frames, tuple(deeds.layers())),
    "prefetch list": Reader(text(parse_prefetch), (b"3:0-4,9;0:2",)),
    "kept output": Reader(named(KeptOutput.parse), _json(_KEPT), release_documents),
    "a path's list": Reader(read_list, _json(_LIST), release_documents),
    "NAR on its way": Reader(pass_nar, (zstandard.compress(b"nar" * 100), b"")),
    "seek table": Reader(deeds.read_table, (SeekTable((Frame(9, 20), Frame(8, 7))).dump(),)),
    "spec": Reader(named(Spec.parse), _json({"format": 2, "name": "x"}), release_documents),
    "seed.lock": Reader(
        named(SeedLock.parse),
        _json({"version": 1, "image": "x"}),
        release_documents,
    ),
    "policy": Reader(lambda data: parse_policy(data, "it", NOW), (_POLICY,), release_documents),
    "evidence": Reader(
        named(Evidence.parse),
        _json({"leaves": [], "votes": []}),
        release_documents,
    ),
    "proof": Reader(
        named(MemberProof.parse),
        _json({"leaf": {}, "path": []}),
        release_documents,
    ),
    "licence expression": Reader(text(evaluate_expression), (b"MIT OR (GPL-2.0-only WITH x)",)),
    "SPDX expression": Reader(text(read_expression), (b"mit AND (isc or 0BSD)", b"GPL-2.0+")),
    "licences of a flake": Reader(
        lambda data: read_facts(canonical_json.loads(data, label="it")),
        _json([{"drv": "x", "licences": [{"spdxId": "MIT", "free": True}], "homepage": "x"}]),
    ),
    "licences of an SBOM": Reader(
        lambda data: read_licences(data, "spdx", "it"), _json(_SPDX, {"packages": 7})
    ),
    "table of contents": Reader(deeds.read_table_of_contents, (b"{}",), deeds.tables),
    "Nix's log": Reader(deeds.read_nix_log, (deeds.NIX_LOG, *deeds.NIX_LOG.split(b"\n"))),
    "promotion": Reader(
        document(PromotionPredicate.from_json),
        (),
        release_documents,
    ),
    "build": Reader(
        document(BuildPredicate.from_json),
        (),
        release_documents,
    ),
    "entry of a log in an audit": Reader(deeds.read_entry, _json(_BODY), release_documents),
    "audit's state": Reader(named(AuditState.parse), (b"{}",), release_documents),
    "record of an audit": Reader(
        document(LedgerRecord.from_json),
        (b"{}",),
        release_documents,
    ),
    "verdict on a bundle": Reader(deeds.judge, _json(_BUNDLE), release_documents),
    "keyless bundle": Reader(deeds.read_keyless, (b"{}",), deeds.keyless_bundles),
    "trusted root": Reader(deeds.read_trusted_root, (b"{}",), deeds.trusted_roots),
    "layer's record": Reader(named(FinishedLayer.parse), (deeds.layer_record(),)),
    "recipe's outline": Reader(
        lambda data: Outline.from_json(canonical_json.loads(data, label="it")),
        _json({"kind": "seed", "name": "x"}),
    ),
    "policy of roots": Reader(
        text(lambda said: RootsPolicy.parse_file(said, "it")), (b'executed-seed-max = "1KiB"\n',)
    ),
    "address": Reader(
        text(deeds.read_address),
        (b"https://h:5000/v2/x?y=z#f", b"../x;y", b"http://[::1]/", b"//other\\@home/"),
    ),
    "proxy": Reader(
        deeds.read_proxies,
        (b"http://us%40er:p%3Aw@proxy.example:3128", b"10.0.0.0/8,.example:443,[::1]:80,*", b"h:1"),
    ),
    "credentials": Reader(
        deeds.read_credentials,
        _json({"auths": {"ghcr.io": {"auth": "dXNlcjpwdw=="}}, "credHelpers": {"x": "y"}}),
    ),
    "signature for a contract": Reader(deeds.read_evm, _json({"type": "x", "typedData": {}})),
    "ELF": Reader(lambda data: find_loader(io.BytesIO(data)), (deeds.elf(),)),
    "answer of a registry": Reader(wire.ask_registry, wire.ANSWERS, per=5),
    "answer of a log": Reader(wire.ask_logs, wire.ANSWERS, per=5),
    "answer of a node": Reader(wire.ask_node, wire.RPC, per=1),
}
