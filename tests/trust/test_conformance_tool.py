"""The entry point of Sigstore's conformance suite still speaks to the verifier."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from nix_seed.core.digests import Digest
from nix_seed.formats.intoto.statement import PAYLOAD_TYPE, Statement, Subject
from nix_seed.trust.sign import KeySigner

TOOL = Path(__file__).resolve().parents[2] / "tools/sigstore-conformance"


def test_a_bundle_by_a_key_is_verified_for_its_artifact_alone(tmp_path: Path) -> None:
    artifact, other = b"what is signed\n", b"another thing\n"
    signer = KeySigner.generate()
    said = Statement((Subject("a", Digest.of(artifact)),), "https://example.org/of-a-test", {})
    (tmp_path / "bundle").write_bytes(signer.sign(PAYLOAD_TYPE, said.dump()).bundle.dump())
    (tmp_path / "key.pub").write_bytes(signer.public_key.pem)
    (tmp_path / "a").write_bytes(artifact)
    (tmp_path / "b").write_bytes(other)

    def verify(name: str) -> subprocess.CompletedProcess[str]:
        options = ["--bundle", "bundle", "--key", "key.pub", name]
        command = [sys.executable, str(TOOL), "verify-bundle", *options]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert verify("a").returncode == 0, verify("a").stderr
    assert verify("b").returncode == 1
    assert "is not about" in verify("b").stderr
