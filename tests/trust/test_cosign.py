"""The real cosign, both ways, against a real registry with and without the referrers API."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from nix_seed.formats.intoto.statement import BUILD_TYPE, STATEMENT_V01, STATEMENT_V1
from nix_seed.formats.oci.manifest import Descriptor
from nix_seed.registry.client import Repository
from nix_seed.trust.attestations import attach_bundle, discover
from nix_seed.trust.rules.bundle import Expected, Ground, Trust, evaluate_bundle
from nix_seed.trust.rules.signer import PublicKey
from nix_seed.trust.sign import KeyKind, KeySigner, write_key_pair
from support.attestations import predicate, push_image, signed
from support.cosign import Cosign, cosign
from support.registries import Running, docker_registry, referrers_registry
from support.repositories import Registry

CUSTOM = "https://forge.example/predicate"
VERIFY = {"2": ["--new-bundle-format", "--insecure-ignore-tlog"], "3": ["--insecure-ignore-tlog"]}
SIGN = {
    "2, envelope at a tag": ["--tlog-upload=false"],
    "2, bundle": ["--tlog-upload=false", "--new-bundle-format"],
    "3, envelope at a tag": [
        *("--tlog-upload=false", "--use-signing-config=false", "--new-bundle-format=false"),
    ],
    "3, bundle": ["--signing-config", "none.json"],
}


@dataclass(frozen=True)
class Scene:
    """A repository with an image in it."""

    repository: Repository
    image: Descriptor

    @property
    def reference(self) -> str:
        return f"{self.repository}@{self.image.digest}"


Start = Callable[[Path], AbstractContextManager[Running]]
KINDS: dict[str, Start] = {
    "docker-registry": partial(docker_registry, password=False),
    "referrers-api": referrers_registry,
}


@pytest.fixture(
    params=["docker-registry", pytest.param("referrers-api", marks=pytest.mark.interop)]
)
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    root = tmp_path / "registry"
    root.mkdir()
    with KINDS[request.param](root) as running:
        repository = Registry(running.host).repository("owner/project")
        yield Scene(repository, push_image(repository))


def trusted_root(program: Cosign) -> Path:
    """A root that trusts no log and no authority: with a key and without a log none is needed."""
    program("trusted-root", "create", "--out", "root.json")
    return program.home / "root.json"


@pytest.mark.parametrize("kind", ["ecdsa-p256", "ed25519"])
@pytest.mark.parametrize("major", ["2", "3"])
def test_cosign_accepts_ours(scene: Scene, tmp_path: Path, major: str, kind: KeyKind) -> None:
    program = cosign(major, tmp_path / "home")
    signer = KeySigner.generate(kind)
    public = write_key_pair(signer, tmp_path / "builder.key")
    write_key_pair(KeySigner.generate(kind), tmp_path / "other.key")
    text = signed(signer, predicate(image_digest=scene.image.digest))
    attach_bundle(scene.repository, scene.image, text, BUILD_TYPE)
    verify = partial(
        program,
        *("verify-attestation", "--type", BUILD_TYPE, *VERIFY[major]),
        *("--trusted-root", trusted_root(program), scene.reference, "--key"),
    )
    output = verify(public)
    shown = next(line for line in output.splitlines() if line.startswith('{"payload'))
    assert json.loads(shown)["payload"] == json.loads(text)["dsseEnvelope"]["payload"]
    assert not verify(tmp_path / "other.pub", check=False).startswith("0\n")


@pytest.mark.parametrize("how", SIGN)
def test_we_accept_cosigns(scene: Scene, tmp_path: Path, how: str) -> None:
    program = cosign(how[0], tmp_path / "home")
    program("generate-key-pair")
    (program.home / "predicate.json").write_text('{"answer": 42}')
    (program.home / "none.json").write_text(
        '{"mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json"}'
    )
    program(
        *("attest", "--key", "cosign.key", "--predicate", "predicate.json", "--type", CUSTOM),
        *SIGN[how],
        scene.reference,
    )
    found = discover(scene.repository, scene.image.digest)
    assert found.troubles == ()
    (attestation,) = found.attestations
    assert (".att" in attestation.place) == how.endswith("tag")
    key = PublicKey.from_pem((program.home / "cosign.pub").read_bytes(), "cosign.pub")
    expected = Expected(scene.image.digest, {CUSTOM}, {STATEMENT_V1, STATEMENT_V01})
    verdict = evaluate_bundle(attestation.text, Trust((key,)), expected, "cosign's")
    assert verdict.verified, verdict.reason
    assert verdict.signer == key
    assert verdict.statement is not None
    stranger = Trust((KeySigner.generate().public_key,))
    refused = evaluate_bundle(attestation.text, stranger, expected, "cosign's")
    assert refused.ground is Ground.UNTRUSTED


def test_cosign_reads_our_private_key(tmp_path: Path) -> None:
    program = cosign("3", tmp_path / "home")
    signer = KeySigner.generate()
    write_key_pair(signer, tmp_path / "builder.key")
    program("import-key-pair", "--key", tmp_path / "builder.key", "--output-key-prefix", "theirs")
    theirs = PublicKey.from_pem((program.home / "theirs.pub").read_bytes(), "theirs.pub")
    assert theirs == signer.public_key
