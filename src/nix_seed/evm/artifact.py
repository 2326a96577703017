"""The compiled contract, as it is shipped: made by ``tools/compile-ledger``, compared by a test."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from nix_seed.core import canonical_json


@dataclass(frozen=True, slots=True)
class Artifact:
    """*bytecode* deploys the contract, *runtime* is then at its address, whoever deployed it."""

    abi: tuple[Mapping[str, Any], ...]
    bytecode: bytes
    runtime: bytes
    compiler: str


@cache
def shipped() -> Artifact:
    """Return the one contract that this release deploys and speaks to."""
    text = resources.files(__package__).joinpath("NixSeedLedger.json").read_bytes()
    value = canonical_json.loads(text, label="the compiled contract")
    return Artifact(
        tuple(value["abi"]), _unhex(value["bytecode"]), _unhex(value["runtime"]), value["compiler"]
    )


def _unhex(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))
