"""Programs built from Go modules, once a machine, for the tests marked ``interop``."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_HERE = Path(__file__).parent
MODULES = {
    "crane": "github.com/google/go-containerregistry/cmd/crane@v0.22.1",
    # The registry that Debian's docker-registry is an older version of.
    "registry": "github.com/distribution/distribution/v3/cmd/registry@v3.1.2",
    "oras": "oras.land/oras/cmd/oras@v1.3.6",
    "regctl": "github.com/regclient/regclient/cmd/regctl@v0.11.7",
    # What lists the packages in an image.
    "syft": "github.com/anchore/syft/cmd/syft@v1.57.1",
    # Rekor v2; the module's later versions need Go 1.27.
    "posix": "github.com/sigstore/rekor-tiles/v2/cmd/rekor-server/posix@v2.3.0",
    "rekor-cli": "github.com/sigstore/rekor/cmd/rekor-cli@v1.4.3",
    # Rekor v1, and the two servers of the tree behind it.
    "rekor-server": "github.com/sigstore/rekor/cmd/rekor-server@v1.4.3",
    "trillian_log_server": "github.com/google/trillian/cmd/trillian_log_server@v1.7.2",
    "trillian_log_signer": "github.com/google/trillian/cmd/trillian_log_signer@v1.7.2",
    # Fulcio, the certificate log it enters what it issues into, and a timestamp authority (whose
    # later versions need Go 1.27).
    "fulcio": "github.com/sigstore/fulcio@v1.8.8",
    "ct_server": "github.com/google/certificate-transparency-go/trillian/ctfe/ct_server@v1.4.0",
    "createtree": "github.com/google/trillian/cmd/createtree@v1.7.2",
    "timestamp-server": "github.com/sigstore/timestamp-authority/v2/cmd/timestamp-server@v2.1.3",
    # What knows GitHub's workflows by heart.
    "actionlint": "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12",
    # What runs GitHub's workflows on this machine.
    "act": "github.com/nektos/act@v0.2.89",
}
_SECONDS = 900


def installed(program: str) -> str:
    """Build one of ``MODULES`` unless it is there already; return its path."""
    module = MODULES[program]
    return _cached(program, module, ["go", "install", module], Path.cwd())


def go_registry() -> str:
    """Build the registry with the referrers API; return its path."""
    return _own("goregistry")


def go_log_check() -> str:
    """Build the program around Rekor v2's own verifier; return its path."""
    return _own("gologcheck")


def _own(program: str) -> str:
    source = _HERE / program
    content = b"".join(path.read_bytes() for path in sorted(source.iterdir()))
    target = _bin(hashlib.sha256(content).hexdigest())
    return _cached(program, target.name, ["go", "build", "-o", str(target / program), "."], source)


def _bin(key: str) -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "nix-seed-tests" / "bin" / key


def _cached(program: str, key: str, command: list[str], where: Path) -> str:
    if key in MODULES.values():
        key = hashlib.sha256(key.encode()).hexdigest()
    target = _bin(key)
    with _alone(target):
        if not (target / program).exists():
            if shutil.which("go") is None:
                pytest.skip(f"needs {program}, built by Go 1.25 or later: install go")
            environ = os.environ | {"GOBIN": str(target), "GOFLAGS": "-mod=mod -p=1"}
            nice = ["nice", "-n", "19", *command]
            done = subprocess.run(
                nice, cwd=where, env=environ, capture_output=True, text=True, timeout=_SECONDS,
                check=False,
            )  # fmt: skip
            if done.returncode != 0:
                pytest.skip(f"needs {program}, which could not be built: {done.stderr[-300:]}")
    return str(target / program)


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    target.mkdir(parents=True, exist_ok=True)
    with open(target / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
