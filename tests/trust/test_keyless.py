"""Signing keyless: Sigstore's own library, against an instance on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CouldNotCheck, InputError
from nix_seed.formats.intoto.bundle import Certificate
from nix_seed.formats.intoto.statement import BUILD_TYPE, PAYLOAD_TYPE, build_statement
from nix_seed.trust.attestations import attach_bundle
from nix_seed.trust.rules.bundle import Expected, Trust, evaluate_bundle
from nix_seed.trust.rules.policy import is_signer
from nix_seed.trust.rules.signer import CertificateIdentity, certified_identity
from nix_seed.trust.sign import KeySigner, Signed, Signer
from nix_seed.trust.sigstore import KeylessSigner, SigstoreCheck, ambient_token
from support.attestations import IMAGE, predicate, push_image
from support.cosign import cosign
from support.private_sigstore import ISSUER, SUBJECT, PrivateSigstore
from support.registries import docker_registry
from support.repositories import Registry
from support.sigstore_server import Served, serving, token

CI = (
    *("GITHUB_ACTIONS", "GITLAB_CI", "CIRCLECI", "BUILDKITE", "SIGSTORE_ID_TOKEN"),
    *("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_URL"),
)


@dataclass(frozen=True)
class Scene:
    served: Served

    def signer(self, subject: str = SUBJECT) -> Signer:
        return KeylessSigner(self.served.trust_config(), partial(token, subject))

    def sign(self, image: Digest = IMAGE) -> Signed:
        payload = build_statement(predicate(image_digest=image), "x").dump()
        return self.signer().sign(PAYLOAD_TYPE, payload)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with serving(PrivateSigstore(tmp_path / "sigstore")) as served:
        yield Scene(served)


def test_what_is_signed_keyless_is_verified(scene: Scene) -> None:
    done = scene.sign()
    assert scene.served.asked == ["/api/v2/signingCert", "/timestamp", "/api/v2/log/entries"]
    assert isinstance(done.material, Certificate)
    trust = Trust(
        identities=(CertificateIdentity(ISSUER, SUBJECT),),
        certificates=SigstoreCheck(scene.served.sigstore.trusted_root()),
    )
    verdict = evaluate_bundle(done.bundle.dump(), trust, Expected(IMAGE), "it")
    assert verdict.verified, verdict.reason
    assert verdict.predicate == predicate()


def test_the_signer_says_who_signs(scene: Scene) -> None:
    assert scene.signer("someone").identity == f"someone of {ISSUER}"


@pytest.mark.parametrize(
    ("claims", "who"),
    [
        (
            {
                "sub": "repo:owner/project:ref:refs/heads/main",
                "job_workflow_ref": "forge/seed/.github/workflows/seed.yml@refs/tags/v1",
                "repository": "owner/project",
            },
            CertificateIdentity(
                ISSUER,
                "https://github.com/forge/seed/.github/workflows/seed.yml@refs/tags/v1",
                "https://github.com/owner/project",
            ),
        ),
        (
            {
                "sub": "project_path:group/project:ref_type:branch:ref:main",
                "ci_config_ref_uri": "gitlab.com/group/project//.gitlab-ci.yml@refs/heads/main",
                "project_path": "group/project",
            },
            CertificateIdentity(
                ISSUER,
                "https://gitlab.com/group/project//.gitlab-ci.yml@refs/heads/main",
                "https://gitlab.com/group/project",
            ),
        ),
        (
            {
                "sub": "project_path:group/project:ref_type:branch:ref:main",
                "ci_config_ref_uri": "git.example/group/project//.gitlab-ci.yml@refs/heads/main",
                "project_path": "group/project",
            },
            CertificateIdentity(
                ISSUER,
                "https://git.example/group/project//.gitlab-ci.yml@refs/heads/main",
                "https://git.example/group/project",
            ),
        ),
        ({"sub": "1234", "email": "a@b.example"}, CertificateIdentity(ISSUER, "a@b.example")),
        ({"sub": "1234", "email": ["a"]}, CertificateIdentity(ISSUER, "1234")),
    ],
)
def test_who_a_token_stands_for(claims: dict[str, object], who: CertificateIdentity) -> None:
    """As Fulcio's certificate will say: a policy knows them by that name."""
    assert certified_identity(claims, ISSUER) == who
    assert is_signer(who, who)
    own = who.subject.startswith(who.repository)  # or another repository's workflow, called
    assert is_signer(CertificateIdentity(who.issuer, who.subject), who) is own
    assert not is_signer(CertificateIdentity(who.issuer, who.subject, "https://other"), who)
    assert not is_signer(KeySigner.generate().who, who)


def test_cosign_accepts_it(scene: Scene, tmp_path: Path) -> None:
    program = cosign("3", tmp_path / "home")
    root = tmp_path / "root.json"
    root.write_bytes(scene.served.sigstore.trusted_root())
    with docker_registry(tmp_path / "registry", password=False) as running:
        repository = Registry(running.host).repository("owner/project")
        image = push_image(repository)
        text = scene.sign(image.digest).bundle.dump()
        attach_bundle(repository, image, text, BUILD_TYPE)
        verify = partial(
            program,
            *("verify-attestation", "--type", BUILD_TYPE, "--trusted-root", root),
            *(f"{repository}@{image.digest}", "--certificate-oidc-issuer", ISSUER),
            "--certificate-identity",
        )
        output = verify(SUBJECT)
        assert json.loads(text)["dsseEnvelope"]["payload"] in output
        assert not verify(SUBJECT + "x", check=False).startswith("0\n")


def test_only_statements_are_signed(scene: Scene) -> None:
    with pytest.raises(
        InputError, match=r"keyless signatures are made of application/vnd\.in-toto"
    ):
        scene.signer().sign("text/plain", b"x")
    assert scene.served.asked == []


def test_a_service_out_of_order(scene: Scene) -> None:
    scene.served.fails.add("/api/v2/log/entries")
    with pytest.raises(CouldNotCheck, match=r"^signing keyless failed: ") as caught:
        scene.sign()
    assert "is the Sigstore instance in reach?" in (caught.value.hint or "")


def test_a_token_that_is_none() -> None:
    with pytest.raises(CouldNotCheck, match="reading the identity token failed: IdentityError"):
        _ = KeylessSigner(b"{}", lambda: "not a token").identity


def test_a_token_of_another_time_has_the_clock_looked_at() -> None:
    """To a machine a day ahead each token is old."""
    with pytest.raises(CouldNotCheck, match="reading the identity token failed") as caught:
        _ = KeylessSigner(b"{}", lambda: token(minutes=-1440)).identity
    assert "Signature has expired" in (caught.value.detail or "")
    assert "is this machine's clock right?" in (caught.value.hint or "")


def test_a_configuration_that_is_none() -> None:
    with pytest.raises(InputError, match="the Sigstore configuration is not a ClientTrustConfig"):
        KeylessSigner(b"{}", token).sign(PAYLOAD_TYPE, b"{}")


def test_without_an_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CI:
        monkeypatch.delenv(name, raising=False)
    assert ambient_token() is None
    with pytest.raises(InputError, match="no identity to sign with was found here") as caught:
        _ = KeylessSigner().identity
    assert "--key FILE" in (caught.value.hint or "")


def test_a_job_without_the_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CI:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    with pytest.raises(CouldNotCheck, match="the CI service gave no identity token") as caught:
        ambient_token()
    assert "permissions: id-token: write" in (caught.value.hint or "")
