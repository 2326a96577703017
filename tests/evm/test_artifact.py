"""The compiled contract that is shipped is what its source compiles to, and is in the package."""

from __future__ import annotations

import hashlib
import json
import runpy
from importlib import metadata
from pathlib import Path

from nix_seed.evm.node import shipped

ROOT = Path(__file__).parents[2]
HERE = ROOT / "src/nix_seed/evm"


def test_compiling_again_gives_the_same_bytes() -> None:
    compiled = runpy.run_path(str(ROOT / "tools/compile-ledger"))["compiled"]
    text = (HERE / "NixSeedLedger.json").read_text()
    assert compiled(HERE / "NixSeedLedger.vy") == text, "run tools/compile-ledger"


def test_the_artifact_names_its_source_and_compiler() -> None:
    value = json.loads((HERE / "NixSeedLedger.json").read_text())
    source = (HERE / "NixSeedLedger.vy").read_bytes()
    assert value["source"] == f"sha256:{hashlib.sha256(source).hexdigest()}"
    version = metadata.version("vyper")
    assert value["compiler"] == shipped().compiler == f"vyper {version}"
    assert f"# pragma version {version}\n" in source.decode()


def test_it_is_small_enough_for_every_chain() -> None:
    """EIP-170: 24576 bytes; and the deployment code holds the runtime code as it is."""
    artifact = shipped()
    assert 2000 < len(artifact.runtime) < 24576
    assert artifact.runtime in artifact.bytecode
