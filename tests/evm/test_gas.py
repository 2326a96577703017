"""What calls cost, held to the table in docs/ledger-evm.md: a twentieth more or less fails."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from nix_seed.evm.signatures import EvmKey
from support.chains import Chain
from support.evm import Evm, ascending, release

DOCUMENT = Path(__file__).parents[2] / "docs/ledger-evm.md"
ROW = re.compile(r"^\| (.+?) \| ([0-9 ]+) \|$", re.MULTILINE)


def measured(chain: Chain) -> Iterator[tuple[str, int]]:
    """Yield each call of the table, and the gas it used."""
    for members, threshold in ((3, 2), (5, 3), (32, 22)):
        names = [f"builder {i}" for i in range(members)]
        evm = Evm(chain, threshold=threshold, names=names)
        signers = names[:threshold]
        yield f"deploy, {members} builders", evm.deployed.receipt.gas
        first, second = release("first"), release("second")
        first_gas = evm.call_publish(first, ascending(evm.signed(first, *signers))).receipt.gas
        if members == 3:
            yield "publish, the contract's first, 2 of 3 sign", first_gas
        sent = evm.call_publish(second, ascending(evm.signed(second, *signers)))
        yield f"publish, {threshold} of {members} sign", sent.receipt.gas
        others = [f"other {i}" for i in range(members)]
        evm.keys |= {name: EvmKey.generate() for name in others}
        new = evm.builders(*others, threshold=threshold, epoch=2)
        changed = evm.call_set_builders(new, ascending(evm.sign(new, *signers)))
        yield f"replace all of {members} builders, {threshold} sign", changed.receipt.gas


def test_gas_is_what_the_document_says(chain: Chain) -> None:
    text = DOCUMENT.read_text() if DOCUMENT.exists() else ""
    said = {name: int(figure.replace(" ", "")) for name, figure in ROW.findall(text)}
    found = dict(measured(chain))
    table = "\n".join(f"| {name} | {f'{gas:,}'.replace(',', ' ')} |" for name, gas in found.items())
    assert said.keys() == found.keys(), f"the table should be:\n{table}"
    for name, gas in found.items():
        assert abs(gas - said[name]) <= said[name] / 20, f"{name}: {gas}\n{table}"
