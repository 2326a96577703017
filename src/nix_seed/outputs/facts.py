"""What this machine's store says of outputs: the facts that a builder signs."""

from collections.abc import Mapping, Sequence
from contextlib import suppress

from nix_seed.core.errors import CouldNotCheck
from nix_seed.flake.nix import DerivationReader, Nix
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.outputs.rules.statement import OutputFact


def output_facts(
    nix: Nix,
    reader: DerivationReader,
    derivers: Mapping[StorePath, StorePath | None],
    names: Mapping[StorePath, Sequence[str]],
) -> tuple[OutputFact, ...]:
    """Return what the store of *nix* has at the paths of *derivers*, sorted.

    *derivers* are what each was built by, as far as it is known; *names* are their flake outputs.

    Where a derivation is gone, what it was built from is not stated.
    """
    infos = nix.path_infos(derivers)
    known = {drv for drv in derivers.values() if drv is not None}
    read = {}
    for each in known:
        with suppress(CouldNotCheck):
            read[each] = reader(each)
    made = {
        (drv, name): output.path
        for drv, derivation in read.items()
        for name, output in derivation.outputs.items()
    }
    ours = {info.path for info in infos}
    facts = []
    for info in infos:
        drv = derivers.get(info.path)
        inputs = read[drv].input_drvs if drv is not None and drv in read else {}
        used = {made.get((source, name)) for source, outputs in inputs.items() for name in outputs}
        facts.append(
            OutputFact(
                info.path,
                info.nar_hash,
                info.nar_size,
                tuple(sorted(info.references)),
                drv,
                tuple(sorted(path for path in used if path in ours)),
                tuple(sorted(names.get(info.path, ()))),
            )
        )
    return tuple(facts)
